"""Candidates that are beaten within noise only: they stay on the front, marked.

Whether one candidate beats another beyond noise is a fact about the two alone, as long as it costs no more. Which costs
count as equal follows from all candidates, so that it is looked at each time; all else is kept while their list grows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from autoprune.front.drawn import Drawn, are_likely
from autoprune.front.pairs import Pairs, no_names, places_in
from autoprune.front.pool import Noisy, Pool
from autoprune.records.paired import bound_errors, pair_errors, quantile

#: Candidates that are compared with the front at once.
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Comparisons of candidates at an earlier moment.

    Attributes:
        beaten_by: Name of a candidate -> name of one that is better beyond noise; -1 where none is known. Int [names].
        cleared: Candidates and members of the front that are not better beyond noise.
        drawn: Draws of the samples.
    """

    beaten_by: np.ndarray = field(default_factory=no_names)
    cleared: Pairs = field(default_factory=Pairs)
    drawn: Drawn = field(default_factory=Drawn)


@np.errstate(over="ignore", invalid="ignore")  # an error of 1e308 in a stored file makes nothing certain
def find_as_good(pool: Pool, before: Comparisons | None = None) -> tuple[dict[int, int], Comparisons]:
    """Find the dominated candidates that may be non-dominated all the same, as far as the samples tell.

    A candidate is beaten if a non-dominated one is no worse in any objective, and every metric among them is better
    with a confidence of `CONFIDENCE`; or if several others are together: in that share of draws of the samples one of
    those that cost no more, and are not beaten by a single one, is better. So a cheap candidate that was lucky on the
    search split takes no other from the front alone, and the front does not fill with candidates that some other one
    surely beats. Candidates that equal a non-dominated one in all that was measured are beaten.

    Args:
        pool: Candidates, with the quality or another metric among the objectives.
        before: Comparisons at an earlier moment of the same study, which save time and change nothing.

    Returns:
        Position of a candidate -> position of the best non-dominated one that it is as good as; and all comparisons.
    """
    before, noisy, front = before or Comparisons(), Noisy.of(pool.problem), np.flatnonzero(pool.strict)
    left, rivals, beaten_by, cleared = _not_surely_beaten(pool, front, before, noisy)
    # Doubts are not transitive: what dominates a candidate is dominated by a member that does not.
    some = np.asarray(rivals.any(axis=1))
    some[[*_twins(pool, left, front, rivals)]] = False
    quality = noisy.columns[noisy.first]
    gains = pool.points[left, quality][:, None] - pool.points[front, quality]
    best = front[np.where(rivals, gains, -np.inf)[some].argmax(axis=1)] if some.any() else front[:0]
    found = left[some]
    likely, drawn = are_likely(pool, found, front, noisy, before.drawn)
    as_good = dict(zip(found[likely].tolist(), best[likely].tolist(), strict=True))
    return as_good, Comparisons(beaten_by, cleared, drawn)


def _not_surely_beaten(
    pool: Pool, front: np.ndarray, before: Comparisons, noisy: Noisy
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Pairs]:
    """Find the dominated candidates that no member of the front beats beyond noise.

    Returns:
        Their positions; the members that cost no more and are no worse, bool [candidates, members]; and what is known
        of all by now: who is beaten by whom, and which members beat none of these candidates.
    """
    names, points, doubt = pool.names, pool.points, pool.in_doubt
    beaten_by = np.full(max(int(names.max(initial=-1)) + 1, len(before.beaten_by)), -1, dtype=np.int64)
    beaten_by[: len(before.beaten_by)] = before.beaten_by
    dominated = np.flatnonzero(~pool.strict & (np.isfinite(points) | doubt).all(axis=1))
    left = dominated[~_still_beaten(pool, dominated, places_in(names, beaten_by[names[dominated]]))]
    rivals = _every((points[front] <= points[left, None]) | doubt[left, None])
    cleared = before.cleared.at(names[left], names[front])
    fresh = rivals & ~cleared
    rows, columns = np.flatnonzero(fresh.any(axis=1)), np.flatnonzero(fresh.any(axis=0))
    by = _surely_better(pool, left[rows], front[columns], fresh[np.ix_(rows, columns)], noisy)
    beaten_by[names[left[rows[by >= 0]]]] = names[by[by >= 0]]
    stays = np.ones(len(left), dtype=bool)
    stays[rows[by >= 0]] = False
    left, rivals, cleared = left[stays], rivals[stays], cleared[stays]
    return left, rivals, beaten_by, Pairs(names[left], names[front], cleared | rivals)


