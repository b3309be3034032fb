"""Which ancestor a trial starts from, by hand."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import autoprune
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.plan.weights import WeightPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.measurement import Measurement
from autoprune.search.lineage import choose_parent, least_left, shrink_to_ancestor
from autoprune.structure.topology import Topology
from autoprune.trial.context import TrialContext
from tests.tasks import flat_task
from tests.unit.study.small import settings


def record(
    number: int, widths: tuple[int, int], multiply_adds: int, note: str = "", quality: float = 0.5
) -> CandidateRecord:
    measured = Measurement(
        split="search",
        quality=quality,
        quality_error=0.0,
        metrics={},
        parameters=1,
        multiply_adds=multiply_adds,
        size_bytes=1,
    )
    kept = {name: tuple(range(width)) for name, width in zip(("a", "b"), widths, strict=True)}
    return CandidateRecord(
        number=number, origin="sampled", plan=PruningPlan(groups={}), kept=kept, search=measured, note=note
    )


DENSE = record(0, (8, 8), 100)
WIDE = record(1, (6, 6), 60)
NARROW_A = record(2, (3, 6), 40)
SMALL = record(3, (3, 3), 20)


def plan_of(a: int, b: int, weights: WeightPlan | None = None, gone: Sequence[str] = ()) -> ResolvedPlan:
    plan = PruningPlan(weights=weights)
    return ResolvedPlan(asked=plan, plan=plan, widths={"a": a, "b": b}, gone=frozenset(gone))


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ((8, 8), 0),  # only dense is as wide
        ((7, 2), 0),
        ((6, 6), 1),  # equal widths count
        ((5, 4), 1),
        ((3, 4), 2),  # narrow in one group only
        ((4, 3), 1),  # 2 and 3 are too narrow in a, whatever they cost
        ((2, 2), 3),  # the smallest of all that contain it
        ((1, 3), 3),
    ],
)
def test_the_smallest_that_contains_the_plan(widths: tuple[int, int], expected: int) -> None:
    for records in ([DENSE, WIDE, NARROW_A, SMALL], [SMALL, NARROW_A, WIDE, DENSE]):
        found = choose_parent(records, plan_of(*widths))
        assert found is not None
        assert found.number == expected


def test_of_equals_the_later_one() -> None:
    again = record(7, (6, 6), 60)
    for records in ([DENSE, WIDE, again], [again, WIDE, DENSE]):
        found = choose_parent(records, plan_of(5, 5))
        assert found is not None
        assert found.number == 7


def test_one_whose_training_failed_is_left_out() -> None:
    broken = record(4, (5, 5), 30, note="fine-tune diverged")
    found = choose_parent([DENSE, WIDE, broken], plan_of(4, 4))
    assert found is not None
    assert found.number == 1


def test_none_contains_it() -> None:
    assert choose_parent([WIDE, SMALL], plan_of(7, 1)) is None
    assert choose_parent([], plan_of(1, 1)) is None


# ---- masks


def masked(number: int, widths: tuple[int, int], weights: WeightPlan | None) -> CandidateRecord:
    found = record(number, widths, 100 - number)
    return replace(found, plan=replace(found.plan, weights=weights))


def started_from(parent: WeightPlan | None, child: WeightPlan | None) -> int:
    """Number of the parent of a plan of that masks: 0 for dense, 1 for the one with the others."""
    found = choose_parent([DENSE, masked(1, (6, 6), parent)], plan_of(5, 5, child))
    assert found is not None
    return found.number


def test_of_a_parent_without_masks_anything_may_start() -> None:
    for child in (None, WeightPlan(sparsity=0.0), WeightPlan(sparsity=0.9), WeightPlan(pattern="2:4")):
        assert started_from(None, child) == 1


LOOSE = WeightPlan(sparsity=0.5)


@pytest.mark.parametrize(
    ("parent", "child", "starts"),
    [
        (LOOSE, LOOSE, True),
        (LOOSE, WeightPlan(sparsity=0.6), True),
        (LOOSE, WeightPlan(sparsity=0.4), False),
        (LOOSE, None, False),
        (LOOSE, WeightPlan(sparsity=0.6, criterion="snip"), True),  # what is zero goes first, by any criterion
        (LOOSE, WeightPlan(sparsity=0.6, spread="erk"), False),  # some layer may have fewer zeros
        (LOOSE, WeightPlan(pattern="2:4"), False),
        (WeightPlan(pattern="2:4"), WeightPlan(pattern="2:4"), True),
        (WeightPlan(pattern="2:4"), WeightPlan(pattern="4:8"), False),
        (WeightPlan(pattern="2:4"), WeightPlan(sparsity=0.9), False),
        (LOOSE, WeightPlan(sparsity=0.6, layers={"x": 0.4}), False),  # of x fewer would be zero
        (LOOSE, WeightPlan(sparsity=0.6, layers={"x": 0.5}), True),
        (WeightPlan(sparsity=0.5, layers={"x": 0.9}), WeightPlan(sparsity=0.6), False),
        (WeightPlan(sparsity=0.5, layers={"x": 0.9}), WeightPlan(sparsity=0.95), True),
        (WeightPlan(sparsity=0.5, layers={"x": 0.0}), WeightPlan(sparsity=0.5), True),
        (WeightPlan(sparsity=0.5, layers={"x": 0.2}), WeightPlan(sparsity=0.5, layers={"x": 0.1}), False),
        (WeightPlan(sparsity=0.5, layers={"x": 0.2}), WeightPlan(sparsity=0.4, layers={"x": 0.3}), False),
    ],
)
def test_no_weight_has_to_grow_back(parent: WeightPlan, child: WeightPlan | None, starts: bool) -> None:
    assert started_from(parent, child) == int(starts)


def test_of_many_the_smallest_whose_masks_are_looser() -> None:
    records = [DENSE, *(masked(n, (6, 6), WeightPlan(sparsity=n / 10)) for n in range(1, 9))]
    for sparsity, expected in ((0.05, 0), (0.1, 1), (0.55, 5), (0.99, 8)):
        found = choose_parent(records, plan_of(5, 5, WeightPlan(sparsity=sparsity)))
        assert found is not None
        assert found.number == expected


def test_blocks_that_are_gone_do_not_come_back() -> None:
    short = replace(record(1, (6, 6), 50), dropped=("block",))
    for dropped, expected in (((), 0), (("block",), 1), (("other",), 0), (("block", "other"), 1)):
        found = choose_parent([DENSE, short], plan_of(5, 5, gone=dropped))
        assert found is not None
        assert found.number == expected


# ---- a proposal that nearly fits


@functools.cache
def task() -> autoprune.PreparedTask:
    return flat_task()


@functools.cache
def zoo() -> Topology:
    return TrialContext.of(task()).topology


def stored(number: int, keep: float, **changes: object) -> CandidateRecord:
    """A candidate that keeps this share of each group."""
    widths = {name: max(1, int(keep * width)) for name, width in zoo().widths.items()}
    costs = replace(DENSE.search, multiply_adds=zoo().cost(widths).multiply_adds)
    kept = {name: tuple(range(width)) for name, width in widths.items()}
    return replace(DENSE, number=number, kept=kept, search=costs, **changes)  # type: ignore[arg-type]


def of_widths(widths: Mapping[str, int]) -> ResolvedPlan:
    whole = zoo().widths
    groups = {name: GroupPlan(count=whole[name] - width) for name, width in widths.items()}
    return ResolvedPlan.of(PruningPlan(groups=groups, seed=5), zoo())


def wider(record: CandidateRecord, channels: int) -> ResolvedPlan:
    """Its widths, and one group that is wider."""
    name = max(zoo().widths, key=lambda name: zoo().widths[name])
    return of_widths({**record.widths, name: record.widths[name] + channels})


def shrunk(records: list[CandidateRecord], plan: ResolvedPlan, slack: float) -> ResolvedPlan:
    return shrink_to_ancestor(records, plan, zoo(), least_left(plan, zoo(), slack))


def test_what_nearly_fits_is_cut_down_to_the_ancestor() -> None:
    half, most = stored(1, 0.5), stored(2, 0.9)
    plan = wider(half, 1)
    found = shrunk([stored(0, 1.0), most, half], plan, 0.1)
    assert found.widths == half.widths
    assert (found.seed, found.recovery) == (plan.seed, plan.recovery)
    lost = zoo().cost(plan.widths).multiply_adds / half.search.multiply_adds - 1
    assert 0 < lost < 0.1, "else the test shows nothing"
    assert shrunk([most, half], plan, 0.0) is plan
    assert shrunk([most, half], plan, lost / 2) is plan
    assert shrunk([most, half], wider(half, 8), 0.02).widths == wider(half, 8).widths


def test_what_fits_and_what_nothing_is_near_stays() -> None:
    half = stored(1, 0.5)
    inside = of_widths({name: max(1, width - 1) for name, width in half.widths.items()})
    assert shrunk([half], inside, 0.1) is inside
    assert shrunk([], inside, 0.1) is inside
    large = of_widths(stored(2, 0.9).widths)
    assert shrunk([half], large, 0.1) is large


def test_nothing_is_cut_down_to_what_did_not_recover_or_holds_too_little() -> None:
    half = stored(1, 0.5)
    plan = wider(half, 1)
    for useless in (replace(half, note="diverged"), replace(half, fidelity=0.5), replace(half, dropped=("block",))):
        assert shrunk([useless], plan, 0.1) is plan
    masked = replace(half, plan=PruningPlan(weights=WeightPlan(sparsity=0.5)))
    assert shrunk([masked], plan, 0.1) is plan


def test_proposals_of_a_study_nestle_and_the_sweep_and_the_users_plans_do_not(tmp_path: Path) -> None:
    def parents(slack: float, name: str) -> tuple[list[int | None], autoprune.Study]:
        chosen = settings(trials=9, solved_points=0, sampler="random", early_stopping="none", lineage_slack=slack)
        study = autoprune.Study.create(task(), chosen, out=tmp_path / name)
        study.enqueue(wider(stored(1, 0.5), 1).plan)
        study.run()
        return [r.parent for r in study.records if r.origin == "sampled"], study

    free, _ = parents(0.0, "free")
    near, study = parents(0.4, "near")
    assert free != near
    given = next(r for r in study.records if r.origin == "enqueued")
    assert given.widths == wider(stored(1, 0.5), 1).widths
    records = {r.number: r for r in study.records}
    for record in study.records:
        if record.parent is not None:
            assert all(width <= records[record.parent].widths[name] for name, width in record.widths.items())
