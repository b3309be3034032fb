"""Which ancestor a trial starts from, by hand."""

from __future__ import annotations

import pytest

from autoprune.front.record import CandidateRecord
from autoprune.measure.measurement import Measurement
from autoprune.plan.plan import PruningPlan
from autoprune.study.lineage import choose


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
        latency=None,
    )
    kept = {name: tuple(range(width)) for name, width in zip(("a", "b"), widths, strict=True)}
    return CandidateRecord(
        number=number, origin="sampled", plan=PruningPlan(groups={}), kept=kept, search=measured, note=note
    )


DENSE = record(0, (8, 8), 100)
WIDE = record(1, (6, 6), 60)
NARROW_A = record(2, (3, 6), 40)
SMALL = record(3, (3, 3), 20)


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
        found = choose(records, dict(zip(("a", "b"), widths, strict=True)))
        assert found is not None
        assert found.number == expected


def test_of_equals_the_later_one() -> None:
    again = record(7, (6, 6), 60)
    for records in ([DENSE, WIDE, again], [again, WIDE, DENSE]):
        found = choose(records, {"a": 5, "b": 5})
        assert found is not None
        assert found.number == 7


def test_one_whose_training_failed_is_left_out() -> None:
    broken = record(4, (5, 5), 30, note="fine-tune diverged")
    found = choose([DENSE, WIDE, broken], {"a": 4, "b": 4})
    assert found is not None
    assert found.number == 1


def test_none_contains_it() -> None:
    assert choose([WIDE, SMALL], {"a": 7, "b": 1}) is None
    assert choose([], {"a": 1, "b": 1}) is None
