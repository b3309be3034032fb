"""Members of a front, and the points whose hypervolume it has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.front.as_good import find_as_good
from autoprune.front.believed import believed_non_dominated, find_doubts
from autoprune.front.pool import Pool
from autoprune.records.candidate import CandidateRecord
from autoprune.records.columns import Columns
from autoprune.records.objectives import QUALITY
from autoprune.records.problem import Problem

#: Name of the comparisons that are kept while the list of candidates grows.
_COMPARISONS = "comparisons"


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
    records = [columns.records[place] for place in places.tolist()]
    in_doubt = np.zeros(points.shape, dtype=bool) if as_measured else find_doubts(columns, places, problem)
    strict = believed_non_dominated(points, in_doubt)
    as_good: dict[int, int] = {}
    if any(not row.is_cost for row in problem.rows):
        names = columns.names[places]
        as_good = _find_as_good(
            columns,
            Pool(records=records, points=points, strict=strict, in_doubt=in_doubt, problem=problem, names=names),
        )
    members = [record for place, record in enumerate(records) if strict[place] or place in as_good]
    members.sort(key=lambda record: (-record.search.multiply_adds, -record.search.size_bytes))
    return tuple(members), {records[one].number: records[other].number for one, other in as_good.items()}


def _find_as_good(columns: Columns, pool: Pool) -> dict[int, int]:
    """Find the candidates that are as good as members, with the comparisons of earlier moments of the same problem."""
    before = columns.kept.get(_COMPARISONS)
    known = before[1] if isinstance(before, tuple) and before[0] == pool.problem else None
    as_good, found = find_as_good(pool, known)
    columns.kept[_COMPARISONS] = pool.problem, found
    return as_good


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
