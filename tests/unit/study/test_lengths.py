"""A plan of the space is trained for as long as what it costs says, however its widths came about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import autoprune
from autoprune.records.limits import Limits
from autoprune.study.preflight import lengths_within_reach
from autoprune.trial.context import TrialContext
from tests.slow import slow
from tests.tasks import flat_task, image_task
from tests.unit.study.small import settings, space

STEPS, EXPONENT = 3, 0.8
LONGER = {"steps": STEPS, "length_exponent": EXPONENT, "criteria": ("l2",), "scan_samples": 500}


def run(out: Path, task: autoprune.PreparedTask, **changes: object) -> autoprune.Study:
    given = {"trials": 9, "sampler": "random", "early_stopping": "none", "lineage_slack": 0.5}
    study = autoprune.Study.create(task, settings(**{**given, **changes}), out=out)
    study.run()
    return study


def expected(study: autoprune.Study) -> dict[int, int]:
    """Number -> steps by what each candidate was found to cost."""
    dense = study.records[0].search.multiply_adds
    least = study.settings.search.min_budget
    shares = {r.number: max(r.search.multiply_adds / dense, least) for r in study.records[1:]}
    return {number: round(STEPS * share**-EXPONENT) for number, share in shares.items()}


@pytest.mark.parametrize(
    ("chosen", "limits"),
    [
        ({}, Limits()),
        ({"space": "direct", "modes": ("threshold", "ranking", "count")}, Limits(max_multiply_adds_share=0.6)),
        slow({"kinds": ("channels", "blocks"), "block_criteria": ("l1",)}, Limits(max_multiply_adds_share=0.4)),
        slow({"space": "reduced", "modes": ("ranking",), "cost": "parameters"}, Limits()),
    ],
    ids=["ratio", "scores", "blocks", "parameters"],
)
def test_the_length_follows_what_is_trained(chosen: dict[str, Any], limits: Limits, tmp_path: Path) -> None:
    task = image_task() if "blocks" in chosen.get("kinds", ()) else flat_task()
    study = run(tmp_path / "run", task, space=space(**LONGER, **chosen), limits=limits)
    steps = {record.number: record.plan.recovery.steps for record in study.records[1:]}
    assert steps == expected(study)
    assert len({*steps.values()}) > 2, "one length for all would prove nothing"
    assert {record.origin for record in study.records} >= {"uniform", "sampled"}
    assert max(steps.values()) <= max(lengths_within_reach(study.settings, study.context.topology))
    for record in study.records[1:]:
        # The loader's last batch of a pass may be smaller than the others.
        assert 0 < record.samples_trained <= record.plan.recovery.steps * task.batch_size


def test_what_follows_from_scores_is_written_down_as_it_was_asked_for(tmp_path: Path) -> None:
    chosen = space(**LONGER, space="direct", modes=("threshold",))
    study = run(tmp_path / "run", flat_task(), lineage=False, space=chosen, trials=6)
    sampled = [record for record in study.records if record.origin == "sampled"]
    assert sampled
    assert all(record.plan.ranking is not None for record in sampled)


def test_the_users_plans_and_polish_keep_their_lengths(tmp_path: Path) -> None:
    chosen = settings(trials=9, sampler="random", early_stopping="none", polish=0.5, space=space(**LONGER))
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    group = next(iter(study.context.topology.widths))
    plan = autoprune.PruningPlan(
        groups={group: autoprune.GroupPlan(ratio=0.5, criterion="l2")}, recovery=autoprune.RecoveryPlan(steps=7)
    )
    study.enqueue(plan)
    study.run()
    by_origin = {record.origin: record for record in study.records}
    assert by_origin["enqueued"].plan.recovery.steps == 7
    polished = by_origin["polished"]
    assert polished.parent is not None
    parent = next(record for record in study.records if record.number == polished.parent)
    assert polished.plan.recovery.steps == parent.plan.recovery.steps


def test_only_lengths_within_reach_are_rehearsed() -> None:
    """A budget that no plan reaches would have a scheduler simulated for billions of steps."""
    context = TrialContext.of(flat_task())
    assert max(lengths_within_reach(space(steps=10, length_exponent=1.0, min_budget=1e-9), context.topology)) < 10_000
    assert lengths_within_reach(space(steps=10, min_budget=1e-9), context.topology) == [10]
    assert lengths_within_reach(space(steps=10, length_exponent=1.0, min_budget=0.5), context.topology) == [10, 20]
