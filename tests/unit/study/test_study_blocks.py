"""A study that may drop residual blocks whole, beside channels."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import autoprune
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.export.exportable import Exportable
from autoprune.export.safetensors import export_safetensors
from autoprune.measure.cost import count_multiply_adds, count_parameters
from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.plan.widths import planned_widths
from autoprune.records.candidate import CandidateRecord
from autoprune.search import lineage
from autoprune.search.allocation.cost_model import CostModel
from autoprune.search.space.space import build_space
from autoprune.trial.context import TrialContext
from tests.tasks import THREE, image_task, trained_resnet
from tests.unit.study.small import settings, space

KINDS = ("channels", "blocks")


@functools.cache
def task() -> autoprune.PreparedTask:
    return image_task()


@functools.cache
def context() -> TrialContext:
    return TrialContext.of(image_task(model=trained_resnet(THREE)), kinds=KINDS)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    out = tmp_path_factory.mktemp("blocks") / "run"
    made = autoprune.Study.create(task(), settings(trials=10, seed=4, space=space(kinds=KINDS)), out=out)
    made.run()
    return made


def without_block(study: autoprune.Study) -> list[CandidateRecord]:
    return [record for record in study.records if record.dropped]


def test_some_candidates_are_without_a_block(study: autoprune.Study) -> None:
    assert 0 < len(without_block(study)) < len(study.records)
    for record in without_block(study):
        assert record.dropped == record.plan.dropped == ("blocks.0",)
        assert record.note == ""


def test_a_candidate_without_a_block_is_what_was_measured(study: autoprune.Study) -> None:
    for record in without_block(study):
        model = study.rebuild(record.number)
        assert count_parameters(model) == record.search.parameters
        assert count_multiply_adds(model, task().example_inputs) == record.search.multiply_adds
        assert not [name for name in model.state_dict() if name.startswith("blocks.0.")]


def test_a_parent_has_every_block_that_its_child_has(study: autoprune.Study) -> None:
    by_number = {record.number: record for record in study.records}
    for record in study.records:
        if record.parent is not None:
            assert set(by_number[record.parent].dropped) <= set(record.dropped)
    (without, *_) = without_block(study)
    assert study.context is not None
    narrow = ResolvedPlan.of(PruningPlan(), study.context.topology)
    narrow = replace(narrow, widths=dict.fromkeys(without.widths, 1))
    assert lineage.choose_parent([by_number[0], without], narrow) == by_number[0]
    assert lineage.choose_parent([by_number[0], without], replace(narrow, gone=frozenset(["blocks.0"]))) == without


def test_it_reads_back_from_disk_and_from_an_export(study: autoprune.Study, tmp_path: Path) -> None:
    assert autoprune.Study.open(study.folder.path).records == study.records
    record = without_block(study)[-1]
    path, _ = export_safetensors(Exportable.of_run(study.stored, record.number), tmp_path / "small.safetensors")
    images = task().example_inputs
    assert isinstance(images, torch.Tensor)
    loaded = autoprune.load_safetensors(task().dense, images, path)
    assert torch.equal(loaded(images), study.rebuild(record.number)(images))


def test_blocks_are_not_dropped_unless_asked() -> None:
    plain = TrialContext.of(task(), kinds=autoprune.SpaceSettings().structure.kinds)
    assert plain.topology.blocks == ()
    asked = TrialContext.of(task(), kinds=KINDS)
    assert asked.topology.blocks != ()
    assert plain.structure == asked.structure


@pytest.mark.parametrize("kind", ["guided", "direct"])
def test_a_plan_with_blocks_goes_through_the_space(kind: str) -> None:
    made = build_space(space(space=kind, kinds=KINDS), context().topology, None)
    point = {**made.uniform(0.4), "drop/blocks.0": True}
    plan = made.decode(point, seed=0)
    assert plan.dropped == ("blocks.0",)
    assert PruningPlan.from_json(plan.to_json()) == plan
    assert made.decode(made.encode(plan), seed=0).dropped == plan.dropped


def test_the_budget_is_met_without_the_block() -> None:
    topology = context().topology
    made = build_space(space(kinds=KINDS), topology, None)
    dense = topology.cost({}).multiply_adds
    for budget in (0.4, 0.3, 0.1):
        plan = made.decode({**made.uniform(budget), "drop/blocks.0": True}, seed=0)
        widths = planned_widths(plan, topology)
        assert topology.cost(widths, plan.dropped).multiply_adds / dense == pytest.approx(budget, abs=0.03)
        quick = CostModel(topology, "multiply_adds", plan.dropped)
        exact = topology.cost(widths, plan.dropped).multiply_adds
        assert quick.cost(quick.as_array(widths)) == pytest.approx(exact, rel=1e-9)
    whole = CostModel(topology, "multiply_adds", ("blocks.0",))
    assert whole.dense == dense
    assert whole.cost(np.array(list(topology.widths.values()), dtype=float)) < dense


def test_an_enqueued_plan_may_drop_a_block(tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), settings(trials=2, space=space(kinds=KINDS)), out=tmp_path / "run")
    plan = PruningPlan(groups={}, dropped=("blocks.0",))
    study.enqueue(plan)
    with pytest.raises(ConfigurationError, match=r"a block to drop must be one of blocks\.0, but got 'head'"):
        study.enqueue(replace(plan, dropped=("head",)))
    study.run()
    (record,) = [record for record in study.records if record.origin == "enqueued"]
    assert record.dropped == ("blocks.0",)


def test_a_protected_block_stays() -> None:
    for pattern in ("blocks.0", "blocks.0.conv1", "blocks.*"):
        assert TrialContext.of(task(), kinds=KINDS, protect=(pattern,)).topology.blocks == ()


def test_unknown_kinds_list_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="blocks, channels, head_width, heads, layers"):
        space(kinds=("experts",))
    with pytest.raises(ConfigurationError, match="kinds must be a tuple, such as"):
        space(kinds=())
