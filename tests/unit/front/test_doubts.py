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
from autoprune.front.pool import Pool
from autoprune.front.table import text_table
from autoprune.records.candidate import CandidateRecord
from autoprune.records.limits import Limits
from autoprune.records.objectives import timed_cost
from autoprune.records.run_folder import RunFolder
from autoprune.report.hover import hover_lines
from autoprune.report.terminal import show_front
from autoprune.search.early_stopping import should_stop

from .builders import dense, energy, latency, measurement, problem_of, record

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
    with pytest.raises(SelectionError) as refused:
        front.choose(Limits(max_latency_share=0.55), "quality")
    doubt, reason, claim, remedy = str(refused.value).splitlines()
    assert doubt.endswith("got none for certain: candidate 3 would be chosen, but its latency is in doubt.")
    assert reason == "Left out, as it cannot be said that they keep max_latency_share 0.55:"
    assert claim == "  candidate 3: latency 0.500 ms, 0.05 of dense (The machine was busy)"
    assert "autoprune run" in remedy
    assert "--confidence 0.5" in remedy
    assert front.choose(Limits(max_latency_share=0.55), "quality", confidence=0.5).number == 3


def test_what_is_in_doubt_and_beyond_a_limit_is_the_nearest_and_not_left_out() -> None:
    """The dense model is none of the answers: a share of its own latency is asked for."""
    front = Front.of([DENSE, _claims(1, 0.8, 500), _claims(2, 0.7, 400)], PROBLEM)
    with pytest.raises(SelectionError) as refused:
        front.choose(Limits(max_latency_share=0.04))
    (said,) = str(refused.value).splitlines()
    assert "the nearest is candidate 1 with accuracy 0.8 (" in said
    assert said.endswith("latency_share 0.05, in doubt. Loosen a limit or run more trials.")
    slow = Front.of([DENSE, record(1, measurement(0.8, 500, took=latency(1.5)))], PROBLEM)
    with pytest.raises(SelectionError, match="the nearest is candidate 1 "):
        slow.choose(Limits(max_latency_share=0.5))


def test_beside_the_dense_model_the_nearest_is_found_by_measured_numbers() -> None:
    doubtful = latency(0.5, doubts=BUSY)
    small = record(1, measurement(0.7, 500, size_bytes=100, took=doubtful))
    good = record(2, measurement(0.85, 400, size_bytes=900, took=doubtful))
    front = Front.of([DENSE, small, good], problem_of(("quality", "multiply_adds", "size_bytes")))
    choice = front.choice(Limits(max_latency_share=1.0, max_drop=0.01))
    assert choice.record is DENSE
    assert choice.nearest is good


def test_only_those_that_would_be_chosen_by_their_measured_numbers_are_left_out() -> None:
    others = [
        record(2, measurement(0.85, 600, took=latency(0.6, doubts=BUSY))),  # beyond the limit
        record(3, measurement(0.65, 450, took=latency(0.2, doubts=BUSY))),  # of less quality
        record(4, measurement(0.75, 550, took=latency(0.4, doubts=BUSY))),
    ]
    front = Front.of([DENSE, BELIEVED, *others], PROBLEM)
    said = front.choice(Limits(max_latency_share=0.55), "quality").doubts
    assert [line.partition(":")[0] for line in said[1:-1]] == ["  candidate 4"]
    cheapest = front.choice(Limits(max_latency_share=0.55)).doubts
    assert [line.partition(":")[0] for line in cheapest[1:-1]] == ["  candidate 3"]


def test_a_run_says_how_many_within_the_limits_are_in_doubt() -> None:
    front = Front.of([DENSE, BELIEVED, _claims(2, 0.75, 400)], problem_of(limits=Limits(max_latency_share=0.55)))
    assert findings(front)[1] == (
        "2 of 3 candidates keep the limits of the search (max_latency_share 0.55), 1 of them with 90% confidence (the "
        "latency of 1 is in doubt).",
        False,
    )


