"""Rank correlation of the rungs with the end."""

from __future__ import annotations

import dataclasses
import math

import pytest

from autoprune.front.rung_audit import LOW_CORRELATION, MIN_CANDIDATES, audit_rungs, training_saved
from autoprune.plan.recovery import RecoveryPlan
from autoprune.records.candidate import CandidateRecord
from tests.unit.front.builders import dense, measurement, record


def looked(number: int, early: float, late: float, *, share: float = 0.25, **changes: object) -> CandidateRecord:
    """A candidate with `early` at a rung and `late` in the end."""
    made = record(number, measurement(late, 100 + number), **changes)  # type: ignore[arg-type]
    return dataclasses.replace(made, rungs=((share, early),))


def pairs(count: int, *, swaps: int = 0) -> list[CandidateRecord]:
    """The order at the rung is that of the end, but for neighbours that are swapped from the first on."""
    late = [n / 100 for n in range(count)]
    for n in range(0, 2 * swaps, 2):
        late[n], late[n + 1] = late[n + 1], late[n]
    return [looked(n, n / 1000, value) for n, value in enumerate(late)]


def test_the_same_order_is_a_correlation_of_one_whatever_the_distances() -> None:
    (row,) = audit_rungs([looked(n, n**3 / 1e6, math.log(n + 1)) for n in range(12)])
    assert (row.share, row.candidates, row.stopped) == (0.25, 12, 0)
    assert row.correlation == pytest.approx(1.0)
    assert row.low == pytest.approx(1.0)
    assert row.high == pytest.approx(1.0)
    assert row.remark == ""


def test_by_hand() -> None:
    """1 - 6 * sum of squared differences / (n (n^2 - 1)): one swap of neighbours among five is 1 - 6 * 2 / 120."""
    (row,) = audit_rungs(pairs(5, swaps=1))
    assert row.correlation == pytest.approx(0.9)
    # Fisher's transformation of 0.9, 1.96 times the root of (1 + 0.81 / 2) / 2 to both sides, and back.
    reach = 1.96 * math.sqrt(1.405 / 2)
    assert row.low == pytest.approx(math.tanh(math.atanh(0.9) - reach))
    assert row.high == pytest.approx(math.tanh(math.atanh(0.9) + reach))
    # Equal values have the mean of their ranks: 1.5, 1.5, 3, 4 against 1, 2, 3, 4.
    (row,) = audit_rungs([looked(0, 0.5, 0.1), looked(1, 0.5, 0.2), looked(2, 0.6, 0.3), looked(3, 0.7, 0.4)])
    assert row.correlation == pytest.approx(math.sqrt(0.9))


def test_the_other_way_round_is_minus_one_and_warned_of() -> None:
    (row,) = audit_rungs([looked(n, -n / 100, n / 100) for n in range(12)])
    assert row.correlation == pytest.approx(-1.0)
    assert "the interval holds 0" in row.remark


def test_the_interval_holds_the_correlation_and_narrows() -> None:
    few, many = (audit_rungs(pairs(count, swaps=count // 2))[0] for count in (10, 60))
    for row in (few, many):
        assert row.low < row.correlation < row.high < 1.0
    assert many.high - many.low < few.high - few.low


def test_a_low_one_is_warned_of() -> None:
    """Blocks of ten in reverse order: ahead by and large, and not in detail."""
    order = [10 * block + 9 - place for block in range(4) for place in range(10)]
    high = audit_rungs([looked(n, n / 100, late / 100) for n, late in enumerate(order)])[0]
    assert high.correlation > LOW_CORRELATION
    assert high.remark == ""
    order = [(7 * n + n // 2) % 40 for n in range(40)]
    mixed = [looked(n, (n + order[n]) / 100, n / 100) for n in range(40)]
    low = [looked(n, (0.5 * n + order[n]) / 100, n / 100) for n in range(40)]
    rows = [audit_rungs(records)[0] for records in (mixed, low)]
    assert rows[0].correlation > LOW_CORRELATION
    assert 0 < rows[1].low < rows[1].correlation < LOW_CORRELATION
    assert rows[1].remark == "low: below 0.5"


def test_what_has_no_correlation_says_so() -> None:
    assert audit_rungs([]) == []
    assert audit_rungs([dense(), record(1, measurement(0.5, 10))]) == []
    (row,) = audit_rungs(pairs(MIN_CANDIDATES - 1))
    assert row.remark == f"too few candidates to tell, {MIN_CANDIDATES - 1} of {MIN_CANDIDATES}"
    (row,) = audit_rungs([looked(n, 0.5, n / 100) for n in range(12)])
    assert math.isnan(row.correlation)
    assert row.remark == "all candidates are alike there or in the end"
    (row,) = audit_rungs(pairs(3))
    assert math.isnan(row.correlation)
    assert row.remark.startswith("too few")


def test_only_those_with_an_end_are_compared() -> None:
    """Stopped ones are counted, those that diverged are not there, what is no number is left out."""
    cut_short = [
        dataclasses.replace(looked(20 + n, 0.0, 0.9), rungs=((0.0, 0.1), (0.25, 0.0)), fidelity=0.25) for n in range(3)
    ]
    diverged = looked(30, 0.0, 0.9, note="diverged")
    spoiled = looked(31, math.nan, 0.9)
    rows = audit_rungs([*pairs(12), *cut_short, diverged, spoiled])
    assert [(row.share, row.candidates, row.stopped) for row in rows] == [(0.0, 0, 0), (0.25, 12, 3)]
    assert rows[1].correlation == pytest.approx(1.0)


def test_the_share_of_the_training_that_was_saved() -> None:
    """Steps of 40 and 10; the one of 40 was stopped at a quarter: 30 of 50 are left out."""
    records = [record(n, measurement(0.5, 10)) for n in range(2)]
    long, short = (
        dataclasses.replace(r, plan=dataclasses.replace(r.plan, recovery=RecoveryPlan(steps=steps)))
        for r, steps in zip(records, (40, 10), strict=True)
    )
    assert training_saved([dataclasses.replace(long, fidelity=0.25), short]) == pytest.approx(0.6)
    assert training_saved([long, short]) == 0.0
    assert training_saved([]) == 0.0
