"""Nets of five channels whose values are 1 to 5, and what there is to know of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.registry import score
from autoprune.criteria.signals import SIGNALS, Signals
from autoprune.plan.kept import KeptChannels
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.topology import Topology
from autoprune.task.data import Batch
from autoprune.trace.trace import trace

#: Two batches of one sample each: the mean of |x| is 2, of x 1, of x squared 5.
UP_AND_DOWN = (torch.tensor([[3.0]]), torch.tensor([[-1.0]]))
ONE_TO_FIVE = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])


def line(weights: Tensor = ONE_TO_FIVE, head: Tensor | None = None, *, bias: bool = False) -> nn.Sequential:
    """Linear 1 -> 5 with those weights, ReLU, linear 5 -> 1 with weights of 1."""
    model = nn.Sequential(nn.Linear(1, 5, bias=bias), nn.ReLU(), nn.Linear(5, 1, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(weights.unsqueeze(1))
        model[2].weight.copy_(torch.ones(1, 5) if head is None else head.unsqueeze(0))
        if bias:
            model[0].bias.fill_(7.0)
    return model


def added_up(outputs: object, targets: object) -> Tensor:
    assert isinstance(outputs, Tensor)
    return outputs.sum()


def half_square(outputs: object, targets: object) -> Tensor:
    assert isinstance(outputs, Tensor)
    return outputs.square().sum() / 2


def on(
    model: nn.Module,
    inputs: Sequence[Tensor],
    names: Sequence[str] = SIGNALS,
    loss: object = added_up,
    parent: tuple[Topology, KeptChannels] | None = None,
) -> Signals:
    """Signals of a model on batches of these inputs."""
    topology = trace(model, inputs[0]) if parent is None else parent[0]
    kept = KeptChannels.whole(topology) if parent is None else parent[1]
    batches = [Batch(inputs=x, targets=torch.zeros(len(x)), size=len(x)) for x in inputs]
    return gather_signals(model, names, (topology, kept), batches, loss, 0)  # type: ignore[arg-type]


def first_group(model: nn.Module, inputs: Tensor) -> ChannelGroup:
    return trace(model, inputs).groups[0]


def straight(weights: Tensor = ONE_TO_FIVE, head: Tensor | None = None, *, bias: bool = False) -> nn.Sequential:
    model = line(weights, head, bias=bias)
    model[1] = nn.Identity()
    return model


def scored(name: str, model: nn.Module, inputs: tuple[Tensor, ...], loss: object = added_up) -> list[float]:
    return score(name, first_group(model, inputs[0]), on(model, inputs, SIGNALS, loss)).tolist()


def convolutional() -> tuple[nn.Sequential, Tensor]:
    """Channels that a linear layer reads at nine places each."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 3)).eval()
        return model, torch.randn(6, 1, 5, 5)


class Add(nn.Module):
    """x plus x times a matrix: a block."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(len(matrix), len(matrix), bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(matrix)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x)


#: A quarter turn, and twice what enters.
TURN, TWICE = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 2.0]])


def residual(*matrices: Tensor) -> nn.Sequential:
    """Blocks in a row."""
    return nn.Sequential(*(Add(matrix) for matrix in matrices)).eval()
