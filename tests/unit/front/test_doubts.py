"""A latency that is in doubt is marked, and decides nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoprune.errors import SelectionError
from autoprune.front.as_good import find_as_good
from autoprune.front.believed import believed_non_dominated
from autoprune.front.findings import findings
from autoprune.front.front import Front
from autoprune.records.candidate import CandidateRecord
from autoprune.records.limits import Limits
from autoprune.records.objectives import timed_cost
from autoprune.records.run_folder import RunFolder
from autoprune.search.early_stopping import should_stop

from .builders import dense, latency, measurement, problem_of, record

BUSY = ("The machine was busy.",)
PROBLEM = problem_of(("quality", "size_bytes", "latency_ms"))
DENSE = dense(took=latency(1.0))
#: Believed: 0.7 of the quality at half the time. Both others claim to be far quicker.
BELIEVED = record(1, measurement(0.7, 500, took=latency(0.5)))


def _claims(number: int, quality: float, multiply_adds: int) -> CandidateRecord:
    return record(number, measurement(quality, multiply_adds, took=latency(0.05, doubts=BUSY)))


def test_it_takes_no_candidate_off_the_front() -> None:
    front = Front.of([DENSE, BELIEVED, _claims(2, 0.75, 400)], PROBLEM)
    assert [one.number for one in front.members] == [0, 1, 2]


def test_it_puts_no_candidate_on_the_front() -> None:
    worse = _claims(2, 0.6, 600)
    assert [one.number for one in Front.of([DENSE, BELIEVED, worse], PROBLEM).members] == [0, 1]
    believed = record(2, measurement(0.6, 600, took=latency(0.05)))
    assert [one.number for one in Front.of([DENSE, BELIEVED, believed], PROBLEM).members] == [0, 2, 1]


def test_where_all_are_in_doubt_the_other_objectives_decide() -> None:
    records = [DENSE, _claims(1, 0.8, 500), _claims(2, 0.7, 600)]
    assert [one.number for one in Front.of(records, PROBLEM).members] == [0, 1]


def test_a_later_measurement_of_the_same_widths_is_believed() -> None:
    kept = {"a": (0, 1)}
    doubtful = record(1, measurement(0.7, 500, took=latency(0.05, doubts=BUSY)), kept=kept)
    believed = record(2, measurement(0.6, 500, took=latency(0.5)), kept=kept)
    losses = timed_cost().losses([doubtful, believed])
    assert losses[0] == losses[1] == pytest.approx(0.5, abs=0.02)
    assert math.isnan(timed_cost().losses([doubtful])[0])


def test_it_is_no_reason_to_delete_weights() -> None:
    cost, slow = timed_cost(), record(2, measurement(0.6, 600, took=latency(0.9)))
    assert cost.is_never_worse(BELIEVED, slow)
    assert not cost.is_never_worse(_claims(3, 0.9, 100), slow)
    assert not cost.is_never_worse(BELIEVED, record(4, measurement(0.6, 600, took=latency(0.9, doubts=BUSY))))


def test_it_stops_no_candidate() -> None:
    past = [record(number, measurement(0.9, 500 + number, took=latency(0.5))) for number in range(1, 12)]
    past = [_with_rung(one) for one in past]
    slow = record(20, measurement(math.nan, 900, took=latency(0.9)))
    doubtful = record(20, measurement(math.nan, 900, took=latency(0.9, doubts=BUSY)))
    assert should_stop("front", (0.5, 0.1), slow, past, PROBLEM)
    assert not should_stop("front", (0.5, 0.1), doubtful, past, PROBLEM)
    claims = [_with_rung(_claims(number, 0.9, 500 + number)) for number in range(1, 12)]
    assert not should_stop("front", (0.5, 0.1), slow, claims, PROBLEM)


def _with_rung(one: CandidateRecord) -> CandidateRecord:
    return replace(one, rungs=((0.5, 0.85 + 0.001 * one.number),))


def test_it_is_marked_and_said() -> None:
    front = Front.of([DENSE, BELIEVED, _claims(2, 0.75, 400)], PROBLEM)
    row = front.row(front.get(2))
    assert (row["latency_trusted"], front.row(BELIEVED)["latency_trusted"]) == (False, True)
    said = [line for line, _ in findings(front)]
    assert any("latency of 1 of 2 members is in doubt" in line for line in said)
    assert any("1 of 1 members are measurably quicker" in line for line in said)


def test_a_measurement_after_the_trial_replaces_the_first(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_candidate(_claims(0, 0.75, 400), b"")
    folder.write_test(0, _claims(0, 0.74, 400).search)
    folder.write_latencies(0, {"default": latency(0.6)})
    found = folder.read_candidate(0)
    assert found is not None
    assert found.test is not None
    assert found.search.latency == found.test.latency == latency(0.6)


def test_a_limit_of_latency_is_kept_with_a_confidence_and_by_numbers_that_are_believed() -> None:
    wide = record(2, measurement(0.8, 500, took=latency(0.5, 0.1)))
    front = Front.of([DENSE, wide, _claims(3, 0.9, 300)], PROBLEM)
    #: 0.5 with a 95 % interval up to 0.6 is below 0.563 with 90 % confidence.
    assert front.choose(Limits(max_latency_share=0.57), "quality").number == 2
    with pytest.raises(
        SelectionError, match=r"nearest is candidate 2.*for 1 more a cost is missing or in doubt.*measures them again"
    ):
        front.choose(Limits(max_latency_share=0.55), "quality")
    assert front.choose(Limits(max_latency_share=0.55), "quality", confidence=0.5).number == 3


def test_a_choice_by_latency_believes_no_claim() -> None:
    front = Front.of([DENSE, BELIEVED, _claims(2, 0.75, 400)], PROBLEM)
    assert front.choose(by="latency_ms").number == 1
    said = front.choice(None, "latency_ms", 0.9).remarks
    assert any(line.startswith("Members of the front left out, as their latency is in doubt: 1. ") for line in said)
    assert not any("in doubt" in line for line in front.choice(None, "multiply_adds", 0.9).remarks)
    doubtful = Front.of([_claims(2, 0.75, 400)], PROBLEM)
    with pytest.raises(SelectionError, match="only numbers in doubt"):
        doubtful.choose(by="latency_ms")


def test_the_ratio_of_the_dense_model_to_itself_is_never_in_doubt() -> None:
    """It was timed on a busy machine, where it seemed slower than itself; what costs more and is worse is beaten."""
    whole = dense(0.9, took=latency(1.3, doubts=BUSY))
    slower = record(1, measurement(0.8, 1000, took=latency(1.1)), kept={"a": (0,)})
    front = Front.of([whole, slower], PROBLEM)
    assert [one.number for one in front.members] == [0]
    assert PROBLEM.losses([whole], ("latency_ms",)).tolist() == [[1.0]]
    assert front.choose(Limits(max_latency_share=1.0), "quality").number == 0


def test_what_no_member_dominates_is_as_good_as_none_of_them() -> None:
    problem = problem_of(("quality", "latency_ms"))
    records = [record(1, measurement(0.7, 500, took=latency(0.5))), _claims(2, 0.75, 400)]
    points, strict = np.array([[0.3, 0.5], [0.25, math.nan]]), np.array([True, False])
    in_doubt = np.array([[False, False], [False, True]])
    assert find_as_good(records, points, strict, in_doubt, problem) == {}


def test_a_number_that_a_twin_lent_takes_none_off_the_front() -> None:
    points = np.array([[0.1, 0.9], [0.2, 0.2], [0.3, 0.3]])
    in_doubt = np.array([[False, False], [False, True], [False, False]])
    assert believed_non_dominated(points, in_doubt).tolist() == [True, False, True]