def test_a_choice_by_latency_believes_no_claim() -> None:
    front = Front.of([DENSE, BELIEVED, _claims(2, 0.75, 400)], PROBLEM)
    assert front.choose(by="latency_ms").number == 1
    said = front.choice(None, "latency_ms", 0.9).remarks
    place = said.index("Left out, as what they are chosen by is in doubt:")
    assert said[place + 1] == "  candidate 2: latency 0.500 ms, 0.05 of dense (The machine was busy)"
    assert not any("in doubt" in line for line in front.choice(None, "multiply_adds", 0.9).remarks)
    weighted = front.weighted({"latency_ms": 1})
    assert weighted.choice.record.number == 1
    assert said[place + 1] in weighted.remarks
    assert front.weighted({"latency_ms": 1}, confidence=0.5).choice.record.number == 2
    doubtful = Front.of([_claims(2, 0.75, 400)], PROBLEM)
    with pytest.raises(SelectionError, match=r"latency_ms that can be trusted(.|\n)*candidate 2: latency 0.500 ms"):
        doubtful.choose(by="latency_ms")
    with pytest.raises(SelectionError, match=r"measured in latency_ms(.|\n)*candidate 2: latency 0.500 ms") as refused:
        doubtful.weighted({"latency_ms": 1})
    assert "run more trials" not in str(refused.value)


#: Off the front by quality and size, and far quicker than any other by a number in doubt.
BESIDE = _claims(2, 0.6, 600)


def test_a_doubt_in_what_does_not_decide_leaves_no_candidate_out() -> None:
    """Nothing but latency speaks for the cheapest candidate, which a choice by multiply-adds does not ask for."""
    problem = problem_of(("quality", "latency_ms"))
    front = Front.of([DENSE, BELIEVED, _claims(2, 0.6, 400), _claims(3, 0.85, 450)], problem)
    assert [one.number for one in front.members] == [0, 1]
    assert [one.number for one in front.undecided] == [3]
    assert front.choose(Limits()).number == front.choose(Limits(), confidence=0.5).number == 3
    assert front.choose(Limits(max_drop=0.04)).number == 0
    assert front.choose(Limits(max_latency_ms=1), confidence=0.5).number == 3
    assert front.knee_choice().choice.record.number == 3
    assert not front.choice(Limits()).doubts


def test_at_confidence_one_half_the_front_is_that_of_the_measured_numbers() -> None:
    front = Front.of([DENSE, BELIEVED, BESIDE], PROBLEM)
    choice = front.choice(Limits(), "latency_ms", 0.5)
    assert choice.record.number == 2
    assert choice.doubts[:2] == (
        "Taken as measured, though it is in doubt:",
        "  candidate 2: latency 0.500 ms, 0.05 of dense (The machine was busy)",
    )
    assert choice.lead is not None
    assert "latency 5.000 against 0.500 ms, one of them in doubt" in choice.lead.sentence
    both = Front.of([DENSE, _claims(1, 0.75, 500), BESIDE], PROBLEM).choice(Limits(), "latency_ms", 0.5)
    assert both.lead is not None
    assert "latency 0.500 against 0.500 ms, both in doubt" in both.lead.sentence
    beaten = record(3, measurement(0.55, 590, took=latency(0.5)))
    measured = Front.of([DENSE, BELIEVED, BESIDE, beaten, _claims(4, 0.6, 580)], PROBLEM)
    assert measured.choose(Limits(), "size_bytes").number == 1
    assert measured.choose(Limits(max_latency_share=0.1), "size_bytes", 0.5).number == 4


def test_a_candidate_that_a_doubt_keeps_off_the_front_is_named_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    doubted = record(4, measurement(0.75, 400, took=latency(0.4, doubts=("The machine was hot.",))))
    front = Front.of([DENSE, BELIEVED, BESIDE, doubted], PROBLEM)
    assert [one.number for one in front.undecided] == [2]
    show_front(front)
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("Not on the front, as what is in doubt decides nothing, but on it by their measured numbers:")
    assert lines[place + 1] == "  candidate 2: latency 0.500 ms, 0.05 of dense (The machine was busy)"
    assert lines[place + 2] == "On the front by other numbers, as these are in doubt:"
    assert lines[place + 3] == "  candidate 4: latency 4.000 ms, 0.40 of dense (The machine was hot)"
    assert "autoprune run" in lines[place + 4]
    assert any("Candidate 2 is not on the front only as" in line for line, _ in findings(front))
    many = Front.of([DENSE, *(_claims(number, 0.7 - 0.01 * number, 990 - number) for number in range(2, 15))], PROBLEM)
    show_front(many)
    assert "  and candidates 12, 13, 14\n" in capsys.readouterr().out
    eleven = Front.of(
        [DENSE, *(_claims(number, 0.7 - 0.01 * number, 990 - number) for number in range(2, 13))], PROBLEM
    )
    show_front(eleven)
    said = capsys.readouterr().out
    assert "  candidate 12: latency" in said
    assert "and candidates" not in said
    assert "as good as" not in said


