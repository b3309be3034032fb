"""Studies of weights alone, of blocks alone and of all kinds with every setting: front, report, rebuild and replay."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, PolynomialLR

import autoprune
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.plan.maskable import maskable
from autoprune.records.candidate import CandidateRecord
from autoprune.report.html import write_report
from autoprune.search.space.setting_groups import PRUNING_KINDS
from autoprune.study import store
from autoprune.trial.candidate import evaluate_plan
from autoprune.trial.context import TrialContext
from tests.unit.recovery.watching import one_batch_task
from tests.unit.study.small import settings, space


def halving(optimizer: Optimizer, steps: int) -> LRScheduler:
    """A user's own."""
    return PolynomialLR(optimizer, steps, power=2.0)


@functools.cache
def task(flat: bool) -> autoprune.PreparedTask:
    return one_batch_task(flat=flat, schedulers={"mine": halving}, test=None)


#: Every line of the catalogue in one space.
ALL = {
    "kinds": PRUNING_KINDS,
    "modes": ("ratio", "count", "threshold", "ranking"),
    "criteria": ("l2", "taylor", "movement"),
    "criterion_per_group": True,
    "block_criteria": ("block_influence", "random"),
    "patterns": ("none", "unstructured", "2:4", "block-4x4"),
    "spreads": ("layer", "erk", "global"),
    "weight_criteria": ("l1", "snip", "movement"),
    "optimizers": ("sgd", "adamw"),
    "schedulers": ("mine", "plateau"),
    "learning_rate": (0.001, 0.05),
    "names": ("one_shot", "iterative", "cubic", "exponential", "learning_rate"),
    "updates": (2, 4),
    "regrowth": (0.0, 0.3),
    "distillation": (0.0, 0.5),
    "reconstruction": (0, 50),
    "max_norm": (0.0, 2.0),
    "precision": "bfloat16",
    "steps": 6,
    "length_exponent": 0.0,
}


def whole(**changes: object) -> autoprune.StudySettings:
    """Drawn by chance; every candidate is trained to its end, since a record does not hold why one was stopped."""
    return settings(sampler="random", early_stopping="none", **changes)


STUDIES: Mapping[str, tuple[bool, autoprune.StudySettings]] = {
    "weights": (
        True,
        whole(
            trials=12,
            polish=0.25,
            objectives=("quality", "size_bytes"),
            space=space(
                kinds=("weights",),
                patterns=("none", "unstructured", "2:4", "block-4x4"),
                spreads=("layer", "erk", "global"),
                weight_criteria=("l1", "wanda"),
                names=("one_shot", "cubic"),
                regrowth=(0.0, 0.3),
                steps=6,
            ),
        ),
    ),
    "weights, each its own": (
        True,
        whole(
            trials=8,
            objectives=("quality", "size_bytes"),
            space=space(space="direct", kinds=("weights",), names=("exponential",), patterns=("unstructured",)),
        ),
    ),
    "blocks": (
        False,
        whole(trials=4, space=space(kinds=("blocks",), learning_rate=(0.01, 0.1), steps=2)),
    ),
    "blocks by a criterion": (
        False,
        whole(
            trials=4,
            space=space(kinds=("blocks",), block_criteria=("block_influence", "random"), steps=2),
        ),
    ),
    "all": (False, whole(trials=16, seed=4, polish=0.2, space=space(**ALL))),
    "all, direct": (False, whole(trials=10, space=space(**ALL, space="direct"))),
}


@pytest.fixture(scope="module", params=STUDIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, autoprune.Study]:
    flat, chosen = STUDIES[request.param]
    out = tmp_path_factory.mktemp("kinds") / "run"
    study = autoprune.Study.create(task(flat), chosen, out=out)
    study.run()
    return request.param, study


def bench_of(study: autoprune.Study) -> TrialContext:
    assert study.context is not None
    return study.context


def trained(study: autoprune.Study) -> list[CandidateRecord]:
    return [record for record in study.records if record.origin != "dense"]


def test_every_trial_ends_well(case: tuple[str, autoprune.Study]) -> None:
    _, study = case
    assert len(study.records) == study.settings.trials
    assert not (study.folder.path / "failures").exists()
    assert [record.note for record in study.records] == [""] * len(study.records)


