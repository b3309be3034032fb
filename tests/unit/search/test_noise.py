"""Early stopping and polishing tell a difference in quality from luck."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np

from autoprune.front.front import Front
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecoveryPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.columns import Columns
from autoprune.records.limits import Limits
from autoprune.records.paired import difference_error, quantile
from autoprune.search.early_stopping import RULES, FinishedTrial, RungContext, costs_of, finished_trials
from autoprune.search.sources.polish import choose_to_polish
from tests.unit.front.answers import answers, candidate, scored
from tests.unit.front.builders import front_of, problem_of


def rung(noise: float, loss: float) -> RungContext:
    """A candidate at a rung, among others that end 0.1 better than they are there, each with a noise."""
    costs = [0.1 + 0.05 * step for step in range(16)]
    past = [
        FinishedTrial(
            rungs={0.5: -0.8 - 0.001 * (step % 3)}, loss=-0.9 - 0.001 * (step % 3), costs=(cost,), noise=noise
        )
        for step, cost in enumerate(costs)
    ]
    return RungContext(share=0.5, loss=loss, costs=(0.7,), past=past)


def test_a_candidate_that_may_end_within_the_noise_of_the_best_goes_on() -> None:
    worse = -0.79  # ends about 0.01 below the others
    assert RULES["front"](rung(0.0, worse))
    assert not RULES["front"](rung(0.03, worse))
    assert RULES["front"](rung(0.03, -0.6)), "far below is beyond the noise"


def test_the_noise_of_a_finished_candidate_is_that_against_its_neighbours() -> None:
    records = [candidate(n, answers(range(10 * n, 10 * n + 8 + n)), 1000 - n) for n in range(5)]
    problem = problem_of()
    found = finished_trials(records, costs_of(records, problem), problem.quality)
    errors = [difference_error(records[0].search, other.search) for other in records[1:4]]
    assert found[0].noise == quantile() * float(np.median(errors))
    bare = [replace(one, search=replace(one.search, quality_error=0.0, deviations=())) for one in records]
    assert {one.noise for one in finished_trials(bare, costs_of(bare, problem), problem.quality)} == {0.0}
    assert [one.noise for one in finished_trials(records[:1], [(1.0,)], problem.quality)] == [0.0]


def test_the_noise_of_a_list_that_grows_is_that_of_a_new_one() -> None:
    luck, known, problem = np.random.default_rng(0), Columns(), problem_of()
    records = list[CandidateRecord]()
    for number in luck.permutation(40).tolist():
        records.append(candidate(number, (luck.random(50) < 0.8).astype(float), 1000 - number))
        if luck.random() < 0.3:
            records[0] = replace(records[0], search=scored((luck.random(50) < 0.9).astype(float)))
        records.sort(key=lambda one: one.number)
        known = Columns(records, known)
        costs = costs_of(records, problem)
        assert finished_trials(known, costs, problem.quality) == finished_trials(records, costs, problem.quality)


def trained(number: int, right: np.ndarray, multiply_adds: int) -> CandidateRecord:
    plan = PruningPlan(groups={}, recovery=RecoveryPlan(steps=10))
    kept = {"a": tuple(range(1 + multiply_adds // 100))}
    return dataclasses.replace(candidate(number, right, multiply_adds), plan=plan, kept=kept)


def test_polishing_prefers_what_is_surely_worse_than_a_larger_candidate() -> None:
    """Candidate 1 is 13 samples below dense, 31 of which differ; candidate 2 is 11 below, and nothing else differs."""
    dense = candidate(0, answers(range(10)), 1000, "dense")
    doubtful = trained(1, answers(range(100, 123), samples=400), 500)
    sure = trained(2, answers(range(21)), 300)
    front = front_of([dense, doubtful, sure])
    assert {1, 2} <= {record.number for record in front.members}
    chosen = choose_to_polish(front, "multiply_adds", lambda _: True)
    assert chosen is not None
    assert chosen.number == 2
    bare = [
        replace(one, search=replace(one.search, quality_error=0.0, deviations=())) for one in (dense, doubtful, sure)
    ]
    measured = choose_to_polish(front_of(bare), "multiply_adds", lambda _: True)
    assert measured is not None


def test_where_all_may_be_luck_the_measured_difference_decides() -> None:
    dense = candidate(0, answers(range(10)), 1000, "dense")
    near, far = trained(1, answers(range(100, 112)), 500), trained(2, answers(range(200, 215)), 300)
    chosen = choose_to_polish(front_of([dense, near, far]), "multiply_adds", lambda _: True)
    assert chosen is not None
    assert chosen.number == 2


def limited(*wrong: int, max_drop: float = 0.02) -> int:
    """Number of the candidate that is polished, of some with so many wrong answers, at 0.9, 0.8, ... of the work.

    The dense model has 10 wrong answers of 400, which all share. At most 0.85 of its work is allowed.
    """
    dense = candidate(0, answers(range(10)), 1000, "dense")
    others = [trained(n, answers(range(count)), 1000 - 100 * n) for n, count in enumerate(wrong, start=1)]
    limits = Limits(max_drop=max_drop, max_multiply_adds=850)
    chosen = choose_to_polish(Front.of([dense, *others], problem_of(limits=limits)), "multiply_adds", lambda _: True)
    assert chosen is not None
    return chosen.number


def test_with_limits_the_nearest_to_them_is_polished_and_then_those_that_keep_them() -> None:
    assert limited(19, 25, 60, 200) == 2, "1 costs too much, and 3 and 4 are farther from the limit of 18"
    assert limited(11, 13, 60, 200) == 2, "2 keeps the limits with confidence"
    assert limited(11, 13, 14, 200) == 3, "both keep them, and 3 is farther below a larger one"
    assert limited(11, 13, 60, 200, max_drop=0.9) == 4, "all may go, and 4 has the most to gain"


def test_where_the_nearest_to_the_limits_was_polished_often_another_one_is() -> None:
    dense = candidate(0, answers(range(10)), 1000, "dense")
    again = [trained(number, answers(range(25)), 800) for number in (1, 2, 3, 4)]
    other = trained(5, answers(range(30)), 700)
    problem = problem_of(limits=Limits(max_drop=0.02, max_multiply_adds=850))
    few = choose_to_polish(Front.of([dense, again[0], other], problem), "multiply_adds", lambda _: True)
    many = choose_to_polish(Front.of([dense, *again, other], problem), "multiply_adds", lambda _: True)
    assert few is not None
    assert many is not None
    assert (few.number, many.number) == (1, 5)


def test_what_breaks_a_limit_of_cost_is_not_polished_where_all_the_rest_is_unknown() -> None:
    dense = candidate(0, answers(range(10)), 1000, "dense")
    costly, other = trained(1, answers(range(11)), 900), trained(2, answers(range(60)), 800)
    limits = Limits(min_recall=0.5, max_multiply_adds=850)  # of which no candidate has a number
    front = Front.of([dense, costly, other], problem_of(limits=limits, metrics={"recall": True}))
    chosen = choose_to_polish(front, "multiply_adds", lambda _: True)
    assert chosen is not None
    assert chosen.number == 2


def test_a_limit_of_quality_alone_is_kept_to_as_well() -> None:
    dense = candidate(0, answers(range(10)), 1000, "dense")
    dense = replace(dense, plan=PruningPlan(groups={}, recovery=RecoveryPlan(steps=0)))
    near, far = trained(1, answers(range(100, 125)), 900), trained(2, answers(range(60)), 500)
    problem = problem_of(limits=Limits(max_drop=0.001))
    for trained_more in (1, 2):
        records = [replace(one, lineage_trained=100 if one.number == trained_more else 0) for one in (dense, near, far)]
        chosen = choose_to_polish(Front.of(records, problem), "multiply_adds", lambda _: True)
        assert chosen is not None
        assert chosen.number == 1
