"""The quick cost model gives the numbers of Topology.cost, and both those of a model that is really cut."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import UnknownNameError
from autoprune.measure.cost import count_multiply_adds, count_parameters
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import prove
from autoprune.search.allocation.cost_model import CostModel
from autoprune.structure.cost import STRUCTURE_COSTS
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.trace.trace import trace
from tests.zoo.convolutional import ResNet, mlp, mobilenet, vgg

IMAGE = (2, 1, 8, 8)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet": (ResNet, IMAGE),
    "vgg": (vgg, IMAGE),
    "mobilenet": (mobilenet, IMAGE),
    "mlp": (mlp, (3, 20)),
}


@functools.cache
def traced(name: str) -> tuple[nn.Module, Tensor, Topology]:
    build, shape = MODELS[name]
    model, inputs = build().eval(), torch.randn(shape)
    return model, inputs, prove(model, trace(model, inputs), inputs)


def random_widths(topology: Topology, generator: np.random.Generator) -> dict[str, int]:
    return {name: int(generator.integers(1, channels + 1)) for name, channels in topology.widths.items()}


@pytest.mark.parametrize("axis", STRUCTURE_COSTS)
@pytest.mark.parametrize("name", MODELS)
def test_cost_is_that_of_the_topology(name: str, axis: str) -> None:
    _, _, topology = traced(name)
    model, generator = CostModel(topology, axis), np.random.default_rng(0)
    assert len(topology.groups) >= 2, "a model without groups would prove nothing"
    for _ in range(20):
        widths = random_widths(topology, generator)
        assert model.cost(model.as_array(widths)) == getattr(topology.cost(widths), axis)


@pytest.mark.parametrize("name", MODELS)
def test_cost_is_that_of_the_model_once_it_is_cut(name: str) -> None:
    dense, inputs, topology = traced(name)
    generator = np.random.default_rng(1)
    for _ in range(3):
        widths = random_widths(topology, generator)
        smaller = cut(dense, topology, KeptChannels(groups={group: tuple(range(n)) for group, n in widths.items()}))
        tensors = [*smaller.parameters(), *smaller.buffers()]
        real = {
            "multiply_adds": count_multiply_adds(smaller, inputs),
            "parameters": count_parameters(smaller),
            "size_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        }
        for axis in STRUCTURE_COSTS:
            model = CostModel(topology, axis)
            assert model.cost(model.as_array(widths)) == real[axis]


def test_dense_share_and_smallest() -> None:
    _, _, topology = traced("resnet")
    model = CostModel(topology, "multiply_adds")
    assert model.dense == topology.cost({}).multiply_adds
    assert model.share(model.channels) == 1.0
    narrowest = topology.cost(dict.fromkeys(topology.widths, 1)).multiply_adds
    assert model.share(np.ones_like(model.channels)) == pytest.approx(narrowest / model.dense, rel=1e-12)


def test_groups_without_a_width_stay_whole() -> None:
    _, _, topology = traced("vgg")
    model = CostModel(topology, "parameters")
    first = model.names[0]
    widths = model.as_array({first: 3})
    assert widths[0] == 3
    assert (widths[1:] == model.channels[1:]).all()


def test_fractional_widths_lie_between_whole_ones() -> None:
    _, _, topology = traced("mobilenet")
    model = CostModel(topology, "multiply_adds")
    low, high = np.floor(model.channels / 2), np.floor(model.channels / 2) + 1
    assert model.cost(low) < model.cost((low + high) / 2) < model.cost(high)


def test_unknown_axis_lists_the_known() -> None:
    _, _, topology = traced("mlp")
    with pytest.raises(UnknownNameError, match=r"multiply_adds, parameters, size_bytes.*'latency_ms'"):
        CostModel(topology, "latency_ms")