def _still_beaten(pool: Pool, places: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Tell which candidates are still dominated by the one that was better beyond noise. by: -1 where there was none.

    It has to be a member of the front, as what is dominated in costs in doubt may be beaten by none of them.
    """
    found = by >= 0
    ones, others = places[found], by[found]
    no_worse = _every((pool.points[others] <= pool.points[ones]) | pool.in_doubt[ones])
    found[found] = pool.strict[others] & no_worse
    return found


def _surely_better(pool: Pool, places: np.ndarray, members: np.ndarray, rivals: np.ndarray, noisy: Noisy) -> np.ndarray:
    """Find for each candidate a member that is better beyond noise in every metric; -1 where none is. Int [places].

    rivals: whether a member may beat a candidate, bool [places, members].
    """
    found, independent = np.full(len(places), -1, dtype=np.int64), noisy.independent(pool.records)
    for start in range(0, len(places), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        first = _first_better(pool, places[part], members, rivals[part], noisy, independent)
        found[part] = np.where(first >= 0, members[first], -1)
    return found


def _first_better(  # what `_surely_better` has
    pool: Pool, places: np.ndarray, members: np.ndarray, rivals: np.ndarray, noisy: Noisy, independent: bool
) -> np.ndarray:
    """Find the number of such a member: nearly always by bounds of the error of the difference, else by the error."""
    columns, metrics, confident = np.array(noisy.columns), noisy.metrics, quantile()
    gains = pool.points[np.ix_(places, columns)][:, None] - pool.points[np.ix_(members, columns)]
    some, others = ([pool.records[place].search for place in part.tolist()] for part in (places, members))
    own, theirs = (np.array([[one.error_of(name) for name in metrics] for one in part]) for part in (some, others))
    # No error is larger than root two of the sum; where noise is independent, it is the root of the sum of squares.
    most = np.hypot(own[:, None], theirs) if independent else np.sqrt(2) * (own[:, None] + theirs)
    first = _first(rivals & _every(gains >= confident * most))
    rows = np.flatnonzero(first < 0)
    if independent or not len(rows):
        return first
    near = [some[row] for row in rows.tolist()]
    bounds = [bound_errors(near, others, name) for name in metrics]
    least, most = (np.stack(bound, axis=2) for bound in zip(*bounds, strict=True))
    first[rows] = _first(rivals[rows] & _every(gains[rows] >= confident * most))
    unclear = rivals[rows] & (first[rows] < 0)[:, None] & _every(gains[rows] >= confident * least)
    ones, columns_of = np.nonzero(unclear)
    pairs = [near[one] for one in ones.tolist()], [others[other] for other in columns_of.tolist()]
    errors = np.stack([pair_errors(*pairs, name) for name in metrics], axis=1)
    better = _every(gains[rows[ones], columns_of] >= confident * errors)
    first[rows[ones[better]]] = columns_of[better]
    return first


def _first(found: np.ndarray) -> np.ndarray:
    """Return the first place in each row that holds; -1 where none does."""
    return np.where(found.any(axis=1), found.argmax(axis=1), -1)


def _every(found: np.ndarray) -> np.ndarray:
    """Tell where all of the last axis hold, which has a few entries: much faster than `all` over it."""
    return functools.reduce(np.logical_and, (found[..., place] for place in range(found.shape[-1])))


def _twins(pool: Pool, places: np.ndarray, front: np.ndarray, rivals: np.ndarray) -> Iterator[int]:
    """List the numbers of the candidates that equal a rival in each objective and each sample."""
    equal = rivals & _every(pool.points[front] == pool.points[places, None])
    for one, other in zip(*(part.tolist() for part in np.nonzero(equal)), strict=True):
        a, b = pool.records[places[one]].search, pool.records[front[other]].search
        if a.deviations == b.deviations and a.metric_deviations == b.metric_deviations:
            yield one
