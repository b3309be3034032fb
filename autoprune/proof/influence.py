"""Find weights that the outputs depend on: a cut that changes no output proves nothing."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.errors import TraceError
from autoprune.plan.kept import KeptChannels
from autoprune.proof.forwards import Forwards
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.reasons import NO_EFFECT, Reason
from autoprune.structure.topology import Topology
from autoprune.task.clone import BorrowedWeights, clone_with
from autoprune.task.data import Inputs, call
from autoprune.task.models import borrowing_message
from autoprune.trace.values import clone_inputs, map_tensors, outputs_in

#: "group" or "block", and its name.
Part = tuple[str, str]
#: Part -> kept sets that cut it.
Cuts = Mapping[Part, Sequence[KeptChannels]]
#: For each axis of a tensor, bool [positions]: whether any gradient there is not zero. A tensor without axes has one.
Axes = tuple[Tensor, ...]
#: The reason for a group or block whose cut changes nothing.
NO_EFFECT_REASON = Reason(kind=NO_EFFECT)


@torch.no_grad()
def check_own_weights(model: nn.Module, inputs: Inputs, dense: Sequence[Tensor], forwards: Forwards) -> None:
    """Check that the outputs depend on the model's weights, and that a copy computes with its own.

    A copy bound to the model gives the model's outputs whatever its own weights are, cut or silenced alike. Models
    without numbers among their outputs (classes, say), and copies that do not run, pass unchecked.

    Args:
        model: The model.
        inputs: Inputs of its forward.
        dense: Its outputs.
        forwards: Runs the copy.

    Raises:
        TraceError: If the outputs do not change with the weights, or the copy uses the model's weights.
    """
    if not any(_is_number(tensor) for tensor in dense):
        return
    own = {name for name, parameter in model.named_parameters() if _is_number(parameter)}

    def changed(name: str, tensor: Tensor) -> Tensor | None:
        forwards.check_time()  # copying the weights of a large model takes long
        return _other(tensor) if name in own else None

    other = clone_with(model, changed)
    borrowed = BorrowedWeights(model)
    try:
        with forwards.of(other), borrowed:
            outputs = outputs_in(call(other, clone_inputs(inputs)))
    except Exception:  # user code runs in here, and values may decide on its path
        return
    if borrowed.found:
        raise TraceError(borrowing_message(model, borrowed))
    if len(outputs) == len(dense) and all(map(torch.equal, outputs, dense)):
        raise TraceError(
            "the model must compute its outputs with its weights, but got the same outputs with other weights. "
            "Give example_inputs on which they matter, and a model that is not bound to another one."
        )


def without_gradient(slopes: Mapping[str, Axes], topology: Topology) -> set[Part]:
    """Return the groups and blocks on none of whose weights the outputs seem to depend.

    Args:
        slopes: Result of `gradients`; without any gradient all groups and blocks are returned.
        topology: The topology.

    Returns:
        The parts.
    """
    groups = {("group", group.name) for group in topology.groups if not any(_runs_through(group, slopes))}
    some = influential_parameters(slopes)
    silent = [block for block in topology.blocks if some.isdisjoint(block.tensors)]
    return groups | {("block", block.name) for block in silent}


def influential_parameters(slopes: Mapping[str, Axes]) -> set[str]:
    """Return the parameters on which the outputs depend.

    Args:
        slopes: Result of `gradients`.

    Returns:
        Their names.
    """
    return {name for name, axes in slopes.items() if bool(axes[0].any())}


def merge_cuts(cuts: Collection[Sequence[KeptChannels]]) -> list[KeptChannels]:
    """Combine cuts of single parts to cuts of all parts at once.

    Args:
        cuts: For each part its kept sets; a part with fewer of them repeats them.

    Returns:
        As many kept sets as the part with the most has.
    """
    return [
        KeptChannels(
            groups={name: kept for one in some for name, kept in one.groups.items()},
            dropped=tuple(dict.fromkeys(name for one in some for name in one.dropped)),
        )
        for number in range(max(map(len, cuts), default=0))
        for some in [[choices[number % len(choices)] for choices in cuts]]
    ]


def matrices(group: ChannelGroup) -> set[str]:
    """Return the tensors that make or read the channels of a group.

    Args:
        group: The group.

    Returns:
        Their names.
    """
    return {member.tensor for member in group.members if member.role in {"out", "in"}}


def _runs_through(group: ChannelGroup, slopes: Mapping[str, Axes]) -> Iterable[bool]:
    for member in group.members:
        if member.tensor in slopes:
            yield bool(slopes[member.tensor][member.axis][torch.from_numpy(member.index).flatten()].any())


def gradients(
    model: nn.Module, inputs: Inputs, forwards: Forwards, among: Container[str] | None = None
) -> dict[str, Axes]:
    """Find where the gradient of a mixture of all outputs is not zero.

    Each gradient is inspected and freed at once: all of them together are as large as the model.

    Args:
        model: In float64, or with weights that `forwards` converts.
        inputs: Inputs of the same precision.
        forwards: Runs the model.
        among: Names of the parameters to look at; None for all.

    Returns:
        Parameter name -> positions of each axis with a gradient; empty if there is no gradient.
    """
    found: dict[str, Axes] = {}
    given = map_tensors(clone_inputs(inputs), forwards.shortened)
    try:
        with torch.enable_grad(), forwards.short(model) as copied:
            copied.requires_grad_(False)
            for name, parameter in copied.named_parameters():
                if parameter.is_floating_point() and (among is None or name in among):
                    parameter.requires_grad_().register_post_accumulate_grad_hook(partial(_look, found, name))
            outputs = [tensor for tensor in outputs_in(call(copied, given)) if tensor.requires_grad]
            generator = torch.Generator().manual_seed(3)
            slopes = [torch.rand(tensor.shape, generator=generator).to(tensor) + 0.5 for tensor in outputs]
            # Values that are not finite are equal in a cut and a mask, whatever they were computed from.
            slopes = [slope * tensor.isfinite() for slope, tensor in zip(slopes, outputs, strict=True)]
            torch.autograd.backward(outputs, slopes)
    except Exception:  # no output has a gradient, or an operator has no backward
        return {}
    return found


def _look(found: dict[str, Axes], name: str, parameter: Tensor) -> None:
    """Note the positions with a gradient other than zero, and free the gradient."""
    grad = parameter.grad
    if grad is not None:
        # A NaN is no evidence. The sum shows whether there is one, and takes less time than two comparisons.
        some = (grad != 0 if bool(grad.sum().isfinite()) else (grad > 0) | (grad < 0)).cpu()
        others = [[other for other in range(some.ndim) if other != axis] for axis in range(some.ndim)]
        found[name] = tuple(_any(some, axes) if axes else some for axes in others) or (some.reshape(1),)
        parameter.grad = None


def _any(some: Tensor, axes: list[int]) -> Tensor:
    """Tell which entries are true anywhere along some axes: torch's own `any` takes ten times as long."""
    return some.view(torch.uint8).amax(axes).bool() if some.numel() else some.any(dim=axes)


def _other(tensor: Tensor) -> Tensor:
    """Multiply each entry by another factor: one factor for all would cancel where outputs are normalised."""
    along = torch.linspace(0.5, 1.5, tensor.shape[-1] if tensor.ndim else 1, device=tensor.device).to(tensor.dtype)
    scaled = tensor * along if tensor.ndim else tensor * along[0]
    if tensor.ndim > 1:
        across = torch.linspace(1.5, 0.6, tensor.shape[0], device=tensor.device).to(tensor.dtype)
        scaled *= across.view(-1, *[1] * (tensor.ndim - 1))
    return scaled


def _is_number(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
