"""Peak memory of inference: the weights and the most activations that are alive at once, counted on one call."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from autoprune.task.data import Inputs, call, eval_mode
from autoprune.trace.running import plain_operators

#: Most input channels that a oneDNN convolution reads in the plain layout, without a copy in blocks.
_READ_PLAINLY = 3

_CONVOLUTION = torch.ops.aten.convolution.default


@torch.no_grad()
def peak_memory(model: nn.Module, inputs: Inputs) -> int:
    """Count the bytes of memory that one call in eval mode needs at its peak.

    It is counted in a second call, in which each operator's tensors are followed from the operator that makes them to
    their end. Views share their memory, and operators in place need none. The peak is the largest sum at the end of an
    operator of parameters, buffers, inputs and all tensors that are alive. Memory that an operator needs only while it
    runs is left out, except for the copies by which convolutions on a CPU change the layout. Equal models have equal
    numbers.

    Args:
        model: Any model.
        inputs: Inputs of the call; the number refers to their batch size.

    Returns:
        Bytes.

    Example:
        >>> # 12 weights and 3 inputs of 4 bytes; the output of the first layer is freed after the second one.
        >>> layers = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 3, bias=False))
        >>> peak_memory(layers, torch.zeros(1, 3)) == 4 * (12 + 3 + 2 + 3)
        True
    """
    peak = 0
    with eval_mode(model), _without_collection():
        # The first call may fill caches, of the model and of torch: what they hold is not freed as in any later call.
        for _ in range(2):
            given = (tensor for tensor in tree_iter(inputs) if isinstance(tensor, Tensor))
            mode = _LiveTensors((*model.parameters(), *model.buffers(), *given))
            with plain_operators(model), mode:
                call(model, inputs)
            peak = mode.peak
    return peak


class _LiveTensors(TorchDispatchMode):
    """Follows the storages of tensors from the operator that makes them to their end.

    Attributes:
        peak: Largest number of bytes at the end of an operator so far.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._mkldnn = torch._C._get_mkldnn_enabled()
        #: Storage -> bytes. The weak references keep the numbers of freed storages from being used again.
        self._given: dict[StorageWeakRef, int] = {}
        self._made: dict[StorageWeakRef, int] = {}
        for tensor in given:
            self._count_given(tensor)
        self.peak = sum(self._given.values())

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        """Run an operator, then count what is alive."""
        kwargs = {} if kwargs is None else kwargs
        for tensor in _tensors((args, kwargs)):
            if not self._knows(tensor):  # such as a tensor that a module holds without having it as a buffer
                self._count_given(tensor)
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            reference = StorageWeakRef(storage)
            if reference not in self._given:
                self._made[reference] = storage.nbytes()  # anew each time, as operators may resize it
        self._made = {reference: size for reference, size in self._made.items() if not reference.expired()}
        alive = sum(self._given.values()) + sum(self._made.values())
        extra = _copies_of_convolution(args, result, self._mkldnn) if func is _CONVOLUTION else 0
        self.peak = max(self.peak, alive + extra)
        return result

    def _knows(self, tensor: Tensor) -> bool:
        reference = StorageWeakRef(tensor.untyped_storage())
        return reference in self._made or reference in self._given

    def _count_given(self, tensor: Tensor) -> None:
        """Count the entries of a tensor, and not its storage, of which it may be a small part."""
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        size = self._given.get(reference, 0) + tensor.numel() * tensor.element_size()
        self._given[reference] = min(size, storage.nbytes())


def _tensors(value: object) -> Iterator[Tensor]:
    """Iterate over the tensors in nested arguments or results that have a storage."""
    return (one for one in tree_iter(value) if isinstance(one, Tensor) and one.layout == torch.strided)


def _copies_of_convolution(args: Sequence[object], result: Tensor, mkldnn: bool) -> int:
    """Count the bytes by which a convolution exceeds what is alive at its end.

    oneDNN works on blocks of channels. In the plain layout it copies input and weight, frees both copies, and then
    copies the output. With channels last it copies the weight alone. For other backends nothing is known.

    Args:
        args: Arguments of aten.convolution.
        result: Its result.
        mkldnn: Whether oneDNN is in use.
    """
    values, weight = cast("Tensor", args[0]), cast("Tensor", args[1])
    if not _runs_in_onednn(args, mkldnn):
        return 0
    if any(_has_channels_last(tensor) for tensor in (values, weight)):
        return _bytes(weight)
    read = _bytes(values) if values.shape[1] > _READ_PLAINLY else 0
    return max(read + _bytes(weight), _bytes(result))


def _runs_in_onednn(args: Sequence[object], mkldnn: bool) -> bool:
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(mkldnn)  # it may be off for the sake of recurrent layers
    try:
        return str(torch._C._select_conv_backend(*args).name) == "Mkldnn"
    finally:
        torch._C._set_mkldnn_enabled(before)


def _has_channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep Python from collecting cycles, which would free their tensors at another operator each time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
