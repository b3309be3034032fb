"""Hard-concrete gates: how likely each channel stays when the loss and the number of channels both count."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.criteria.calibration import Loss, calling
from autoprune.task.data import Batch

#: Passes over the calibration batches that learning takes, and Adam's rate.
PASSES = 4
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
    """The gates of one group, and the tensors that they multiply.

    group: its name. channels: how many are alive.
    places: (name of a tensor, axis, positions int64 [channels, k]): position p is multiplied by the gate of its row.
    """

    group: str
    channels: int
    places: tuple[tuple[str, int, Tensor], ...]


def open_probability(log_alpha: Tensor) -> Tensor:
    """Probability that a gate is not zero, in (0, 1)."""
    return torch.sigmoid(log_alpha - _TEMPERATURE * math.log(-_LOW / _HIGH))


def drawn(log_alpha: Tensor, noise: Tensor) -> Tensor:
    """Gates in [0, 1] from uniform noise in [0, 1), both [channels]."""
    u = noise.to(log_alpha).clamp(_EDGE, 1 - _EDGE)
    stretched = torch.sigmoid((torch.logit(u) + log_alpha) / _TEMPERATURE) * (_HIGH - _LOW) + _LOW
    return stretched.clamp(0.0, 1.0)


@torch.enable_grad()
def learn(
    model: nn.Module,
    batches: Sequence[Batch],
    loss: Loss,
    gates: Sequence[Gate],
    noise: Callable[[str, int], Tensor],
    total: int,
) -> dict[str, Tensor]:
    """Group -> log alpha of its gates, float [channels], after PASSES passes of Adam on the log alphas alone.

    What is brought down is the loss with gates drawn anew for each batch, plus the mean probability that a gate is
    open. Eval mode; the model stays as it is. Groups that the loss does not reach are left out.
    noise: (group, step) -> uniform [channels]. total: channels of the dense model that the mean is taken over.
    Source: Louizos et al., Learning Sparse Neural Networks through L0 Regularization, 2018.
    """
    tensors = _tensors(model, gates)
    of = {gate.group: _begin(gate, tensors) for gate in gates}
    if not of:
        return {}
    optimizer = torch.optim.Adam(of.values(), lr=_RATE)
    reached: set[str] = set()
    with calling(model) as run:
        for step, batch in enumerate(batch for _ in range(PASSES) for batch in batches):
            open_now = {gate.group: drawn(of[gate.group], noise(gate.group, step)) for gate in gates}
            value = loss(run(_gated(tensors, gates, open_now), batch.inputs), batch.targets)
            if not value.requires_grad or not torch.isfinite(value):
                continue
            slopes = torch.autograd.grad(value, list(of.values()), allow_unused=True)
            for (name, log_alpha), slope in zip(of.items(), slopes, strict=True):
                if slope is not None:
                    reached.add(name)
                open_share = open_probability(log_alpha.detach())
                price = _PRICE / total * open_share * (1 - open_share)
                log_alpha.grad = price if slope is None else price + slope
            optimizer.step()
    return {name: log_alpha.detach() for name, log_alpha in of.items() if name in reached}


def _tensors(model: nn.Module, gates: Sequence[Gate]) -> dict[str, Tensor]:
    """Those that gates multiply, by name."""
    named = {name for gate in gates for name, _, _ in gate.places}
    return {
        name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers()) if name in named
    }


def _begin(gate: Gate, tensors: Mapping[str, Tensor]) -> Tensor:
    like = tensors[gate.places[0][0]]
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.full((gate.channels,), _START, dtype=dtype, device=like.device, requires_grad=True)


def _gated(tensors: Mapping[str, Tensor], gates: Sequence[Gate], of: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors times the gates of every group that has a place on them."""
    gated = dict(tensors)
    for gate in gates:
        for name, axis, where in gate.places:
            tensor = gated[name]
            factor = torch.ones(tensor.shape[axis], dtype=of[gate.group].dtype, device=tensor.device)
            spread = of[gate.group].repeat_interleave(where.shape[1])
            factor = factor.index_copy(0, where.reshape(-1).to(tensor.device), spread)
            shape = [-1 if dim == axis else 1 for dim in range(tensor.ndim)]
            gated[name] = tensor * factor.to(tensor.dtype).reshape(shape)
    return gated
