"""Plan files of every version that was ever released: they load for ever, whatever the code becomes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autoprune.plan.allocation import BlockPlan, GroupPlan, RankingPlan
from autoprune.plan.criteria import CRITERIA
from autoprune.plan.plan import PLAN_VERSION, PruningPlan
from autoprune.plan.recovery import (
    AveragingPlan,
    DistillationPlan,
    MaxNormPlan,
    RecalibrationPlan,
    ReconstructionPlan,
    RecoveryPlan,
    SchedulePlan,
)
from autoprune.plan.weights import WeightPlan

PLANS = Path(__file__).parent / "plans"


def test_version_1_says_what_it_always_said() -> None:
    # Spelled out, so that a default that changes later cannot change what an old file means.
    assert PruningPlan.from_json((PLANS / "v1.json").read_text(encoding="utf-8")) == PruningPlan(
        groups={
            "blocks.0.conv1": GroupPlan(ratio=0.5, criterion="l2"),
            "blocks.1.conv1": GroupPlan(ratio=0.0, criterion="l1"),
            "stem.größe": GroupPlan(ratio=0.3333333333333333, criterion="taylor"),
        },
        recovery=RecoveryPlan(
            steps=120,
            optimizer="adamw",
            learning_rate=0.003,
            weight_decay=0.01,
            distillation=DistillationPlan(weight=0.5, temperature=4.0),
            recalibration=RecalibrationPlan(samples=512),
        ),
        seed=7,
    )


def test_version_2_says_which_blocks_go() -> None:
    first, second = (PruningPlan.from_json((PLANS / f"v{n}.json").read_text(encoding="utf-8")) for n in (1, 2))
    assert first.dropped == ()
    assert second == replace(first, dropped=("blocks.2",))


def test_version_3_says_how_much_in_every_way() -> None:
    second, third = (PruningPlan.from_json((PLANS / f"v{n}.json").read_text(encoding="utf-8")) for n in (2, 3))
    more = {
        "blocks.3.conv1": GroupPlan(count=3, criterion="fpgm"),
        "blocks.4.conv1": GroupPlan(threshold=0.25, criterion="bn_scale"),
    }
    assert third == replace(
        second,
        groups={**second.groups, **more},
        ranking=RankingPlan(budget=0.4, cost="parameters", criterion="lamp", scale="max", floor=0.1, cap=0.8),
        blocks=BlockPlan(count=1, criterion="l1"),
        weights=WeightPlan(
            pattern="block-4x4", sparsity=0.7, criterion="wanda", spread="erk", layers={"head.weight": 0.0}
        ),
        recovery=replace(
            second.recovery,
            max_norm=MaxNormPlan(limit=3.0, per="layer"),
            reconstruction=ReconstructionPlan(samples=128),
            scheduler="cosine",
            averaging=AveragingPlan(share=0.25),
            precision="bfloat16",
            schedule=SchedulePlan(name="cubic", updates=5, end=0.6, regrowth=0.1),
        ),
    )


def test_version_4_says_how_many_layers_go() -> None:
    third, fourth = (PruningPlan.from_json((PLANS / f"v{n}.json").read_text(encoding="utf-8")) for n in (3, 4))
    assert third.layers is None
    assert fourth == replace(third, layers=BlockPlan(count=2, criterion="added_loss"))


def test_version_5_groups_the_fields_of_each_recovery_step() -> None:
    fourth, fifth = (PruningPlan.from_json((PLANS / f"v{n}.json").read_text(encoding="utf-8")) for n in (4, 5))
    assert fifth == fourth


def test_the_last_version_is_what_is_written() -> None:
    text = (PLANS / f"v{PLAN_VERSION}.json").read_text(encoding="utf-8")
    assert PruningPlan.from_json(text).to_json() + "\n" == text


def test_every_version_has_a_golden_file() -> None:
    assert {path.stem for path in PLANS.glob("v*.json")} == {f"v{number}" for number in range(1, PLAN_VERSION + 1)}


@pytest.mark.parametrize("path", sorted(PLANS.glob("v*.json")), ids=lambda path: path.stem)
def test_the_criteria_of_old_plans_are_still_known(path: Path) -> None:
    groups = json.loads(path.read_text(encoding="utf-8"))["groups"].values()
    assert {group["criterion"] for group in groups} <= set(CRITERIA)
