"""Signals on models of the zoo, and the same models with their channels in another order."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from autoprune.criteria import gathering
from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.signals import SIGNALS, Signals
from autoprune.plan.kept import KeptChannels
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.topology import Topology
from autoprune.task.data import Batch
from tests.slow import slow
from tests.zoo.registry import ZOO, specimen

#: Models whose layers are, for a criterion, those of others.
ALIKE = ("bottleneck_resnet", "vgg", "decoder", "conv3d", "group_norm_net", "mlp")
#: One item for each model: its signals are gathered once, and every criterion is tried on them.
every_model = pytest.mark.parametrize("name", [slow(name) if name in ALIKE else name for name in ZOO])

#: Group -> channel c is what channel order[c] was.
Orders = Mapping[str, Tensor]


def squared(outputs: object, targets: object) -> Tensor:
    assert isinstance(outputs, Tensor)
    return outputs.square().mean()


def signals_on(
    model: nn.Module, name: str, kept: KeptChannels | None = None, names: tuple[str, ...] = SIGNALS
) -> Signals:
    """Signals, all unless named, on two batches of inputs that differ."""
    case = specimen(name)
    inputs = case.inputs, case.inputs.flip(0) * 2 if case.inputs.is_floating_point() else case.inputs.flip(0)
    batches = [Batch(inputs=x, targets=torch.zeros(len(x)), size=len(x)) for x in inputs]
    kept = kept or KeptChannels.whole(case.topology)
    return gather_signals(model, names, (case.topology, kept), batches, squared, 3)


@functools.cache
def dense_signals(name: str) -> Signals:
    return signals_on(specimen(name).model, name)


@functools.cache
def gathered_again(name: str) -> Signals:
    return signals_on(specimen(name).model, name)


def orders_of(topology: Topology) -> Orders:
    """Another order for the channels of every group."""
    generator = torch.Generator().manual_seed(2)
    return {group.name: torch.randperm(group.channels, generator=generator) for group in topology.groups}


@torch.no_grad()
def permute(tensors: MutableMapping[str, Tensor], topology: Topology, orders: Orders) -> None:
    """Move what the tensors hold along every axis of every group, in place."""
    for group in topology.groups:
        _permute(tensors, group, orders[group.name])


def _permute(tensors: Mapping[str, Tensor], group: ChannelGroup, order: Tensor) -> None:
    for member in group.members:
        if member.tensor in tensors:
            tensor = tensors[member.tensor]
            index = torch.from_numpy(member.index)
            source = tensor.index_select(member.axis, index[order].flatten())
            tensor.index_copy_(member.axis, index.flatten(), source)


@functools.cache
def permuted_signals(name: str) -> Signals:
    """Of the same function with all channels in another order, whose chance has moved with them."""
    case = specimen(name)
    orders = orders_of(case.topology)
    model = copy.deepcopy(case.model)
    permute({**dict(model.named_parameters()), **dict(model.named_buffers())}, case.topology, orders)
    torch.testing.assert_close(model(case.inputs), case.model(case.inputs), msg="not the same function")
    with _chance_moved(case.topology, orders):
        return signals_on(model, name)


@contextmanager
def _chance_moved(topology: Topology, orders: Orders) -> Iterator[None]:
    """What is drawn for a position is drawn for where it has moved: probes of curvature, noise of gates."""
    signs, of_channel, noise = gathering._signs, gathering._of_channel, Signals.noise

    def moved(name: str, values: Tensor) -> Tensor:
        permute({name: values}, topology, orders)
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "_signs", lambda *given: moved(given[2], signs(*given)))
        patch.setattr(gathering, "_of_channel", lambda *given: of_channel(*given)[orders[given[2]]])
        patch.setattr(Signals, "noise", lambda self, key, name: moved(name, noise(self, key, name)))
        yield
