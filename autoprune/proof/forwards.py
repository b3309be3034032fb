"""Run the forwards of a proof: in float64 from weights of any type, up to a deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.proof.memory import give_back, resident
from autoprune.proof.partial_reads import LARGE, PartialReads, Sample, Staying, product, storage_of
from autoprune.task.clone import clone_with
from autoprune.task.data import Inputs, call
from autoprune.trace.running import plain_operators
from autoprune.trace.values import clone_inputs, outputs_in, tensors_in

_FINEST = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}
_SHORT = {
    torch.float64: torch.float32,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.complex128: torch.complex64,
}
#: Operators that only pick values: picking before conversion avoids converting whole tables.
_PICKING = frozenset(("embedding", "index_select", "index", "gather"))
_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)


class OutOfTime(BaseException):
    """The time of a proof is over. Not an Exception, which code of the model might catch."""


class WritesWeightsError(RuntimeError):
    """A forward changes weights of the user's model in place."""


@dataclass(frozen=True, slots=True)
class Forwards:
    """Settings under which the models of a proof run.

    Attributes:
        deadline: Processor time at which forwards raise OutOfTime, in seconds.
        promotes: Whether every operator computes in float64, whatever the types of its arguments. Weights are converted
            one by one as they are used, so no second copy of a model is needed.
        guarded: Storages that no forward may write to.
        most: Bytes of resident memory above which freed memory is returned to the system after a forward.
        precisions: Floating-point types of all results so far; without promotion a model may cast inside.
        samples: Weight -> sample of the outputs that it makes; the others are not worked out.
    """

    deadline: float
    promotes: bool
    guarded: frozenset[int] = frozenset()
    most: float = math.inf
    precisions: set[torch.dtype] = field(default_factory=set)
    samples: Mapping[str, Sample] = field(default_factory=dict)

    @contextmanager
    def of(self, model: nn.Module, staying: Staying = MappingProxyType({})) -> Iterator[None]:
        """Run a model in this context, in its own mode.

        Args:
            model: The model.
            staying: Positions of large weights that stay; what lies elsewhere is read as zero.

        Yields:
            Nothing.
        """
        with plain_operators(model), _Run(self, _FINEST, PartialReads(model, staying, self.samples)):
            yield

    @contextmanager
    def short(self, model: nn.Module) -> Iterator[nn.Module]:
        """Run a copy of a model forward and backward in this context, in float32 if forwards promote.

        That is enough to tell which gradients are zero.

        Args:
            model: The model.

        Yields:
            The copy; it shares parameters.
        """
        copied = self.shortened_model(model)
        with plain_operators(copied), _Run(self, _SHORT, None):
            yield copied
        give_back(self.most)

    def shortened_model(self, model: nn.Module) -> nn.Module:
        """Copy a model to float32, if forwards promote; parameters in float32 are shared.

        Args:
            model: The model.

        Returns:
            The copy.
        """
        parameters = {name for name, _ in model.named_parameters()}

        def own(name: str, tensor: Tensor) -> Tensor | None:
            short = self.shortened(tensor)
            return None if short is tensor and name not in parameters else short

        return clone_with(model, own)

    def shortened(self, tensor: Tensor) -> Tensor:
        """Convert a tensor for `short`.

        Args:
            tensor: The tensor.

        Returns:
            The tensor in float32 or complex64 if forwards promote, otherwise unchanged.
        """
        return tensor.to(_SHORT.get(tensor.dtype)) if self.promotes else tensor

    def outputs(self, model: nn.Module, inputs: Inputs, staying: Staying = MappingProxyType({})) -> list[Tensor]:
        """Run a model without gradients.

        Args:
            model: The model.
            inputs: Its inputs.
            staying: As in `of`.

        Returns:
            The tensors among its outputs.

        Raises:
            OutOfTime: When the deadline passes.
        """
        given = clone_inputs(inputs)
        with torch.no_grad(), self.of(model, staying):
            outputs = outputs_in(call(model, given))
        give_back(self.most)
        return outputs

    def check_time(self) -> None:
        """Raise OutOfTime once the deadline has passed."""
        if time.process_time() > self.deadline:
            raise OutOfTime


def most_of(model: nn.Module) -> int:
    """Return the resident memory above which freed memory is given back: that in use now plus 1.5 times the weights.

    Args:
        model: The model.

    Returns:
        Bytes.
    """
    return resident() + 3 * sum(parameter.nbytes for parameter in model.parameters()) // 2


def storages(model: nn.Module) -> frozenset[int]:
    """Return the storages that hold the parameters of a model.

    Args:
        model: The model.

    Returns:
        Identities of the storages.
    """
    return frozenset(storage_of(tensor) for tensor in model.parameters()) - {0}


