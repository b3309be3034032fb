"""Members of a front, and the points whose hypervolume it has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.front.as_good import find_as_good
from autoprune.front.believed import believed_non_dominated, find_doubts
from autoprune.records.candidate import CandidateRecord
from autoprune.records.columns import Columns
from autoprune.records.objectives import QUALITY
from autoprune.records.problem import Problem


def find_members(
    columns: Columns, problem: Problem, *, as_measured: bool = False
) -> tuple[tuple[CandidateRecord, ...], dict[int, int]]:
    """Find the candidates that no other beats, the most expensive first.

    Args:
        columns: Numbers of all candidates. They decide together which latencies count as equal.
        problem: Objectives of the search.
        as_measured: Whether numbers in doubt count, too.

    Returns:
        Members of the front, and the number of each that is dominated within noise only -> number of the one that it is
        as good as.
    """
    complete = np.flatnonzero(columns.column("complete", lambda record: not record.stopped))
    points = problem.losses_of(columns, complete, as_measured=as_measured)
    there = columns.column("selectable", lambda record: record.selectable)[complete] > 0
    places, points = complete[there], points[there]
    pool = [columns.records[place] for place in places.tolist()]
    in_doubt = np.zeros(points.shape, dtype=bool) if as_measured else find_doubts(columns, places, problem)
    strict = believed_non_dominated(points, in_doubt)
    as_good: dict[int, int] = {}
    if any(not row.is_cost for row in problem.rows):
        as_good = find_as_good(pool, points, strict, in_doubt, problem)
    members = [record for place, record in enumerate(pool) if strict[place] or place in as_good]
    members.sort(key=lambda record: (-record.search.multiply_adds, -record.search.size_bytes))
    return tuple(members), {pool[one].number: pool[other].number for one, other in as_good.items()}


def volume_points(
    records: Sequence[CandidateRecord],
    dense: CandidateRecord,
    problem: Problem,
    cost: str,
    worst_quality: float | None,
) -> tuple[np.ndarray, tuple[float, float]]:
    """Collect the points whose hypervolume a front has.

    Args:
        records: All candidates.
        dense: Record of the dense model.
        problem: Problem of the study.
        cost: Cost axis.
        worst_quality: Quality at which the hypervolume is 0; that of the worst candidate when None.

    Returns:
        Points [records, (quality, share of dense)], all minimised, NaN for stopped candidates; and the reference.
    """
    points = np.full((len(records), 2), np.nan)
    complete = np.array([not record.stopped for record in records])
    points[complete] = problem.losses([record for record in records if not record.stopped], (QUALITY, cost))
    objective = problem.objective(cost)
    points[:, 1] /= 1.0 if objective.is_compared else objective.value(dense.search)
    finite = points[np.isfinite(points).all(axis=1), 0]
    worst = float(finite.max(initial=-np.inf))
    if worst_quality is not None:
        worst = problem.quality.loss(worst_quality)
    return points, (worst, 1.0 + 1e-9)
