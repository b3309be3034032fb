"""Hard-concrete gates: how likely a thing stays when the loss and the number of things both count."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.criteria.block_effects import hook_blocks
from autoprune.criteria.calibration import Loss, functional_model
from autoprune.task.data import Batch
from autoprune.trace.blocks import DroppableBlock

#: Passes over the calibration batches that learning takes, and Adam's rate.
GATE_PASSES = 4
_RATE = 0.1
#: Limits of the stretched distribution, and its temperature.
_LOW, _HIGH, _TEMPERATURE = -0.1, 1.1, 2 / 3
#: log alpha to begin with: gates that are nearly always open.
_START = 2.0
#: What the mean probability that a gate is open costs, in units of the loss.
_PRICE = 1.0
#: Where the noise is cut off, as its logarithm is taken.
_EDGE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Gates that are learned together, and what they multiply: channels, the entries of a weight, or a block.

    name: of the group, weight or block. shape: of the gates; () for the one of a block.
    places: (name of a tensor, axis, positions int64 [channels, k]): position p is multiplied by the gate of its row.
    weight: name of a tensor of that shape that is multiplied entry by entry, "" for none.
    block: what it adds is multiplied.
    """

    name: str
    shape: tuple[int, ...] = ()
    places: tuple[tuple[str, int, Tensor], ...] = ()
    weight: str = ""
    block: DroppableBlock | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that it multiplies; of a block those that it has."""
        own = (self.weight,) if self.weight else tuple(name for name, _, _ in self.places)
        return own if self.block is None else self.block.tensors


#: (name of gates, step) -> uniform in [0, 1), of the gates' shape.
GateNoise = Callable[[str, int], Tensor]


def open_probability(log_alpha: Tensor) -> Tensor:
    """Probability that a gate is not zero, in (0, 1)."""
    return torch.sigmoid(log_alpha - _TEMPERATURE * math.log(-_LOW / _HIGH))


def sample_gates(log_alpha: Tensor, noise: Tensor) -> Tensor:
    """Gates in [0, 1] from uniform noise in [0, 1), of one shape."""
    u = noise.to(log_alpha).clamp(_EDGE, 1 - _EDGE)
    stretched = torch.sigmoid((torch.logit(u) + log_alpha) / _TEMPERATURE) * (_HIGH - _LOW) + _LOW
    return stretched.clamp(0.0, 1.0)


@torch.enable_grad()
def learn_gates(
    model: nn.Module, batches: Sequence[Batch], loss: Loss, gates: Sequence[Gate], noise: GateNoise, total: int
) -> dict[str, Tensor]:
    """Name of gates -> their log alpha, float of their shape, after PASSES passes of Adam on the log alphas alone.

    What is brought down is the loss with gates drawn anew for each batch, plus the mean probability that a gate is
    open. In the mode of the loss; the model stays as it is. Gates that the loss does not reach are left out.
    total: gates of the dense model that the mean is taken over.
    Source: Louizos et al., Learning Sparse Neural Networks through L0 Regularization, 2018.
    """
    known = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    of = {gate.name: _begin(gate, known) for gate in gates}
    if not of:
        return {}
    optimizer = torch.optim.Adam(of.values(), lr=_RATE)
    blocks = [gate.block for gate in gates if gate.block is not None]
    reached: set[str] = set()
    now: dict[str, Tensor] = {}

    def gated(block: DroppableBlock, before: Tensor | None, after: Tensor) -> Tensor:
        del before, after
        return now[block.name]

    with functional_model(model, loss) as run, hook_blocks(model, blocks, gated):
        for step, batch in enumerate(batch for _ in range(GATE_PASSES) for batch in batches):
            now.update({name: sample_gates(log_alpha, noise(name, step)) for name, log_alpha in of.items()})
            value = loss(run(_gated(known, gates, now), batch.inputs), batch.targets)
            if not value.requires_grad or not torch.isfinite(value):
                continue
            reached |= _slopes(value, of, total)
            optimizer.step()
    return {name: log_alpha.detach() for name, log_alpha in of.items() if name in reached}


def _slopes(value: Tensor, of: Mapping[str, Tensor], total: int) -> set[str]:
    """Set the gradients of the log alphas to those of loss and price; which of them the loss reaches."""
    slopes = torch.autograd.grad(value, list(of.values()), allow_unused=True)
    for log_alpha, slope in zip(of.values(), slopes, strict=True):
        share = open_probability(log_alpha.detach())
        price = _PRICE / total * share * (1 - share)
        log_alpha.grad = price if slope is None else price + slope
    return {name for name, slope in zip(of, slopes, strict=True) if slope is not None}


def _begin(gate: Gate, known: Mapping[str, Tensor]) -> Tensor:
    like = known[gate.tensors[0]]
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.full(gate.shape, _START, dtype=dtype, device=like.device, requires_grad=True)


def _gated(known: Mapping[str, Tensor], gates: Sequence[Gate], of: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that gates multiply, times the gates of all that have a place on them."""
    gated: dict[str, Tensor] = {}
    for gate in gates:
        if gate.weight:
            gated[gate.weight] = known[gate.weight] * of[gate.name].to(known[gate.weight].dtype)
        for name, axis, where in gate.places:
            tensor = gated.get(name, known[name])
            factor = torch.ones(tensor.shape[axis], dtype=of[gate.name].dtype, device=tensor.device)
            spread = of[gate.name].repeat_interleave(where.shape[1])
            factor = factor.index_copy(0, where.reshape(-1).to(tensor.device), spread)
            shape = [-1 if dim == axis else 1 for dim in range(tensor.ndim)]
            gated[name] = tensor * factor.to(tensor.dtype).reshape(shape)
    return gated
