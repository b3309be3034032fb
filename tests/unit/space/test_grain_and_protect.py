"""Kept channels as multiples of a grain, and groups that the user protects."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import autoprune
from autoprune.errors import ConfigurationError
from autoprune.plan.widths import planned_widths
from autoprune.search.space.space import build_space, reach
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.settings import space_of, study_of
from tests.tasks import TWO, image_task
from tests.zoo.convolutional import ResNet


@functools.cache
def resnet() -> Topology:
    return trace(ResNet(widths=(16, 24, 32), depth=1), torch.randn(2, 1, 8, 8))


@pytest.mark.parametrize("kind", ["guided", "direct"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_widths_are_multiples_of_the_grain_or_dense_or_a_half_below_it(kind: str, data: st.DataObject) -> None:
    chosen = space_of(space=kind, round_to=8, max_ratio=0.9)
    space = build_space(chosen, resnet(), None)
    parameters = {
        name: data.draw(st.floats(d.low, d.high)) if hasattr(d, "low") else data.draw(st.sampled_from(d.choices))
        for name, d in space.distributions.items()
    }
    widths = planned_widths(space.decode(parameters, seed=0), resnet())
    for name, width in widths.items():
        dense = resnet().widths[name]
        assert 0.1 * dense <= width <= dense
        assert width % 8 == 0 or width in (2, 4, dense)


def test_a_group_narrower_than_the_grain_is_halved() -> None:
    found = reach(space_of(round_to=64, max_ratio=0.7), resnet())
    assert {(resnet().widths[name], width) for name, width in found["smallest"].items()} == {(16, 8), (24, 8), (32, 16)}


def test_a_grain_of_eight_reaches_what_it_says() -> None:
    found = reach(space_of(round_to=8, max_ratio=0.9), resnet())
    assert {(resnet().widths[name], width) for name, width in found["smallest"].items()} == {(16, 2), (24, 4), (32, 4)}
    assert found["largest"] == resnet().widths


def test_protected_groups_are_withdrawn_with_the_pattern() -> None:
    left = resnet().protected(["blocks.1.*"])
    assert not any(name.startswith("blocks.1.") for name in left.widths)
    assert "stem.0" in left.widths
    assert any("'blocks.1.*'" in entry.reason for entry in left.unprunable)


def test_what_shares_channels_with_a_protected_layer_names_it() -> None:
    left = resnet().protected(["blocks.1.shortcut.0"])
    (shared,) = {entry.why.words for entry in left.unprunable if "protected" in entry.why.words}
    assert shared == "is protected by the pattern 'blocks.1.shortcut.0'; blocks.1.shortcut.0 shares its channels"
    (own,) = {entry.why.words for entry in resnet().protected(["blocks.1.conv1"]).unprunable if entry.group}
    assert own == "is protected by the pattern 'blocks.1.conv1'"


def test_a_pattern_that_matches_nothing_lists_the_groups() -> None:
    with pytest.raises(
        ConfigurationError, match=r"must match one of the modules stem\.0, .* and \d+ more, but got 'stm"
    ):
        resnet().protected(["stm.*"])


def test_a_study_leaves_protected_groups_whole_and_exports_them(tmp_path: Path) -> None:
    task = image_task()
    chosen = study_of(
        trials=4,
        uniform_points=3,
        solved_points=0,
        latency_rounds=0,
        objectives=("quality", "multiply_adds"),
        space=space_of(steps=1, protect=("stem.*",), round_to=4, scan=False),
    )
    study = autoprune.Study.create(task, chosen, out=tmp_path / "run")
    study.run()
    record = study.records[-1]
    assert "stem.0" not in record.widths
    model = study.rebuild(record.number)
    conv = model.get_submodule("stem.0")
    assert isinstance(conv, nn.Conv2d)
    assert conv.out_channels == 8

    from autoprune.export.exportable import Exportable
    from autoprune.export.safetensors import export_safetensors

    export_safetensors(Exportable.of_run(study.stored, record.number), tmp_path / "small.safetensors")
    fresh = ResNet(widths=TWO, depth=1, classes=4)
    again = autoprune.load_safetensors(fresh, task.example_inputs, tmp_path / "small.safetensors")
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
