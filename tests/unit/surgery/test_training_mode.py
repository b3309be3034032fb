"""Parameters that training mode alone reads follow the channels that they are used with, and are proved there."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure, prove
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.reasons import DIFFERS, NO_EFFECT
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask
from autoprune.task.modes import LossMode
from autoprune.trace.trace import trace
from tests.zoo.numbers import SplitBiasAttention
from tests.zoo.registry import build_any
from tests.zoo.training import MaskedByWidth, MaskedPlaces


def halved(topology: Topology) -> KeptChannels:
    return KeptChannels(groups={group.name: tuple(range(0, group.channels, 2)) for group in topology.groups})


def at_rest(model: nn.Module, inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad(), LossMode(trains=True).on(model):
        out = model(inputs)
    return out if isinstance(out, tuple) else (out,)


def masked_places(kind: type[MaskedPlaces] = MaskedPlaces) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return kind(), torch.randn(3, 6, 5)


@pytest.mark.parametrize("name", ["masked_places", "auxiliary_head"])
def test_they_are_cut_with_the_channels_that_they_are_used_with(name: str) -> None:
    model, inputs = build_any(name)
    assert isinstance(inputs, Tensor)
    topology = discover_structure(model, inputs)
    assert topology.group("stem" if name == "masked_places" else "stem.0")
    model, kept = model.double(), halved(topology)
    cut(model, topology, kept).train()(inputs.double())
    if name == "auxiliary_head":  # a mask of LayerNorm traces eval mode
        smaller, silenced = (at_rest(make(model, topology, kept), inputs.double()) for make in (cut, mask))
        for got, expected in zip(smaller, silenced, strict=True):
            torch.testing.assert_close(got, expected)


def test_channels_that_eval_mode_does_not_read_are_no_group() -> None:
    topology = discover_structure(*build_any("auxiliary_head"))
    assert [entry.why.kind for entry in topology.unprunable if entry.module == "auxiliary.0"] == [NO_EFFECT]


def test_eval_mode_alone_offers_no_channels_that_training_mode_holds_whole() -> None:
    model, inputs = masked_places()
    assert [group.name for group in prove(model, trace(model, inputs), inputs).groups] == ["mlp.0"]


def test_what_depends_on_the_number_of_channels_in_training_alone_is_refused() -> None:
    model, inputs = masked_places(MaskedByWidth)
    topology = discover_structure(model, inputs)
    assert [group.name for group in topology.groups] == ["mlp.0"]
    proved = prove(model, trace(model, inputs, in_training=True), inputs)
    assert [group.name for group in proved.groups] == ["mlp.0"]
    why = next(entry.why for entry in proved.unprunable if entry.module == "stem")
    assert why.kind == DIFFERS
    assert why.words.startswith("cutting it changes the outputs in training mode, by")


def test_a_wrong_order_of_what_training_alone_reads_is_found() -> None:
    def shifted(group: ChannelGroup) -> ChannelGroup:
        members = tuple(
            replace(member, index=np.roll(member.index, 1, 0)) if member.tensor == "mask_vector" else member
            for member in group.members
        )
        return replace(group, members=members)

    model, inputs = masked_places()
    right = trace(model, inputs, in_training=True)
    wrong = replace(right, groups=tuple(map(shifted, right.groups)))
    assert len(prove(model, right, inputs).groups) == 2
    assert [group.name for group in prove(model, wrong, inputs).groups] == ["mlp.0"]


def test_costs_are_those_of_eval_mode() -> None:
    model, inputs = build_any("auxiliary_head")
    eval_mode, both = trace(model, inputs), trace(model, inputs, in_training=True)
    assert both.cost({}) == eval_mode.cost({})
    assert both.blocks == eval_mode.blocks


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each trace of a survey, whether training mode was traced, too."""
    seen: list[bool] = []

    def noted(*args: object, in_training: bool = False, **options: object) -> Topology:
        seen.append(in_training)
        return trace(*args, in_training=in_training, **options)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr("autoprune.proof.discover.trace", noted)
    return seen


def test_training_mode_is_traced_once_and_only_where_eval_mode_leaves_weights_unread(traces: list[bool]) -> None:
    discover_structure(*build_any("auxiliary_head"))
    assert traces == [False, True]
    traces.clear()
    discover_structure(*build_any("residual_mlp"))
    assert traces == [False]


class MaskedLayers(MaskedPlaces):
    """The same before equal attentions, the number of heads of which is found in a copy without the repeats."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SplitBiasAttention(16, 2) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.training:
            x[torch.from_numpy(np.random.rand(*x.shape[:2]) < 0.5)] = self.masking(x)
        for layer in self.layers:
            x = x + layer(x)
        out: Tensor = self.head(x.mean(1))
        return out


def test_what_a_copy_without_repeats_shows_is_traced_in_training_mode_too(traces: list[bool]) -> None:
    torch.manual_seed(0)
    topology = discover_structure(MaskedLayers(), torch.randn(3, 6, 5))
    assert traces[:3] == [False, False, True]  # the model, the copy, the copy in training mode too
    assert traces[-1]
    trunk = next(group for group in topology.groups if "mask_vector" in {member.tensor for member in group.members})
    assert {"stem.weight", "head.weight"} <= {member.tensor for member in trunk.members}


class DrawsFromNumpy(nn.Module):
    """Noise from NumPy and Python in eval mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu() * (1 + np.random.rand()) * (1 + random.random())
        out: Tensor = self.second(hidden)
        return out


def test_models_that_draw_from_numpy_and_python_are_proved() -> None:
    torch.manual_seed(0)
    before = np.random.get_state()[1].tolist()
    topology = discover_structure(DrawsFromNumpy(), torch.randn(3, 5))
    assert [group.name for group in topology.groups] == ["first"]
    assert np.random.get_state()[1].tolist() == before
