"""Track the running module and its arguments, and read numbers of torch's modules that no tensor shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from autoprune.structure.groups import Member
from autoprune.structure.reasons import UNEQUAL
from autoprune.trace.flow import ModuleCall, PassedTensor
from autoprune.trace.union_find import AxisNodes, Nodes
from autoprune.trace.values import tensors_in

if TYPE_CHECKING:
    from autoprune.trace.tracer import Tracer


@contextmanager
def track_modules(model: nn.Module, tracer: Tracer) -> Iterator[None]:
    """Record module calls: the tracer's `module` and `inputs` are those of the innermost module that runs.

    Args:
        model: The model that is about to run.
        tracer: The tracer to write to.

    Yields:
        Nothing; the hooks are removed at the end.
    """
    stack: list[ModuleCall] = [ModuleCall("", ())]
    handles = []

    def enter(name: str) -> Callable[[nn.Module, tuple[object, ...], Mapping[str, object]], None]:
        def hook(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
            # Before the forward, as a module may change its arguments in place.
            took = _passed(tracer, (*enumerate(args), *kwargs.items()))
            stack.append(ModuleCall(name, took, began=len(tracer.flow.operators)))
            tracer.module = name
            tracer.inputs.append(args)
            tracer.made.append([])
            if args and isinstance(args[0], Tensor):
                _follow_widths(tracer, module, args[0])

        return hook

    def leave(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        del module, args
        ended = stack.pop()
        tracer.inputs.pop()
        tracer.made.pop()
        tracer.module = stack[-1].module
        _give(tracer, output)
        several = isinstance(output, tuple | list)
        outputs = list(output) if isinstance(output, tuple | list) else [output]
        ended.gave, ended.outputs = _passed(tracer, enumerate(outputs)), len(outputs) if several else 0
        ended.plain = all(value is None or isinstance(value, Tensor) for value in outputs)
        ended.ended = len(tracer.flow.operators)
        tracer.flow.calls.append(ended)

    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue  # takes no hooks; its operators are seen as those of the module around it
        handles.append(module.register_forward_pre_hook(enter(name), with_kwargs=True))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _passed(tracer: Tracer, values: Iterable[tuple[int | str, object]]) -> tuple[PassedTensor, ...]:
    """Return the tensors among arguments or outputs."""
    return tuple(
        PassedTensor(place, tracer.flow.number(value), tuple(value.shape), value.dtype, tracer.axes(value))
        for place, value in values
        if isinstance(value, Tensor)
    )


def tie(tracer: Tracer, nodes: AxisNodes, *, split: bool = False) -> AxisNodes:
    """Couple the channels that a module reshapes to equally many channels of its input, if the module is one of
    `tied_modules`.

    Attention in the forward of the model itself has an input without channels; the outputs of its parts are used there.

    Args:
        tracer: The trace.
        nodes: The reshaped channels.
        split: Whether they are about to become a grid. Input channels that are partly coupled already are then returned
            instead of coupled, as they would be coupled along both sides of the grid.

    Returns:
        Those input channels, None if there are none.
    """
    if nodes is None or tracer.module not in tracer.tied_modules or not tracer.inputs:
        return None
    # In order of their first position: a window repeats every channel.
    nodes = np.array(list({tracer.union_find.find(node): node for node in nodes.tolist()}.values()))
    if tracer.buffer_nodes.issuperset(nodes.tolist()):
        return None  # positions, not channels: a mask for each window, say
    known = _channels(tracer, tracer.inputs[-1]) or [*tracer.made[-1]]
    sides = {len(side) for grid in tracer.grids if grid.module == tracer.module for side in grid[1:]}
    if len(nodes) not in sides:  # heads are no width, even if they are equally many
        known.append(tracer.lengths_of_tied.setdefault((tracer.module, len(nodes)), nodes))
    apart = None
    for own in known:
        if len(own) == len(nodes):
            if split and len(np.unique(tracer.union_find.roots(own))) < len(own):
                apart = own
            else:
                tracer.union_find.unify(nodes, own)
    return apart


def balance(tracer: Tracer, table: Nodes) -> None:
    """Let rows of channels lose equally many; freeze channels for which that is impossible.

    Args:
        tracer: The trace.
        table: Nodes, [rows, positions].
    """
    tracer.freeze(tracer.union_find.balance(table), UNEQUAL)


def _give(tracer: Tracer, output: object) -> None:
    """Note the outputs of a part for the module around it, if that module is tied."""
    if tracer.module in tracer.tied_modules and tracer.made:
        tracer.made[-1] += _channels(tracer, output)


def _channels(tracer: Tracer, value: object) -> list[npt.NDArray[np.int64]]:
    return [own for tensor in tensors_in(value) for own in tracer.axes(tensor) if own is not None]


def _follow_widths(tracer: Tracer, module: nn.Module, given: Tensor) -> None:
    axes = tracer.axes(given)
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):
        tracer.note_number("num_features", axes[1], module.num_features)  # no tensor of that width unless affine
    elif isinstance(module, nn.RMSNorm) and len(module.normalized_shape) == 1:
        # Decomposed into single operators if there is no kernel for it.
        if not module.elementwise_affine:
            tracer.note_number("normalized_shape", axes[-1], module.normalized_shape[0])
        tracer.role(module.weight, 0, "scale")
    elif isinstance(module, nn.Transformer):
        tracer.note_number("d_model", axes[-1], module.d_model)


#: Kinds of normalisation: classes of torch, and parts of the class names of other libraries.
_NORMS: Mapping[str, tuple[tuple[type[nn.Module], ...], tuple[str, ...]]] = {
    "batch": ((nn.modules.batchnorm._BatchNorm,), ("BatchNorm",)),
    "layer": ((nn.LayerNorm, nn.RMSNorm), ("LayerNorm", "RMSNorm")),
}


def normalisations(model: nn.Module) -> tuple[str, ...]:
    """Return the kinds of normalisation in a model.

    Args:
        model: The model.

    Returns:
        "batch" (over the samples of a batch) and "layer" (LayerNorm and RMSNorm), as far as the model has them.
    """
    return tuple(
        kind
        for kind, (types, names) in _NORMS.items()
        if any(isinstance(m, types) or any(name in type(m).__name__ for name in names) for m in model.modules())
    )


def min_channels_of(tracer: Tracer, members: Sequence[Member]) -> int:
    """Return the fewest channels of a group that torch's modules allow.

    An LSTM with a projection needs more hidden units than projected ones.

    Args:
        tracer: The trace.
        members: Members of the group.

    Returns:
        The number, 1 or more.
    """
    least = 1
    for member in members:
        path, _, name = member.tensor.rpartition(".")
        module = tracer.modules.get(path)
        if isinstance(module, nn.RNNBase) and name.startswith("weight_hr") and member.axis == 1:
            least = max(least, module.proj_size + 1)
    return least