class _Run(TorchDispatchMode):
    """A forward, or a forward with its backward.

    types: dtype of arguments -> dtype to compute in. reads: weights that are read in part; None if a backward follows.
    """

    def __init__(
        self, forwards: Forwards, types: Mapping[torch.dtype, torch.dtype], reads: PartialReads | None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._forwards, self._reads = forwards, reads
        self._types = types if forwards.promotes else {}

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        del types
        kwargs = kwargs or {}
        self._forwards.check_time()
        views, written = _aliases(func)
        targets = [target for target in (_argument(place, args, kwargs) for place in written) if target is not None]
        self._guard(targets)
        # A gradient gets the dtype that autograd asks for: that of its weight.
        if views or (self._reads is None and func.overloadpacket.__name__ == "_to_copy"):
            return func(*args, **kwargs)
        out = self._partial(func, args, kwargs) if self._reads else None
        if out is None:
            out = self._whole(func, args, kwargs, targets)
        if self._reads is not None:
            # Coarse constants do no harm, so scalars and vectors are not counted.
            found = (tensor for tensor in tensors_in(out) if tensor.is_floating_point() and tensor.ndim > 1)
            self._forwards.precisions.update(tensor.dtype for tensor in found)
        return out

    def _partial(self, func: torch._ops.OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        """Run an operator that reads a weight in part, without a copy of the weight; None for other operators."""
        assert self._reads is not None
        if func not in _PRODUCTS or kwargs:
            return _mapped(self._reads.picked(func, args, kwargs), self._cast)
        *bias, values, weight = args
        assert isinstance(values, Tensor) and isinstance(weight, Tensor)
        out = self._reads.product(self._cast(values), weight, self._cast_in_time)
        return None if out is None else sum((self._cast(one) for one in bias if isinstance(one, Tensor)), out)

    def _whole(
        self,
        func: torch._ops.OpOverload,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        targets: list[Tensor],
    ) -> object:
        """Run an operator in the types of this run. targets: arguments that it writes to."""
        if self._reads:
            args = tuple(_mapped(arg, self._reads.silenced) for arg in args)
            kwargs = {name: _mapped(arg, self._reads.silenced) for name, arg in kwargs.items()}
        if not self._forwards.promotes:
            return func(*args, **kwargs)
        return _written(func, args, kwargs, targets[0].dtype) if targets else self._converted(func, args, kwargs)

    def _converted(self, func: torch._ops.OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        if func.overloadpacket.__name__ in _PICKING:
            return _mapped(func(*args, **kwargs), self._cast)
        if func in _PRODUCTS and not kwargs:
            *bias, values, weight = args
            if isinstance(values, Tensor) and isinstance(weight, Tensor) and self._is_large(weight):
                out = product(self._cast(values), weight, self._cast_in_time)
                return sum((self._cast(one) for one in bias if isinstance(one, Tensor)), out)
        words = {name: _mapped(arg, self._cast, self._types) for name, arg in kwargs.items()}
        return _mapped(func(*(_mapped(arg, self._cast, self._types) for arg in args), **words), self._cast)

    def _is_large(self, weight: Tensor) -> bool:
        return weight.dtype in self._types and weight.numel() > LARGE

    def _cast(self, tensor: Tensor) -> Tensor:
        dtype = self._types.get(tensor.dtype)
        return tensor if dtype is None else tensor.to(dtype)

    def _cast_in_time(self, part: Tensor) -> Tensor:
        """Convert a part of a large weight, after a check of the time: a product with all of it may take long."""
        self._forwards.check_time()
        return self._cast(part)

    def _guard(self, targets: list[Tensor]) -> None:
        for target in targets:
            if storage_of(target) in self._forwards.guarded:
                raise WritesWeightsError("the model changes its weights in its forward")


@cache
def _aliases(func: torch._ops.OpOverload) -> tuple[bool, tuple[tuple[int, str], ...]]:
    """Tell whether an operator only returns a view, and which arguments it writes to."""
    marked = [
        (place, argument.name, argument.alias_info.is_write)
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None
    ]
    written = tuple((place, name) for place, name, writes in marked if writes)
    return bool(marked) and not written, written


def _argument(place: tuple[int, str], args: tuple[object, ...], kwargs: Mapping[str, object]) -> Tensor | None:
    position, name = place
    value = args[position] if position < len(args) else kwargs.get(name)
    return value if isinstance(value, Tensor) else None


def _written(
    func: torch._ops.OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object], dtype: torch.dtype
) -> object:
    """Run an operator in place, in the dtype of the argument that it writes to."""

    def fitted(tensor: Tensor) -> Tensor:
        floating = tensor.is_floating_point() and dtype.is_floating_point
        return tensor.to(dtype) if floating and tensor.dtype != dtype else tensor

    return func(*(_mapped(arg, fitted) for arg in args), **{name: _mapped(arg, fitted) for name, arg in kwargs.items()})


def _mapped(
    value: object, change: Callable[[Tensor], Tensor], types: Mapping[torch.dtype, torch.dtype] = MappingProxyType({})
) -> object:
    """Map the tensors of an argument or result; only lists of tensors are nested. types: replaces dtypes."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, torch.dtype):
        return types.get(value, value)
    if isinstance(value, tuple | list) and any(isinstance(item, Tensor) for item in value):
        return type(value)(_mapped(item, change) for item in value)
    return value
