"""Hard-concrete gates: the probability that a channel, weight or block stays when open gates cost loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.criteria.block_effects import hook_blocks
from autoprune.criteria.calibration import Loss, functional_model
from autoprune.structure.blocks import DroppableBlock
from autoprune.task.data import Batch

#: Passes over the calibration batches, and Adam's learning rate.
GATE_PASSES = 4
_RATE = 0.1
#: Limits of the stretched distribution, and its temperature.
_LOW, _HIGH, _TEMPERATURE = -0.1, 1.1, 2 / 3
#: Initial log alpha: gates are nearly always open.
_START = 2.0
#: Price of the mean probability that a gate is open, in units of the loss.
_PRICE = 1.0
#: Distance of the noise from 0 and 1, as its logarithm is taken.
_EDGE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Gates that are learned together, and the channels, entries of a weight, or block that they multiply.

    Attributes:
        name: Name of the group, weight or block.
        shape: Shape of the gates; () for a block, which has one gate.
        places: (name of a tensor, axis, positions int64 [channels, k]): each position is multiplied by the gate of its
            row.
        weight: Name of a tensor of that shape that is multiplied entry by entry; "" for none.
        block: Block whose addition is multiplied; None for none.
    """

    name: str
    shape: tuple[int, ...] = ()
    places: tuple[tuple[str, int, Tensor], ...] = ()
    weight: str = ""
    block: DroppableBlock | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that the gates multiply; for a block the names of its tensors."""
        own = (self.weight,) if self.weight else tuple(name for name, _, _ in self.places)
        return own if self.block is None else self.block.tensors


#: (name of gates, step) -> uniform in [0, 1), of the gates' shape.
GateNoise = Callable[[str, int], Tensor]


def open_probability(log_alpha: Tensor) -> Tensor:
    """Compute the probability that a gate is not zero.

    Args:
        log_alpha: Parameters of the gates, any shape.

    Returns:
        Probabilities in (0, 1), of the same shape.
    """
    return torch.sigmoid(log_alpha - _TEMPERATURE * math.log(-_LOW / _HIGH))


def sample_gates(log_alpha: Tensor, noise: Tensor) -> Tensor:
    """Sample gates from noise.

    Args:
        log_alpha: Parameters of the gates, any shape.
        noise: Uniform noise in [0, 1), of the same shape.

    Returns:
        Gates in [0, 1], of the same shape.
    """
    u = noise.to(log_alpha).clamp(_EDGE, 1 - _EDGE)
    stretched = torch.sigmoid((torch.logit(u) + log_alpha) / _TEMPERATURE) * (_HIGH - _LOW) + _LOW
    return stretched.clamp(0.0, 1.0)


@torch.enable_grad()
def learn_gates(
    model: nn.Module, batches: Sequence[Batch], loss: Loss, gates: Sequence[Gate], noise: GateNoise, total: int
) -> dict[str, Tensor]:
    """Learn the log alphas of gates by GATE_PASSES passes of Adam; the weights stay fixed.

    Minimises the loss with gates sampled anew for each batch, plus the mean probability that a gate is open. The model
    runs in the mode of the loss and is not changed.
    Source: Louizos et al., Learning Sparse Neural Networks through L0 Regularization, 2018.

    Args:
        model: Model to learn on.
        batches: Calibration batches on the model's device.
        loss: Loss of the task.
        gates: Gates to learn.
        noise: Noise of each step.
        total: Number of gates of the dense model, over which the mean is taken.

    Returns:
        Name of the gates -> log alpha, float of their shape. Gates that the loss does not reach are left out.
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
    """Set the gradients of the log alphas to the gradients of loss and price; return the names reached by the loss."""
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
    """Multiply tensors by all gates that have a place on them."""
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
