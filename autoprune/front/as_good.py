"""Candidates that are beaten within noise only: they stay on the front, marked."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.records.candidate import CandidateRecord
from autoprune.records.confidence import CONFIDENCE
from autoprune.records.metric_objectives import further_metric
from autoprune.records.paired import bound_errors, difference_errors, draw_changes, quantile
from autoprune.records.problem import Problem

#: Draws of the samples.
_DRAWS = 400
#: Candidates that are compared with the front at once.
_AT_ONCE = 256


def find_as_good(
    records: Sequence[CandidateRecord], points: np.ndarray, strict: np.ndarray, in_doubt: np.ndarray, problem: Problem
) -> dict[int, int]:
    """Find the dominated candidates that may be non-dominated all the same, as far as the samples tell.

    A candidate is beaten if a non-dominated one is no worse in any objective, and every metric among them is better
    with a confidence of `CONFIDENCE`; or if several others are together: in that share of draws of the samples one of
    those that cost no more, and are not beaten by a single one, is better. So a cheap candidate that was lucky on the
    search split takes no other from the front alone, and the front does not fill with candidates that some other one
    surely beats. Candidates that equal a non-dominated one in all that was measured are beaten.

    Args:
        records: Candidates.
        points: Their losses [records, objectives]; lower is better.
        strict: Whether each is non-dominated, bool [records].
        in_doubt: Losses that decide nothing, bool [records, objectives].
        problem: Problem of the study, with the quality or another metric among its objectives.

    Returns:
        Position of a candidate -> position of the best non-dominated one that it is as good as.
    """
    noisy, found = _Noisy.of(problem), {}
    front = np.flatnonzero(strict)
    for here, rivals, gains, unclear in _not_surely_beaten(records, points, strict, in_doubt, noisy):
        if not len(rivals):  # doubts are not transitive: what dominates it is dominated by a member that does not
            continue
        if unclear.any():
            others = [records[rival].search for rival in rivals[unclear].tolist()]
            noise = [difference_errors(records[here].search, others, name) for name in noisy.metrics]
            if (gains[unclear] >= quantile() * np.stack(noise, axis=1)).all(axis=1).any():
                continue
        equal = rivals[(points[rivals] == points[here]).all(axis=1)]
        if not any(_are_measured_equal(records[here], records[rival]) for rival in equal.tolist()):
            found[here] = int(rivals[np.argmax(gains[:, noisy.first])])
    return _likely(found, records, points, front, in_doubt, problem)


@dataclass(frozen=True, slots=True)
class _Noisy:
    """Objectives that are metrics, so that they have noise.

    Attributes:
        columns: Their numbers among the objectives.
        metrics: Names of the metrics, "" for the quality.
        first: Number of the quality among them, 0 where it is no objective.
    """

    columns: tuple[int, ...]
    metrics: tuple[str, ...]
    first: int

    @classmethod
    def of(cls, problem: Problem) -> _Noisy:
        columns = [place for place, row in enumerate(problem.rows) if not row.is_cost]
        metrics = [further_metric(problem.objectives[place]) for place in columns]
        return cls(tuple(columns), tuple(metrics), metrics.index("") if "" in metrics else 0)

    def independent(self, records: Sequence[CandidateRecord]) -> bool:
        """Tell whether no noise is known to be common to candidates, as in older records."""
        return not any(record.search.deviations_of(name) for record in records for name in self.metrics)


def _not_surely_beaten(
    records: Sequence[CandidateRecord], points: np.ndarray, strict: np.ndarray, in_doubt: np.ndarray, noisy: _Noisy
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """List the dominated candidates that no member beats by more than any error of their difference: few of them.

    Each comes with the members that cost no more, their gains [members, metrics], and whether only the exact error of
    the difference can tell if such a member beats it: never where noise is independent, whose bound is exact.
    """
    errors = np.array([[record.search.error_of(name) for name in noisy.metrics] for record in records])
    front, columns = np.flatnonzero(strict), np.array(noisy.columns, dtype=np.int64)
    members = [records[place].search for place in front.tolist()]
    dominated = np.flatnonzero(~strict & (np.isfinite(points) | in_doubt).all(axis=1))
    independent = noisy.independent(records)
    for start in range(0, len(dominated), _AT_ONCE):
        some = dominated[start : start + _AT_ONCE]
        rivals = _every((points[front] <= points[some, None]) | in_doubt[some, None])
        gains = points[np.ix_(some, columns)][:, None] - points[np.ix_(front, columns)]
        own, theirs = errors[some, None], errors[front]
        # No error of a difference is larger than root two of the sum; nearly all are beaten by that.
        most = np.hypot(own, theirs) if independent else np.sqrt(2) * (own + theirs)
        left = np.flatnonzero(~(rivals & _every(gains >= quantile() * most)).any(axis=1))
        some, rivals, gains, least = some[left], rivals[left], gains[left], most[left]
        if not independent:
            measured = [records[place].search for place in some.tolist()]
            bounds = [bound_errors(measured, members, name) for name in noisy.metrics]
            least, most = (np.stack(bound, axis=2) for bound in zip(*bounds, strict=True))
            left = np.flatnonzero(~(rivals & _every(gains >= quantile() * most)).any(axis=1))
            some, rivals, gains, least = some[left], rivals[left], gains[left], least[left]
        unclear = rivals & _every(gains >= quantile() * least)
        for row, here in enumerate(some.tolist()):
            mine = rivals[row]
            yield here, front[mine], gains[row, mine], unclear[row, mine]


def _every(found: np.ndarray) -> np.ndarray:
    """Tell where all of the last axis hold, which has a few entries: much faster than `all` over it."""
    return functools.reduce(np.logical_and, (found[..., place] for place in range(found.shape[-1])))


def _likely(  # what `find_as_good` has, and what it found
    found: Mapping[int, int],
    records: Sequence[CandidateRecord],
    points: np.ndarray,
    front: np.ndarray,
    in_doubt: np.ndarray,
    problem: Problem,
) -> dict[int, int]:
    """Keep the candidates that are non-dominated in enough draws of the samples; a tie counts half."""
    noisy, known, kept = _Noisy.of(problem), [*found, *front.tolist()], {}
    measured = [records[place].search for place in known]
    changes = [draw_changes(measured, _DRAWS, name) for name in noisy.metrics] if found else []
    draws = min((len(one[0]) for one in changes if one is not None), default=0)
    if not draws:
        return dict(found)
    near, drawn = points[known], []
    for column, change in zip(noisy.columns, changes, strict=True):
        moved = np.zeros((draws, len(known))) if change is None else change[0][:draws]
        drawn.append(np.ascontiguousarray((near[:, column] + problem.rows[column].loss(1.0) * moved).T))
    costs = [column for column in range(points.shape[1]) if column not in noisy.columns]
    places = [*found]
    for start in range(0, len(places), _AT_ONCE):
        some = places[start : start + _AT_ONCE]
        rivals = _rivals(near[:, costs], points[np.ix_(some, costs)], in_doubt[np.ix_(some, costs)], drawn, start)
        for row, here in enumerate(some):
            ahead = _ahead([(one[start + row], one[rivals[row]]) for one in drawn])
            if (ahead.sum() / draws + 1) / 2 >= 1 - CONFIDENCE:
                kept[here] = found[here]
    return kept


def _rivals(
    near: np.ndarray, own: np.ndarray, in_doubt: np.ndarray, drawn: Sequence[np.ndarray], start: int
) -> np.ndarray:
    """Tell which known candidates cost no more than some, and are not worse in a metric in every draw.

    near: costs of the known candidates; own, in_doubt: those of some, which are the known ones from `start` on.
    """
    rivals = np.ones((len(own), len(near)), dtype=bool)
    for column in range(near.shape[1]):
        rivals &= (near[:, column] <= own[:, column, None]) | in_doubt[:, column, None]
    for one in drawn:
        rivals &= one.min(axis=1) <= one[start : start + len(own)].max(axis=1)[:, None]
    rivals[np.arange(len(own)), start + np.arange(len(own))] = False
    return rivals


def _ahead(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Tell in which draws a candidate is ahead: 1 where each rival is worse in some metric, 0 where one is equal,
    -1 where one is better.

    pairs: for each metric the losses of the candidate [draws] and of its rivals [rivals, draws].
    """
    if len(pairs) == 1:  # the best rival decides
        own, others = pairs[0]
        return np.asarray(np.sign(others.min(axis=0, initial=np.inf) - own))
    worse = np.sign([others - own for own, others in pairs])
    return np.asarray(np.where((worse > 0).any(axis=0), 1.0, worse.min(axis=0)).min(axis=0, initial=1.0))


def _are_measured_equal(one: CandidateRecord, other: CandidateRecord) -> bool:
    """Tell whether two candidates are equal in each sample."""
    a, b = one.search, other.search
    return a.deviations == b.deviations and a.metric_deviations == b.metric_deviations