def test_a_member_in_doubt_that_is_only_as_good_as_another_is_named_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    doubtful = latency(0.4, doubts=BUSY)
    alike = record(3, measurement(0.745, 500, took=doubtful, error=0.01))
    front = Front.of(
        [dense(took=latency(1.0), error=0.01), record(2, measurement(0.75, 400, took=latency(0.5), error=0.01)), alike],
        PROBLEM,
    )
    assert dict(front.as_good_as) == {3: 2}
    show_front(front)
    said = capsys.readouterr().out
    assert "On the front as they are as good as another member by other numbers" in said
    assert "On the front by other numbers" not in said


def test_a_front_without_doubts_says_nothing_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    front = Front.of([DENSE, BELIEVED], PROBLEM)
    show_front(front)
    assert "doubt" not in capsys.readouterr().out
    assert front.undecided == ()


def test_a_limit_in_milliseconds_says_that_the_dense_models_are_in_doubt() -> None:
    front = Front.of([dense(took=latency(1.0, doubts=BUSY)), BELIEVED], PROBLEM)
    said = front.choice(Limits(max_latency_ms=8)).doubts
    scale = "Each latency in ms is a ratio times the dense model's 10.000 ms, which is in doubt (The machine was busy)."
    assert said[0] == scale
    assert not front.choice(Limits(max_latency_share=0.8)).doubts


def test_the_ratio_of_the_dense_model_to_itself_is_never_in_doubt() -> None:
    """It was timed on a busy machine, where it seemed slower than itself; what costs more and is worse is beaten."""
    whole = dense(0.9, took=latency(1.3, doubts=BUSY))
    slower = record(1, measurement(0.8, 1000, took=latency(1.1)), kept={"a": (0,)})
    front = Front.of([whole, slower], PROBLEM)
    assert [one.number for one in front.members] == [0]
    assert PROBLEM.losses([whole], ("latency_ms",)).tolist() == [[1.0]]
    assert front.choose(Limits(max_latency_share=1.0), "quality").number == 0


def test_the_dense_row_shows_the_ratio_1_in_every_profile() -> None:
    problem = problem_of(("quality", "latency_ms[b32]"), profiles=("b32",))
    took = {"default": latency(1.3, doubts=BUSY), "b32": latency(0.99, doubts=BUSY)}
    whole = dense()
    whole = replace(whole, search=replace(whole.search, latencies=took, energy=energy(1.02, doubts=BUSY)))
    front = Front.of([whole], problem)
    row = front.row(whole)
    for name in ("latency_{}", "latency_{}[b32]", "energy_{}"):
        told = tuple(row[name.format(what)] for what in ("ratio", "ratio_low", "ratio_high", "trusted"))
        assert told == (1.0, 1.0, 1.0, True), name
    assert (row["latency_ms"], row["latency_ms[b32]"], row["energy_mj"]) == (10.0, 10.0, 100.0)
    heads, cells = text_table(problem, whole, [whole])
    shown = dict(zip(heads, cells[0], strict=True))
    assert {shown[head] for head in heads if head.endswith("/ dense (95 %)")} == {"1.00"}
    assert any(line.endswith(": 1.00 of dense") for line in hover_lines(front, whole))
    assert [row.told(whole) for row in problem.rows] == [0.9, 1.0]


def test_what_no_member_dominates_is_as_good_as_none_of_them() -> None:
    problem = problem_of(("quality", "latency_ms"))
    records = [record(1, measurement(0.7, 500, took=latency(0.5))), _claims(2, 0.75, 400)]
    points, strict = np.array([[0.3, 0.5], [0.25, math.nan]]), np.array([True, False])
    in_doubt = np.array([[False, False], [False, True]])
    pool = Pool(records=records, points=points, strict=strict, in_doubt=in_doubt, problem=problem, names=np.arange(2))
    assert find_as_good(pool)[0] == {}


def test_a_number_that_a_twin_lent_takes_none_off_the_front() -> None:
    points = np.array([[0.1, 0.9], [0.2, 0.2], [0.3, 0.3]])
    in_doubt = np.array([[False, False], [False, True], [False, False]])
    assert believed_non_dominated(points, in_doubt).tolist() == [True, False, True]
