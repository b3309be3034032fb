"""Criteria on weights, against numbers worked out by hand."""

from __future__ import annotations

import zlib

import pytest
import torch

from autoprune.criteria import magnitude
from autoprune.errors import ConfigurationError
from tests.unit.criteria.small import GAMMA, signals_of, small, topology_of


def test_l1() -> None:
    model = small()
    found = magnitude.l1(topology_of(model).groups[0], signals_of(model))
    assert found.tolist() == [1 + 2, 3 + 0, 0.5 + 0.5]


def test_l2() -> None:
    model = small()
    found = magnitude.l2(topology_of(model).groups[0], signals_of(model))
    torch.testing.assert_close(found, torch.tensor([5**0.5, 3.0, 0.5**0.5]))


def test_batch_norm_scale() -> None:
    model = small(norm=True)
    found = magnitude.batch_norm_scale(topology_of(model).groups[0], signals_of(model))
    assert found.tolist() == [abs(gamma) for gamma in GAMMA]


def test_batch_norm_scale_without_a_norm() -> None:
    model = small()
    with pytest.raises(ConfigurationError, match="criterion 'bn_scale' must be used on groups with a norm"):
        magnitude.batch_norm_scale(topology_of(model).groups[0], signals_of(model))


def test_random_is_a_function_of_seed_group_and_channel() -> None:
    model = small()
    group = topology_of(model).groups[0]
    generator = torch.Generator().manual_seed(zlib.crc32(b"5/0"))
    torch.testing.assert_close(magnitude.random(group, signals_of(model, seed=5)), torch.rand(3, generator=generator))
    assert not torch.equal(
        magnitude.random(group, signals_of(model, seed=5)), magnitude.random(group, signals_of(model, seed=6))
    )


def test_every_layer_that_makes_the_channels_counts() -> None:
    """In a residual sum, two layers make the same channels: their norms add up."""
    from autoprune.trace.trace import trace
    from tests.zoo.registry import build

    model, inputs = build("resnet")
    topology = trace(model, inputs)
    weights = [model.stem[0].weight, model.blocks[0].conv2.weight]
    norms = [model.stem[1].weight, model.blocks[0].bn2.weight]
    signals = signals_of(model, topology=topology)
    group = topology.group("stem.0")
    flat = [weight.detach().flatten(1) for weight in weights]
    torch.testing.assert_close(magnitude.l1(group, signals), sum(weight.abs().sum(1) for weight in flat))
    torch.testing.assert_close(magnitude.l2(group, signals), sum(weight.square().sum(1) for weight in flat).sqrt())
    torch.testing.assert_close(magnitude.batch_norm_scale(group, signals), sum(norm.detach().abs() for norm in norms))
