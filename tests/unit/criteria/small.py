"""A net of three hidden channels whose numbers a person can follow."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.signals import Signals
from autoprune.plan.kept import KeptChannels
from autoprune.structure.topology import Topology
from autoprune.task.data import Batch
from autoprune.trace.trace import trace

WEIGHT, BIAS = [[1.0, -2.0], [3.0, 0.0], [0.5, 0.5]], [0.5, -1.0, 0.0]
GAMMA, BETA = [2.0, -3.0, 0.5], [0.25, 0.0, -1.0]
HEAD = [[1.0, 2.0, -1.0], [0.0, 1.0, 3.0]]
INPUTS = (torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.tensor([[0.0, -1.0], [-1.0, 0.5], [3.0, 1.0]]))


def small(*, norm: bool = False) -> nn.Sequential:
    """Linear 2 -> 3, perhaps a norm with statistics 0 and 1, linear 3 -> 2."""
    layers: list[nn.Module] = [nn.Linear(2, 3), nn.BatchNorm1d(3, eps=0.0) if norm else nn.Identity(), nn.Linear(3, 2)]
    model = nn.Sequential(*layers).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(WEIGHT))
        model[0].bias.copy_(torch.tensor(BIAS))
        model[2].weight.copy_(torch.tensor(HEAD))
        model[2].bias.zero_()
        if norm:
            model[1].weight.copy_(torch.tensor(GAMMA))
            model[1].bias.copy_(torch.tensor(BETA))
    return model


def topology_of(model: nn.Module) -> Topology:
    return trace(model, INPUTS[0])


def batches() -> list[Batch]:
    return [Batch(inputs=inputs, targets=torch.zeros(len(inputs)), size=len(inputs)) for inputs in INPUTS]


def total(outputs: object, targets: object) -> Tensor:
    """A loss whose gradient to every output is 1."""
    assert isinstance(outputs, Tensor)
    return outputs.sum()


def signals_of(model: nn.Module, *names: str, seed: int = 0, topology: Topology | None = None) -> Signals:
    topology = topology or topology_of(model)
    return gather_signals(model, names, (topology, KeptChannels.whole(topology)), batches(), total, seed)
