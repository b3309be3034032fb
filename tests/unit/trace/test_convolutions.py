"""Convolutions over tensors whose channels do not lie on the axis of channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autoprune.measure.cost import count_multiply_adds
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask
from tests.unit.surgery.helpers import assert_cut_is_mask, stirred
from tests.unit.trace.test_trace import Free, reasons

IMAGES = (2, 2, 6, 6)


def between(run: Callable[[Free, Tensor], Tensor], conv: nn.Module, read: int = 8) -> Free:
    """A convolution that makes 8 channels, something between, and one that reads them."""
    layers = {"a": nn.Conv2d(2, 8, 3), "conv": conv, "b": nn.Conv2d(read, 3, 1)}
    return stirred(Free(lambda m, x: m.b(run(m, torch.tanh(m.a(x)))), **layers))


def gate(m: Free, x: Tensor) -> Tensor:
    """Of every channel, from the means of its neighbours: efficient channel attention."""
    means = x.mean((2, 3)).unsqueeze(1)
    return x * torch.sigmoid(m.conv(means)).squeeze(1)[..., None, None]


def along(m: Free, x: Tensor) -> Tensor:
    """Channels last: places are read as channels, channels as places."""
    return m.conv(x.flatten(2).mT.flip(1).tanh()).mT.unflatten(2, (4, -1))


def every_one(m: Free, x: Tensor) -> Tensor:
    """Channels are samples: a filter of one channel for each of them."""
    return m.conv(x.flatten(0, 1).unsqueeze(1)).squeeze(1).unflatten(0, (2, -1))


@pytest.mark.parametrize(
    "model",
    [
        lambda: between(gate, nn.Conv1d(1, 1, 3, padding=1, bias=False)),
        lambda: between(gate, nn.Conv1d(1, 1, 5, padding=4, dilation=2)),
        lambda: between(along, nn.Conv1d(16, 16, 1)),
        lambda: between(along, nn.Conv1d(16, 12, 3, padding="same")),
        lambda: between(every_one, nn.Conv2d(1, 1, 3, stride=2, bias=False)),
    ],
    ids=["gate", "dilated gate", "every channel", "neighbours", "samples"],
)
def test_channels_in_the_place_of_others_are_pruned_and_counted(model: Callable[[], Free]) -> None:
    net, inputs = model(), torch.randn(IMAGES)
    topology = discover_structure(net, inputs)
    assert topology.widths["a"] == 8
    assert_cut_is_mask(net, topology, inputs)
    smaller = cut(net, topology, KeptChannels(groups={"a": (1, 4, 5)}))
    assert topology.cost({"a": 3}).multiply_adds == count_multiply_adds(smaller, inputs)


def test_a_gate_slides_over_the_channels_that_stay() -> None:
    model = between(gate, nn.Conv1d(1, 1, 3, padding=1, bias=False))
    inputs, kept = torch.randn(IMAGES), [0, 3, 4, 7]
    silenced = mask(model, discover_structure(model, inputs), KeptChannels(groups={"a": tuple(kept)}))(inputs)
    x = torch.tanh(model.a(inputs))[:, kept]
    expected = nn.functional.conv2d(gate(model, x), model.b.weight[:, kept], model.b.bias)
    torch.testing.assert_close(silenced, expected)


def test_channels_that_are_skipped_by_a_stride_stay() -> None:
    model = between(lambda m, x: m.conv(x.mean(3).mT).mT[..., None], nn.Conv1d(4, 4, 1, stride=2), read=4)
    topology = discover_structure(model, torch.randn(IMAGES))
    assert topology.widths == {}
    assert reasons(topology, "a").startswith("is resampled, packed or moved as a place in time or space")