def test_only_what_is_allowed_goes(case: tuple[str, autoprune.Study]) -> None:
    name, study = case
    whole = bench_of(study).topology
    dense = study.records[0]
    assert dense.origin == "dense"
    cut = [record for record in study.records if record.search.parameters < dense.search.parameters]
    masked = [record for record in study.records if record.search.nonzero_parameters < record.search.parameters - 50]
    if name.startswith("weights"):
        assert whole.groups == whole.blocks == ()
        assert not cut
        assert masked
    elif name.startswith("blocks"):
        assert whole.groups == ()
        assert {record.dropped for record in study.records} == {(), ("blocks.0",)}
        assert not masked
        assert all(record.dropped for record in cut)
    else:
        assert cut
        assert masked
        assert any(record.dropped for record in study.records)


def test_the_front_and_the_report(case: tuple[str, autoprune.Study], tmp_path: Path) -> None:
    _, study = case
    front = study.front()
    assert front.members
    assert len(front.table()) == len(front.members)
    text = write_report(study.stored, tmp_path / "report.html").read_text()
    assert "<html" in text
    assert all(f">{record.number}<" in text for record in front.members)
    again = autoprune.Study.open(study.folder.path)
    assert [record.number for record in again.front().members] == [record.number for record in front.members]
    assert again.records == study.records


def test_every_candidate_is_rebuilt_and_replayed_from_its_parent(case: tuple[str, autoprune.Study]) -> None:
    """The record alone says what was done: the same weights, the same measurement, the same work."""
    _, study = case
    context = bench_of(study)
    for record in study.records:
        parent = None if record.parent is None else study.front().get(record.parent)
        start = None if parent is None else store.load_parent(context, study.folder, parent)
        plan = autoprune.PruningPlan.from_json(record.plan.to_json())
        found = evaluate_plan(context, plan, start)
        assert found.measurement == record.search, record.number
        assert dict(found.kept.groups) == record.kept
        assert found.kept.dropped == record.dropped
        assert found.work.trained == record.samples_trained
        rebuilt = study.rebuild(record.number)
        assert same_parameters(found.model, rebuilt), record.number


def same_parameters(left: nn.Module, right: nn.Module) -> bool:
    own, other = left.state_dict(), right.state_dict()
    return own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


def test_no_trial_starts_from_tighter_masks_or_fewer_channels(case: tuple[str, autoprune.Study]) -> None:
    _, study = case
    for record in trained(study):
        assert record.parent is not None
        parent = study.front().get(record.parent)
        assert set(parent.dropped) <= set(record.dropped)
        assert all(set(record.kept[name]) <= set(kept) for name, kept in parent.kept.items())
        if parent.plan.weights is None:
            continue
        assert record.plan.weights is not None, record.number
        assert record.plan.weights.pattern == parent.plan.weights.pattern
        assert record.plan.weights.target >= parent.plan.weights.target
        if record.plan.weights.pattern != "2:4":  # of fewer inputs fewer lie in whole groups of four
            assert zeros_of(study, record) >= zeros_of(study, parent) - 0.05


def zeros_of(study: autoprune.Study, record: CandidateRecord) -> float:
    """Share of the entries that masks may silence which is zero."""
    names = set(maskable(bench_of(study).topology))
    weights = [p.detach() for name, p in study.rebuild(record.number).named_parameters() if name in names]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@pytest.mark.parametrize("case", ["all"], indirect=True)
