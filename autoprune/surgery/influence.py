"""Whether outputs depend on weights at all: what changes nothing cannot be proved by comparing outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from autoprune.errors import TraceError
from autoprune.task.clone import Borrowed, clone_with
from autoprune.task.data import Inputs, call
from autoprune.task.models import borrowing
from autoprune.trace.topology import ChannelGroup, Topology
from autoprune.trace.tracer import plain_operators
from autoprune.trace.values import fresh, outputs_in

#: "group" or "block", and its name.
Part = tuple[str, str]
#: Said of a group or block whose cut changes nothing.
NOTHING = "cutting it changes nothing in the outputs on the example inputs, so that a wrong cut would not be seen"


@torch.no_grad()
def check_own_weights(model: nn.Module, inputs: Inputs, dense: Sequence[Tensor]) -> None:
    """Demand that a copy with other weights gives other outputs, and computes with none of the model's own.

    dense: outputs of the model. A copy bound to the model gives the same ones whatever its weights are, cut or silenced
    alike. Says nothing where no output is a number of its own (classes, say), or the copy does not run.
    Raises TraceError.
    """
    if not any(_is_number(tensor) for tensor in dense):
        return
    own = {name for name, parameter in model.named_parameters() if _is_number(parameter)}
    other = clone_with(model, lambda name, tensor: _other(tensor) if name in own else None)
    borrowed = Borrowed(model)
    try:
        with plain_operators(other), borrowed:
            outputs = outputs_in(call(other, fresh(inputs)))
    except Exception:  # user code runs in here, and values may decide on its path
        return
    if borrowed.found:
        raise TraceError(borrowing(model, borrowed))
    if len(outputs) == len(dense) and all(map(torch.equal, outputs, dense)):
        raise TraceError(
            "the model must compute its outputs with its weights, but got the same outputs with other weights. "
            "Give example_inputs on which they matter, and a model that is not bound to another one."
        )


def without_gradient(model: nn.Module, inputs: Inputs, topology: Topology) -> set[Part]:
    """Groups and blocks on none of whose weights the outputs depend, as far as one backward pass tells.

    All of them where there is none, as in a model that answers with classes.
    """
    slopes = _gradients(model, inputs)
    groups = {("group", group.name) for group in topology.groups if not any(_runs_through(group, slopes))}
    silent = [block for block in topology.blocks if not any(_is_some(slopes.get(name)) for name in block.tensors)]
    return groups | {("block", block.name) for block in silent}


def _runs_through(group: ChannelGroup, slopes: Mapping[str, Tensor]) -> Iterable[bool]:
    for member in group.members:
        slope = slopes.get(member.tensor)
        if slope is not None:
            yield _is_some(slope.index_select(member.axis, member.index.flatten().to(slope.device)))


def _is_some(slope: Tensor | None) -> bool:
    return slope is not None and bool((slope != 0).any())


def _gradients(model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """Name of a parameter -> gradient of a mixture of all outputs; empty where there is none."""
    copied = clone_with(model, lambda _, tensor: tensor).requires_grad_(False)
    named = {name: p.requires_grad_() for name, p in copied.named_parameters() if p.is_floating_point()}
    try:
        with torch.enable_grad(), plain_operators(copied):
            outputs = [tensor for tensor in outputs_in(call(copied, fresh(inputs))) if tensor.requires_grad]
            generator = torch.Generator().manual_seed(3)
            slopes = [torch.rand(tensor.shape, generator=generator).to(tensor) + 0.5 for tensor in outputs]
            found = torch.autograd.grad(outputs, list(named.values()), slopes, allow_unused=True)
    except Exception:  # no outputs that have one, or a step without
        return {}
    return {name: slope for name, slope in zip(named, found, strict=True) if slope is not None}


def _other(tensor: Tensor) -> Tensor:
    """Other values, by another factor for each: one for all would cancel where outputs are normalised."""
    return tensor * torch.linspace(0.5, 1.5, tensor.numel(), device=tensor.device).to(tensor.dtype).view(tensor.shape)


def _is_number(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
