"""A front that grows with its study is the front of a new list, and both are what the definition says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from autoprune.front.believed import believed_non_dominated, find_doubts
from autoprune.front.front import Front
from autoprune.front.members import find_members
from autoprune.records.candidate import CandidateRecord
from autoprune.records.columns import Columns
from autoprune.records.confidence import CONFIDENCE
from autoprune.records.metric_objectives import further_metric
from autoprune.records.paired import difference_error, draw_change, draw_changes, quantile
from autoprune.records.problem import Problem
from tests.unit.front.answers import scored
from tests.unit.front.builders import latency, problem_of, record

OBJECTIVES = (
    ("quality", "multiply_adds"),
    ("quality", "size_bytes", "latency_ms"),
    ("quality", "recall", "latency_ms"),
    ("recall", "multiply_adds"),
)
SAMPLES = 60


def _candidate(number: int, random: np.random.Generator, known: float) -> CandidateRecord:
    """A random candidate, one of a few that others equal. known: how often its samples are."""
    cost, luck = int(random.integers(1, 12)), np.random.default_rng(int(random.integers(12)))
    accuracy, recall = (
        scored((luck.random(SAMPLES) < 0.5 + 0.03 * cost + luck.normal(0, 0.1)).astype(float)) for _ in range(2)
    )
    took = latency(
        round(0.08 * cost * float(random.lognormal(0, 0.2)), 2),
        0.01 * float(random.integers(1, 4)),
        doubts=("The machine was busy.",) if random.random() < 0.2 else (),
    )
    search = replace(
        accuracy,
        metrics={"accuracy": accuracy.quality, "recall": recall.quality},
        metric_deviations={"recall": recall.deviations},
        multiply_adds=100 * cost,
        size_bytes=400 * cost,
        latencies={} if random.random() < 0.05 else {"default": took},
    )
    if random.random() > known:
        search = replace(search, deviations=(), metric_deviations={})
    kept = {"a": tuple(range(cost)), "b": tuple(range(int(random.integers(1, 3))))}
    fidelity = 0.5 if random.random() < 0.1 else 1.0
    return replace(record(number, search, kept=kept), fidelity=fidelity)


def _growing(seed: int, known: float) -> Iterator[list[CandidateRecord]]:
    """A list that grows in any order; now and then a candidate is measured again, or loses its weights."""
    random, records = np.random.default_rng(seed), list[CandidateRecord]()
    for number in random.permutation(70).tolist():
        records.append(_candidate(number, random, known))
        records.sort(key=lambda one: one.number)
        place = int(random.integers(len(records)))
        if random.random() < 0.1:
            again = latency(round(float(random.uniform(0.1, 1.0)), 2))
            records[place] = records[place].with_latencies({"default": again})
        elif random.random() < 0.1:
            records[place] = replace(records[place], removed=True)
        yield records


def _plainly(records: list[CandidateRecord], problem: Problem) -> dict[int, int]:
    """Find what `find_as_good` finds, one pair after the other."""
    complete = [one for one in records if not one.stopped]
    points, all_of = problem.losses(complete), Columns(complete)
    there = [place for place, one in enumerate(complete) if one.selectable]
    some, points = [complete[place] for place in there], points[there]
    doubt = find_doubts(all_of, np.array(there, dtype=np.int64), problem)
    strict = believed_non_dominated(points, doubt)
    front, found = np.flatnonzero(strict).tolist(), {}
    metrics = {
        column: further_metric(problem.objectives[column]) for column, row in enumerate(problem.rows) if not row.is_cost
    }
    quality = next((column for column, name in metrics.items() if not name), next(iter(metrics)))
    for here in np.flatnonzero(~strict & (np.isfinite(points) | doubt).all(axis=1)).tolist():
        rivals = [one for one in front if ((points[one] <= points[here]) | doubt[here]).all()]
        if rivals and not any(_beats(some, points, one, here, metrics) for one in rivals):
            found[here] = max(rivals, key=lambda one: points[here, quality] - points[one, quality])
    known = [*found, *front]
    drawn = _drawn([some[one] for one in known], points[known], metrics, problem)
    return {
        some[here].number: some[best].number
        for row, (here, best) in enumerate(found.items())
        if drawn is None or _is_likely(row, drawn, points[known], doubt[here], metrics)
    }


def _beats(some: list[CandidateRecord], points: np.ndarray, one: int, here: int, metrics: dict[int, str]) -> bool:
    a, b = some[one].search, some[here].search
    gains = {name: points[here, column] - points[one, column] for column, name in metrics.items()}
    same = (a.deviations, a.metric_deviations) == (b.deviations, b.metric_deviations)
    if (points[one] == points[here]).all() and same:
        return True
    return all(gain >= quantile() * difference_error(b, a, name) for name, gain in gains.items())


def _drawn(
    known: list[CandidateRecord], points: np.ndarray, metrics: dict[int, str], problem: Problem
) -> np.ndarray | None:
    """The losses of metrics in draws, [metrics, known, draws]; None where no error is known."""
    measured = [one.search for one in known]
    if all(one.deviations for one in measured):
        moved = [np.array([draw_change(one, 400, name) for one in measured]) for name in metrics.values()]
    else:
        changes = [draw_changes(measured, 400, name) for name in metrics.values()]
        if all(one is None for one in changes):
            return None
        moved = [np.zeros((len(known), 400)) if one is None else one[0].T for one in changes]
    signs = [problem.rows[column].loss(1.0) for column in metrics]
    return np.array([points[:, [c]] + sign * one for c, sign, one in zip(metrics, signs, moved, strict=True)])


def _is_likely(row: int, drawn: np.ndarray, points: np.ndarray, doubt: np.ndarray, metrics: dict[int, str]) -> bool:
    costs = [column for column in range(points.shape[1]) if column not in metrics]
    ahead = np.ones(drawn.shape[2])
    for rival in range(len(points)):
        if rival != row and ((points[rival] <= points[row]) | doubt)[costs].all():
            worse = np.sign(drawn[:, rival] - drawn[:, row])
            ahead = np.minimum(ahead, np.where((worse > 0).any(axis=0), 1, worse.min(axis=0)))
    return bool((ahead.mean() + 1) / 2 >= 1 - CONFIDENCE)


@pytest.mark.parametrize("known", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("objectives", OBJECTIVES)
@pytest.mark.parametrize("seed", range(3))
def test_a_front_that_grows(objectives: tuple[str, ...], known: float, seed: int) -> None:
    problem = problem_of(objectives, metrics={"recall": True})
    columns, as_good = Columns(), 0
    for moment, records in enumerate(_growing(seed, known)):
        columns = Columns(records, columns)
        if moment % 3 == 1:
            continue
        growing, new = Front.of(columns, problem), Front.of(records, problem)
        assert growing.as_good_as == new.as_good_as
        assert growing.members == new.members
        if moment % 2:
            measured = [find_members(one, problem, as_measured=True) for one in (columns, Columns(records))]
            assert measured[0] == measured[1]
        if moment % 5 == 0:
            assert new.as_good_as == _plainly(records, problem)
            as_good += len(new.as_good_as)
    assert as_good > 5 or not (known or "quality" in objectives), "without an error a metric decides as it is"
