"""Nets of five channels whose values are 1 to 5, and what there is to know of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoprune.criteria.kept import KeptChannels
from autoprune.criteria.signals import SIGNALS, Signals, gather
from autoprune.task.data import Batch
from autoprune.trace.topology import ChannelGroup, Topology
from autoprune.trace.trace import trace

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
    return gather(model, names, (topology, kept), batches, loss, 0)  # type: ignore[arg-type]


def first_group(model: nn.Module, inputs: Tensor) -> ChannelGroup:
    return trace(model, inputs).groups[0]
