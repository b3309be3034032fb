"""Further metrics among the objectives and limits have noise as the quality has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoprune.front.front import Front
from autoprune.front.limit_check import LimitCheck
from autoprune.records.candidate import CandidateRecord
from autoprune.records.limits import Limits
from autoprune.records.paired import difference_error, quantile
from autoprune.records.problem import Problem
from autoprune.study.retention import removable_weights
from tests.unit.front.answers import answers, scored
from tests.unit.front.builders import problem_of, record

BOTH = ("quality", "recall", "multiply_adds")


def judged(
    number: int, wrong: range, missed: range, multiply_adds: int, origin: str = "sampled", known: bool = True
) -> CandidateRecord:
    """A candidate with errors and misses at some samples; known: whether the noise of its recall is."""
    recall = scored(answers(missed))
    search = replace(
        scored(answers(wrong), multiply_adds),
        metrics={"recall": recall.quality},
        metric_deviations={"recall": recall.deviations} if known else {},
    )
    return record(number, search, origin=origin)


def problem(objectives: tuple[str, ...] = BOTH, limits: Limits | None = None) -> Problem:
    return problem_of(objectives, metrics={"recall": True}, limits=limits)


DENSE = judged(0, range(10), range(12), 1000, "dense")
#: Its recall is lucky; its accuracy is surely better than that of the dense model, whose errors it has but for nine.
CHEAP = judged(1, range(1), range(6, 17), 100)


def test_what_is_beaten_surely_in_one_metric_and_within_noise_in_the_other_stays() -> None:
    front = Front.of([DENSE, CHEAP], problem())
    assert front.as_good_as == {0: 1}
    assert Front.of([DENSE, CHEAP], problem(("quality", "multiply_adds"))).as_good_as == {}
    assert Front.of([DENSE, CHEAP], problem(("recall", "multiply_adds"))).as_good_as == {0: 1}, "without the quality"
    worse = judged(0, range(10), range(60), 1000, "dense")
    assert Front.of([worse, CHEAP], problem()).as_good_as == {}, "beaten surely in both"


def test_without_a_known_error_a_metric_decides_as_it_is() -> None:
    old = [
        judged(0, range(10), range(12), 1000, "dense", known=False),
        judged(1, range(1), range(6, 17), 100, known=False),
    ]
    assert Front.of(old, problem()).as_good_as == {}


def test_several_others_beat_where_one_of_them_is_better_in_every_metric() -> None:
    """Twelve candidates, each a little better in both metrics and cheaper: hardly a draw without one ahead."""
    rivals = [judged(n, range(20 * n, 20 * n + 8), range(20 * n, 20 * n + 9), 100 + n) for n in range(1, 13)]
    one = Front.of([DENSE, rivals[0]], problem())
    many = Front.of([DENSE, *rivals], problem())
    assert 0 in one.as_good_as
    assert 0 not in many.as_good_as


def test_a_limit_of_a_metric_is_kept_with_confidence() -> None:
    limits = Limits(min_recall=0.96)
    check = LimitCheck(problem=problem(), dense=DENSE, limits=limits, confidence=0.9)
    error = CHEAP.search.error_of("recall")
    assert error == pytest.approx(np.sqrt(0.9725 * 0.0275 / 400), rel=0.01)
    (excess,) = check.excess(CHEAP).values()
    assert excess == pytest.approx(0.96 - 0.9725 + quantile(0.9) * error, abs=1e-6)
    front = Front.of([DENSE, CHEAP], problem())
    assert front.optimism(limits) == pytest.approx(front.optimism(Limits()), abs=0.002)
    assert front.optimism(by="recall") is not None


def test_the_difference_of_a_metric_is_paired() -> None:
    nested = judged(2, range(1), range(6, 20), 100)
    assert difference_error(CHEAP.search, nested.search, "recall") == pytest.approx(np.sqrt(4) / 400, rel=0.02)


def test_a_limit_tells_the_direction_of_a_metric_where_it_is_unknown() -> None:
    """Fewer is better where the most is limited: the rival with more of it takes no weights away."""
    far = judged(3, range(20), range(40), 500)
    for limits, removable in ((Limits(max_recall=0.99), []), (Limits(min_recall=0.5), [3])):
        unknown = problem_of(metrics={"recall": None}, limits=limits)
        lone = replace(Front.of([DENSE, CHEAP, far], unknown), members=(CHEAP,), as_good_as={})
        assert [one.number for one in removable_weights(lone)] == removable


def test_no_weights_go_of_what_is_within_noise_in_a_metric() -> None:
    near, far = judged(2, range(20), range(6, 18), 500), judged(3, range(20), range(40), 500)
    for loser, removable in ((near, []), (far, [3])):
        front = Front.of([DENSE, CHEAP, loser], problem())
        lone = replace(front, members=(CHEAP,), as_good_as={})
        assert [one.number for one in removable_weights(lone)] == removable
