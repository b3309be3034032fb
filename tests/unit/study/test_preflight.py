"""What would fail inside a trial is refused before anything runs, and with all that is wrong."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

import autoprune
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.plan.allocation import BlockPlan, GroupPlan, RankingPlan
from autoprune.plan.criteria import BLOCK_CRITERIA, CRITERIA, WEIGHT_CRITERIA
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import SCHEDULES, RecoveryPlan, SchedulePlan
from autoprune.plan.weights import WeightPlan
from autoprune.recovery.learning_rate import SCHEDULERS
from autoprune.study.preflight import check_plan, check_space
from autoprune.trial.context import TrialContext
from tests.unit.recovery.watching import convolutional, one_batch_task
from tests.unit.study.small import settings, space

#: How often a loss was asked.
ASKED: list[int] = []


def counted(outputs: Tensor, targets: Tensor) -> Tensor:
    ASKED.append(len(targets))
    return nn.functional.cross_entropy(outputs, targets)


def negative(optimizer: Optimizer, steps: int) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: 1.0 - step)


def raising(optimizer: Optimizer, steps: int) -> LRScheduler:
    raise RuntimeError(f"not for {steps} steps")


def flat_alone(optimizer: Optimizer, steps: int) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: 1.0)


def task() -> autoprune.PreparedTask:
    """A perceptron whose first group has no norm, and schedulers of which one is sound."""
    own = {"negative": negative, "raising": raising, "flat_alone": flat_alone}
    return one_batch_task(flat=True, loss=counted, schedulers=own, require_trained=False)


@functools.cache
def context() -> TrialContext:
    return TrialContext.of(task())


def refused(**changes: object) -> str:
    with pytest.raises(ConfigurationError) as error:
        check_space(space(**changes), context(), scanned=())
    return str(error.value)


# ---- spaces


def test_a_space_without_a_channel_to_lose_is_refused() -> None:
    most = max(context().topology.widths.values())
    assert refused(max_ratio=0.001) == (
        "the space must let some group lose a channel, but got max_ratio=0.001, round_to=1. "
        f"Raise max_ratio: the widest of the groups has {most} channels."
    )
    assert f"Lower round_to: the widest of the groups has {most} channels" in refused(round_to=2 * most, max_ratio=0.4)
    check_space(space(round_to=2 * most), context(), scanned=())  # half of it, a quarter, ...
    check_space(space(max_ratio=1.5 / most), context(), scanned=())  # one channel of the widest
    # Weights may go in place of channels, and what follows from scores is not rounded.
    check_space(space(max_ratio=0.001, kinds=("channels", "weights")), context(), scanned=())
    for amounts in (("threshold",), ("ratio", "ranking")):
        check_space(space(round_to=2 * most, max_ratio=0.4, modes=amounts), context(), scanned=())
    assert "Raise max_ratio" in refused(max_ratio=0.001, modes=("threshold",))


def test_a_sound_space() -> None:
    check_space(space(), context(), scanned=("l2",))
    every = space(schedulers=(*SCHEDULERS, "flat_alone"), names=("one_shot", "cubic"), steps=20)
    check_space(every, context(), scanned=("l2",))
    check_space(space(schedulers=("one_cycle", "plateau"), names=SCHEDULES, steps=20), context(), scanned=())


def test_all_faults_are_in_one_error_and_nothing_was_done(tmp_path: Path) -> None:
    own = task()
    ASKED.clear()
    bad = settings(
        space=space(
            criteria=("l2", "bn_scale"),
            scan_criterion="bn_scale",
            schedulers=("negative", "raising", "constant", "cosin"),
            names=("cubic", "learning_rate"),
            learning_rate=(0.01, 0.1),
        )
    )
    with pytest.raises(ConfigurationError) as error:
        autoprune.Study.create(own, bad, out=tmp_path / "run")
    text = str(error.value)
    assert text.startswith("5 faults in the space:\n")
    assert text.count("\n  - ") == 5, "each cause once, whatever the rates and schedules that meet it"
    assert "criterion 'bn_scale' must be used on groups with a norm" in text
    assert "scheduler 'negative': the rate of a scheduler must be finite and >= 0" in text
    assert "scheduler 'raising': the function of a scheduler must build one" in text
    assert "RuntimeError: not for 3 steps" in text
    assert "scheduler 'constant': the learning rate under the schedule 'learning_rate' must fall" in text
    assert all(name in text for name in (*SCHEDULERS, "negative", "flat_alone"))
    assert "Did you mean 'cosine'?" in text
    assert not (tmp_path / "run").exists()
    assert ASKED == []


def test_patterns_and_exchanges_that_do_nothing() -> None:
    masks = {"kinds": ("channels", "weights"), "steps": 20}
    check_space(space(**masks, patterns=("none", "2:4", "block-4x4")), context(), scanned=())
    assert "the pattern '1:999' must fit" in refused(**masks, patterns=("2:4", "1:999"))
    assert "the pattern 'block-999x999' must fit" in refused(**masks, patterns=("none", "block-999x999"))
    grown = {**masks, "patterns": ("unstructured",), "names": SCHEDULES, "schedulers": ("cosine",)}
    check_space(space(**grown, regrowth=(0.0, 0.3), updates=(2, 4)), context(), scanned=())
    check_space(space(**grown, updates=(1,)), context(), scanned=())
    assert "the regrowth of masks must have an update after" in refused(**grown, regrowth=(0.0, 0.3), updates=(1, 4))
    assert "updates=4" in refused(**{**grown, "steps": 1, "names": ("one_shot",)}, regrowth=(0.3,))
    check_space(space(steps=20, regrowth=(0.3,), updates=(1,)), context(), scanned=())  # no masks, no exchange


def test_a_ranking_that_scores_may_still_allow_is_left_to_them() -> None:
    """Which blocks go is not known yet: the channels inside them are not ranked."""
    plan = PruningPlan(ranking=RankingPlan(ratio=0.9, cap=0.5), blocks=BlockPlan(count=1))
    check_plan(plan, convolutional())
    check_plan(PruningPlan(ranking=RankingPlan(ratio=0.5, cap=0.9)), convolutional())


def test_one_fault_keeps_its_kind() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'cosine'") as error:
        check_space(space(schedulers=("cosin",), names=SCHEDULES), context(), scanned=())
    assert all(name in str(error.value) for name in (*SCHEDULERS, "negative", "raising"))


def test_the_scans_criterion_and_that_of_a_ranking_have_to_fit_too() -> None:
    with pytest.raises(ConfigurationError, match="criterion 'bn_scale'"):
        check_space(space(), context(), scanned=("bn_scale",))
    own = {"criteria": ("l2", "bn_scale"), "criterion_per_group": True, "scan_criterion": "bn_scale"}
    assert "criterion 'bn_scale'" in refused(**own, modes=("ratio", "ranking"))
    check_space(space(**own, modes=("ratio", "count")), context(), scanned=())


def test_where_each_group_chooses_one_criterion_that_fits_is_enough() -> None:
    check_space(space(criteria=("bn_scale", "l1"), criterion_per_group=True), context(), scanned=())
    assert "criterion 'bn_scale'" in refused(criteria=("bn_scale",), criterion_per_group=True)


@pytest.mark.parametrize("name", ["constant", "flat_alone", "one_cycle"])
def test_a_schedule_without_a_pace(name: str) -> None:
    """The built-in cycle is constant below eight steps."""
    text = refused(schedulers=(name,), names=("cubic", "learning_rate"), steps=6)
    assert f"scheduler {name!r}: the learning rate under the schedule 'learning_rate' must fall" in text
    check_space(space(schedulers=(name,), names=("cubic",), steps=6), context(), scanned=())


def test_without_steps_no_schedule_needs_a_pace() -> None:
    check_space(space(schedulers=("constant",), names=SCHEDULES, steps=0), context(), scanned=())


# ---- plans


@pytest.mark.parametrize(
    ("plan", "message", "known"),
    [
        ({"groups": {"stem.1": GroupPlan()}}, "stem.1", ("stem.0", "blocks.1.conv2")),
        ({"dropped": ("blocks.7",)}, "blocks.7", ("blocks.0",)),
        ({"groups": {"stem.0": GroupPlan(criterion="l3")}}, "a criterion must be one of", tuple(CRITERIA)),
        ({"ranking": RankingPlan(ratio=0.5, criterion="l3")}, "a criterion must be one of", tuple(CRITERIA)),
        ({"blocks": BlockPlan(count=1, criterion="l3")}, "a block criterion must be one of", tuple(BLOCK_CRITERIA)),
        (
            {"weights": WeightPlan(sparsity=0.5, criterion="l3")},
            "a weight criterion must be one of",
            tuple(WEIGHT_CRITERIA),
        ),
        (
            {"weights": WeightPlan(sparsity=0.5, layers={"stem.1.weight": 0.5})},
            "a masked weight must be one of",
            ("stem.0.weight", "head.weight"),
        ),
        ({"recovery": RecoveryPlan(scheduler="cosin")}, "a scheduler must be one of", tuple(SCHEDULERS)),
    ],
)
def test_a_plan_with_an_unknown_name_lists_the_known(
    plan: dict[str, object], message: str, known: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        check_plan(PruningPlan(**plan), convolutional())  # type: ignore[arg-type]
    assert all(name in str(error.value) for name in known)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"groups": {"stem.0": GroupPlan(count=8)}}, "the count of group 'stem.0' must be at most 7"),
        ({"ranking": RankingPlan(ratio=0.9, cap=0.5)}, "a ranking must take at most .* as cap=0.5 .* but got"),
        ({"ranking": RankingPlan(count=9999)}, "a ranking must take at most"),
        ({"weights": WeightPlan(pattern="1:64")}, "the pattern '1:64' must fit a weight that is masked"),
        ({"weights": WeightPlan(pattern="block-99x999", sparsity=0.5)}, "the pattern 'block-99x999' must fit"),
        (
            {
                "weights": WeightPlan(sparsity=0.5),
                "recovery": RecoveryPlan(schedule=SchedulePlan(updates=1, regrowth=0.3)),
            },
            "the regrowth of masks must have an update after step 0",
        ),
        ({"blocks": BlockPlan(count=2)}, "the count of blocks must be at most 1, but got 2"),
        ({"blocks": BlockPlan(count=1), "dropped": ("blocks.0",)}, "the count of blocks must be at most 0"),
        (
            {"recovery": RecoveryPlan(scheduler="constant", schedule=SchedulePlan(name="learning_rate"))},
            "scheduler 'constant': the learning rate under the schedule 'learning_rate' must fall",
        ),
    ],
)
def test_a_plan_that_can_not_be_had(plan: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_plan(PruningPlan(**plan), convolutional())  # type: ignore[arg-type]


def test_a_criterion_has_to_fit_the_group_that_it_is_for() -> None:
    with pytest.raises(ConfigurationError, match="criterion 'bn_scale' must be used on groups with a norm"):
        check_plan(PruningPlan(groups={"0": GroupPlan(ratio=0.5, criterion="bn_scale")}), context())
    check_plan(PruningPlan(groups={"2": GroupPlan(ratio=0.5, criterion="bn_scale")}), context())
    ranking = RankingPlan(ratio=0.5, criterion="bn_scale")
    with pytest.raises(ConfigurationError, match="criterion 'bn_scale'"):
        check_plan(PruningPlan(ranking=ranking), context())
    check_plan(PruningPlan(groups={"0": GroupPlan(ratio=0.5)}, ranking=ranking), context())


def test_a_sound_plan() -> None:
    plan = PruningPlan(
        groups={"stem.0": GroupPlan(ratio=0.5)},
        ranking=RankingPlan(budget=0.5),
        blocks=BlockPlan(count=1),
        weights=WeightPlan(sparsity=0.5, layers={"head.weight": 0.0}, criterion="wanda"),
        recovery=RecoveryPlan(scheduler="plateau", schedule=SchedulePlan(name="learning_rate")),
    )
    check_plan(plan, convolutional())