def test_all_kinds_of_everything_are_sampled(case: tuple[str, autoprune.Study]) -> None:
    _, study = case
    plans = [record.plan for record in trained(study)]
    recoveries = [plan.recovery for plan in plans]
    assert {plan.weights.pattern for plan in plans if plan.weights is not None} == {"unstructured", "2:4", "block-4x4"}
    assert len({plan.weights.spread for plan in plans if plan.weights is not None}) == 3
    assert len({plan.weights.criterion for plan in plans if plan.weights is not None}) == 3
    # The blocks of this model are layers, and count as these.
    wanted = [number.criterion for plan in plans for number in plan.block_plans.values()]
    assert set(wanted) == {"block_influence", "random"}
    assert any(plan.ranking is not None and plan.ranking.threshold is not None for plan in plans)
    assert any(plan.ranking is not None and plan.ranking.budget is not None for plan in plans)
    assert any(group.count is not None for plan in plans for group in plan.groups.values())
    assert len({group.criterion for plan in plans for group in plan.groups.values()}) == 3
    assert len({recovery.schedule.name for recovery in recoveries}) == 5
    for field in ("scheduler", "optimizer", "distillation", "reconstruction", "max_norm"):
        assert len({getattr(recovery, field) for recovery in recoveries}) == 2, field
    assert {recovery.schedule.regrowth for recovery in recoveries} == {0.0, 0.3}
    assert {recovery.schedule.updates for recovery in recoveries} == {2, 4}
    assert {recovery.precision for recovery in recoveries} == {"bfloat16"}


# ---- from a study script, by name

SCRIPT = '''
"""A study of everything, as a user writes it."""

import autoprune
from torch.optim.lr_scheduler import PolynomialLR

from tests.settings import space_of, study_of
from tests.unit.recovery.watching import one_batch_task


def task() -> autoprune.PreparedTask:
    return one_batch_task(flat=False, schedulers={{"mine": PolynomialLR}})


settings = study_of(
    trials=3,
    uniform_points=1,
    solved_points=0,
    latency_rounds=0,
    objectives=("quality", "multiply_adds"),
    checkpoint_epochs=2,
    space=space_of(**{space!r}),
)

if __name__ == "__main__":
    autoprune.main()
'''


def test_every_line_is_reached_by_name_from_a_script(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.format(space={**ALL, "recalibration": (50,), "scan": False}))
    study = create(script, tmp_path / "run")
    study.run()
    assert len(study.records) == 3
    again = autoprune.Study.open(tmp_path / "run")
    assert again.settings == study.settings
    assert again.settings.masks.weight_criteria == ALL["weight_criteria"]
    assert [checkpoint.epoch for checkpoint in again.checkpoints(1)] == [2, 4, 6]


def create(script: Path, out: Path) -> autoprune.Study:
    """As the command line does: run the script, ask it for its task and settings."""
    found: dict[str, object] = {"__name__": "mine"}
    exec(compile(script.read_text(), str(script), "exec"), found)
    return autoprune.Study.create(found["task"](), found["settings"], out=out)  # type: ignore[operator,arg-type]


@pytest.mark.parametrize(
    ("field", "name", "known"),
    [
        ("kinds", "weight", ("blocks", "channels", "head_width", "heads", "weights")),
        ("modes", "thresold", ("count", "ranking", "ratio", "threshold")),
        ("criteria", "movment", ("movement", "l2")),
        ("block_criteria", "influence", ("block_influence", "random")),
        ("patterns", "unstructred", ("2:4", "block-4x4", "none", "unstructured")),
        ("spreads", "errk", ("erk", "global", "layer")),
        ("weight_criteria", "magnitude", ("l1", "movement", "snip")),
        ("optimizers", "adam", ("adamw", "sgd")),
        ("schedulers", "mien", ("mine", "plateau", "one_cycle")),
        ("names", "cubik", ("cubic", "exponential", "iterative", "learning_rate", "one_shot")),
        ("precision", "half", ("bfloat16", "float16", "float32")),
        ("max_norm_per", "filter", ("channel", "layer")),
    ],
)
def test_a_name_that_is_unknown_lists_the_known_before_anything_runs(
    field: str, name: str, known: tuple[str, ...], tmp_path: Path
) -> None:
    wrong = name if isinstance(ALL.get(field, "channel"), str) else (name,)
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.format(space={**ALL, field: wrong}))
    with pytest.raises(UnknownNameError, match=f"but got {name!r}") as error:
        create(script, tmp_path / "run")
    assert all(one in str(error.value) for one in known)
    assert not (tmp_path / "run").exists()


def test_a_model_that_has_nothing_of_the_kind(tmp_path: Path) -> None:
    chosen = settings(space=space(kinds=("blocks",)))
    with pytest.raises(ConfigurationError, match="the model must have"):
        autoprune.Study.create(task(flat=True), chosen, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
