"""The first screen: one sentence, the suggested candidate, and how far its numbers can be trusted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autoprune.errors import SelectionError
from autoprune.front.front import Front
from autoprune.front.limit_check import NO_DENSE
from autoprune.front.suggestion import suggest
from autoprune.records.candidate import CandidateRecord
from autoprune.records.ending import Ending
from autoprune.records.limits import Limits
from autoprune.records.run_folder import RunFolder
from autoprune.report.section import Summary
from autoprune.report.sections.summary import summary
from tests.unit.front.builders import problem_of
from tests.unit.report.drawn import drawn
from tests.unit.report.noisy import dense, front_of, latency, measurement, record, run_of


def said(path: Path, records: list[CandidateRecord], limits: Limits | None = None, **how: bool) -> Summary:
    front = front_of(records, **how) if limits is None else Front.of(records, problem_of(limits=limits))
    return summary(run_of(path, records), front)


def with_test(number: int, search: float, test: float, origin: str, multiply_adds: int) -> CandidateRecord:
    found = measurement(test, multiply_adds, split="test")
    return record(number, measurement(search, multiply_adds), origin=origin, test=found)


def whole(quality: float, error: float = 0.002) -> CandidateRecord:
    return dense(quality, 1000, error=error)


def cut(number: int, quality: float, multiply_adds: int, error: float = 0.002) -> CandidateRecord:
    return record(number, measurement(quality, multiply_adds, error=error))


def test_a_difference_within_the_noise_is_called_noise(tmp_path: Path) -> None:
    # Both errors are 0.002: the difference is uncertain by 1.96 * sqrt(2) * 0.002 = 0.0055.
    found = said(tmp_path, [whole(0.9), cut(1, 0.897, 300), cut(2, 0.86, 200)])
    assert found.headline == (
        "The model can be cut to 30% of its multiply-adds without a measurable change of accuracy: 0.8970 against "
        "0.9000; a difference up to 0.0055 is noise."
    )
    assert (found.candidate, found.standing, found.is_warning) == (1, "Suggested", False)
    assert [(fact.value, fact.label) for fact in found.facts] == [
        ("-0.0030", "accuracy on the search split"),
        ("30%", "of the multiply-adds"),
        ("30%", "of the size on disk"),
    ]
    assert found.why == (
        "Candidate 1 has the fewest multiply-adds of those that lose at most 1% of the dense model's accuracy, with "
        "90% confidence.",
    )
    assert "not measured on a test split" in found.trust[-1]


def test_the_objectives_of_a_study_are_told_first(tmp_path: Path) -> None:
    took = {"b1": latency(0.4), "b32": latency(0.5, doubts=("busy",))}
    records = [dense(0.9, 1000), cut(1, 0.9, 300)]
    records = [replace(one, search=replace(one.search, latencies=took)) for one in records]
    records[0] = replace(records[0], search=replace(records[0].search, metrics={"recall": 0.75}))
    records[1] = replace(records[1], search=replace(records[1].search, metrics={"recall": 0.5}))
    objectives = ("quality", "recall", "latency_ms[b32]")
    problem = problem_of(objectives, metrics={"recall": True}, profiles=("b1", "b32"))
    found = summary(run_of(tmp_path, records), Front.of(records, problem))
    assert [(fact.value, fact.label) for fact in found.facts[1:]] == [
        ("-0.2500", "recall on the search split"),
        ("0.50", "of the latency, b32"),
        ("30%", "of the multiply-adds"),
        ("30%", "of the size on disk"),
        ("0.40", "of the latency, b1"),
    ]
    assert found.facts[2].note.endswith(", in doubt")


def test_a_small_gain_is_noise_too(tmp_path: Path) -> None:
    found = said(tmp_path, [whole(0.9), cut(1, 0.904, 300)])
    assert "without a measurable change of accuracy: 0.9040 against 0.9000" in found.headline
    clear = said(tmp_path, [whole(0.8), cut(1, 0.9, 300)])
    assert "and gains accuracy: 0.9000 against 0.8000, which is more than the noise of 0.0055" in clear.headline


def test_a_loss_that_is_no_noise_is_called_one_also_where_it_is_allowed(tmp_path: Path) -> None:
    records = [whole(0.9, error=0.0005), cut(1, 0.895, 300, error=0.0005)]
    found = said(tmp_path, records)
    assert "for a loss of accuracy: 0.8950 against 0.9000, which is more than the noise of 0.0014" in found.headline
    assert not found.is_warning


def test_the_nearest_is_told_where_none_keeps_the_quality(tmp_path: Path) -> None:
    found = said(tmp_path, [whole(0.9), cut(1, 0.86, 300), cut(2, 0.5, 100)])
    assert found.headline == (
        "No smaller model keeps its accuracy for certain: the nearest, candidate 1 with 30% of its multiply-adds, "
        "differs from dense by -0.0400, more than the noise of 0.0055."
    )
    assert (found.candidate, found.standing, found.is_warning) == (1, "Nearest", True)
    unsure = said(tmp_path, [whole(0.9, error=0.01), cut(1, 0.899, 300, error=0.01)])
    assert "differs from dense by -0.0010, within the noise of 0.0277." in unsure.headline


def test_a_larger_error_is_a_loss(tmp_path: Path) -> None:
    records = [whole(0.10, error=0.0001), cut(1, 0.1005, 300, error=0.0001), cut(2, 0.20, 100)]
    found = said(tmp_path, records, higher_is_better=False)
    assert found.candidate == 1
    assert found.facts[0].value == "+0.0005", "the number itself, as in the table"
    assert "for a rise of mse: 0.1005 against 0.1000" in found.headline


@pytest.mark.parametrize(("test", "worse"), [(0.88, False), (0.95, False), (0.86, True)])
def test_a_loss_that_only_the_test_split_shows_is_warned_of(test: float, worse: bool, tmp_path: Path) -> None:
    records = [with_test(0, 0.9, 0.9, "dense", 1000), with_test(1, 0.92, test, "sampled", 300)]
    found = said(tmp_path, records)
    assert ("but on the test split it loses 0.0400, more than the noise of 0.0277" in found.headline) == worse
    assert found.is_warning == worse
    assert f"The test split, which chose nothing, says {test:.4f}" in found.trust[-1]
    assert found.table is not None
    assert [row[0] for row in found.table.rows[:2]] == ["accuracy, search split", "accuracy, test split"]
    assert found.table.rows[1] == (
        "accuracy, test split",
        "0.9000 ± 0.0100",
        f"{test:.4f} ± 0.0100",
        f"{test - 0.9:+.4f}",
    )


def test_a_loss_on_test_counts_where_lower_is_better(tmp_path: Path) -> None:
    records = [with_test(0, 0.1, 0.1, "dense", 1000), with_test(1, 0.08, 0.2, "sampled", 300)]
    assert "on the test split it loses 0.1000" in said(tmp_path, records, higher_is_better=False).headline


@pytest.mark.parametrize(
    ("took", "words"),
    [
        (latency(0.5), " (2.0 times as fast)"),
        (latency(0.99), " (not measurably faster)"),
        (latency(1.5), " (slower)"),
        (latency(0.5, doubts=("busy",)), "multiply-adds without"),
    ],
)
def test_speed_is_told_as_far_as_the_clock_tells(took: object, words: str, tmp_path: Path) -> None:
    records = [dense(0.9, 1000, took=latency(1.0)), record(1, measurement(0.92, 300, took=took))]  # type: ignore[arg-type]
    assert words in said(tmp_path, records).headline
    assert ("slower than dense" in " ".join(said(tmp_path, records).why)) is ("slower" in words)


def test_the_best_of_many_is_lucky_and_the_page_says_so(tmp_path: Path) -> None:
    records = [dense(0.9, 1000), *(record(n, measurement(0.92, 300 + n)) for n in range(1, 30))]
    luck, runner_up, _ = said(tmp_path, records).trust
    assert luck.startswith("The best of 30 noisy candidates looks better than it is: this one by about 0.0")
    assert runner_up.startswith("The runner-up is candidate 2:")


def test_limits_decide_where_there_are_some(tmp_path: Path) -> None:
    records = [dense(0.9, 1000), record(1, measurement(0.9, 300)), record(2, measurement(0.5, 100))]
    loose = said(tmp_path, records, Limits(max_multiply_adds=200))
    assert loose.candidate == 2
    assert "for a loss of accuracy: 0.5000 against 0.9000" in loose.headline
    assert not loose.is_warning
    assert "that keep the limits of the search (max_multiply_adds 200)" in loose.why[0]
    tight = said(tmp_path, records, Limits(max_multiply_adds=50))
    assert tight.headline.startswith("No smaller model keeps the limits: the nearest, candidate 2 with 10%")
    assert tight.is_warning
    assert any("No candidate keeps the limits" in line for line in tight.warnings)


def test_a_doubt_that_decides_is_the_result(tmp_path: Path) -> None:
    doubtful = latency(0.4, doubts=("The machine was busy.",))
    records = [dense(0.9, 1000, took=latency(1.0))]
    records += [record(n, measurement(0.9, 100 * (4 - n), took=doubtful)) for n in (1, 2)]
    records.append(record(3, measurement(0.9, 100, took=latency(0.6, doubts=("The machine was busy.",)))))
    found = said(tmp_path, records, Limits(max_latency_share=0.5))
    assert found.headline.startswith(
        "It cannot be said whether a smaller model keeps the limits: candidate 2 with 20% of its multiply-adds does by "
        "its measured latency, which is in doubt; its accuracy differs from dense by +0.0000, within the noise of"
    )
    assert (found.candidate, found.standing, found.is_warning) == (2, "In doubt", True)
    assert "It is not suggested, as its latency is in doubt. The same `autoprune run` command" in found.why[0]
    front = Front.of(records, problem_of(limits=Limits(max_latency_share=0.5)))
    with pytest.raises(SelectionError, match="candidate 2 would be chosen, but its latency is in doubt"):
        front.choice()
    beyond = said(tmp_path, records, Limits(max_latency_share=0.3))
    assert beyond.headline.startswith("No smaller model keeps the limits: the nearest, candidate ")
    assert beyond.standing == "Nearest"


def test_next_to_nothing_is_said_plainly(tmp_path: Path) -> None:
    assert said(tmp_path, [dense()]).headline == "No smaller candidate is finished yet."
    assert said(tmp_path, []).headline == "No smaller candidate is finished yet."
    assert said(tmp_path, [record(1, measurement(0.9, 300))]).headline == NO_DENSE
    assert suggest(front_of([dense()])) is None


def test_an_early_end_is_a_warning(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_ending(Ending(reason="seconds", done=2, target=9, detail="5 s"))
    found = said(tmp_path, [dense(), record(1, measurement(0.9, 300))])
    assert any(line.startswith("The run ended with 2 of 9 trials") for line in found.warnings)


def test_the_chart_marks_the_suggested_candidate(tmp_path: Path) -> None:
    found = said(tmp_path, [dense(0.9, 1000), record(1, measurement(0.89, 300))])
    assert found.picture is not None
    (ring,) = [trace for trace in drawn(found.picture.figure).data if trace.name == "suggested"]
    assert (list(ring.x), list(ring.y)) == ([300], [0.89])
    assert found.picture.text == (
        "2 candidates by accuracy and multiply-adds, 2 of them on the front: from 300 with 0.8900 to 1,000 with "
        "0.9000. The dense model has 0.9000 at 1,000."
    )
