"""Early stopping and polishing tell a difference in quality from luck."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np

from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecoveryPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.paired import difference_error, quantile
from autoprune.search.early_stopping import RULES, FinishedTrial, RungContext, costs_of, finished_trials
from autoprune.search.sources.polish import choose_to_polish
from tests.unit.front.answers import answers, candidate
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
