"""Candidates that are beaten within noise only: they stay on the front, marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autoprune.records.candidate import CandidateRecord
from autoprune.records.confidence import CONFIDENCE
from autoprune.records.objectives import QUALITY
from autoprune.records.paired import difference_errors, draw_changes, quantile
from autoprune.records.problem import Problem

#: Draws of the samples.
_DRAWS = 400


def find_as_good(
    records: Sequence[CandidateRecord], points: np.ndarray, strict: np.ndarray, in_doubt: np.ndarray, problem: Problem
) -> dict[int, int]:
    """Find the dominated candidates that may be non-dominated all the same, as far as the samples tell.

    A candidate is beaten if a non-dominated one is no worse in any objective, and its quality is better with a
    confidence of `CONFIDENCE`; or if several others are together: in that share of draws of the samples one of those
    that cost no more, and are not beaten by a single one, is better. So a cheap candidate that was lucky on the search
    split takes no other from the front alone, and the front does not fill with candidates that some other one surely
    beats. Candidates that equal a non-dominated one in all that was measured are beaten.

    Args:
        records: Candidates.
        points: Their losses [records, objectives]; lower is better.
        strict: Whether each is non-dominated, bool [records].
        in_doubt: Losses that decide nothing, bool [records, objectives].
        problem: Problem of the study, with the quality among its objectives.

    Returns:
        Position of a candidate -> position of the best non-dominated one that it is as good as.
    """
    found, z, quality = {}, quantile(), problem.objectives.index(QUALITY)
    errors = np.array([record.search.quality_error for record in records])
    front = np.flatnonzero(strict)
    for here in np.flatnonzero(~strict & (np.isfinite(points) | in_doubt).all(axis=1)).tolist():
        rivals = front[((points[front] <= points[here]) | in_doubt[here]).all(axis=1)]
        gains = points[here, quality] - points[rivals, quality]
        # No error of a difference is larger than this.
        if (gains >= z * np.sqrt(2) * (errors[here] + errors[rivals])).any():
            continue
        noise = z * difference_errors(records[here].search, [records[rival].search for rival in rivals])
        if (gains < noise).all() and not any(_are_equal(records, points, here, rival) for rival in rivals.tolist()):
            found[here] = int(rivals[np.argmax(gains)])
    return _likely(found, records, points, front, in_doubt, problem)


def _likely(  # what `find_as_good` has, and what it found
    found: Mapping[int, int],
    records: Sequence[CandidateRecord],
    points: np.ndarray,
    front: np.ndarray,
    in_doubt: np.ndarray,
    problem: Problem,
) -> dict[int, int]:
    """Keep the candidates that are non-dominated in enough draws of the samples; a tie counts half."""
    known = [*found, *front.tolist()]
    moved = draw_changes([records[place].search for place in known], _DRAWS) if found else None
    if moved is None:
        return dict(found)
    quality = problem.objectives.index(QUALITY)
    drawn = points[known, quality] + problem.quality.loss(1.0) * moved[0]
    costs, near, kept = np.arange(points.shape[1]) != quality, points[known], {}
    for column, here in enumerate(found):
        no_worse = ((near <= points[here]) | in_doubt[here])[:, costs].all(axis=1)
        no_worse[column] = False
        ahead = drawn[:, no_worse].min(axis=1) - drawn[:, column]
        if (np.sign(ahead) + 1).mean() / 2 >= 1 - CONFIDENCE:
            kept[here] = found[here]
    return kept


def _are_equal(records: Sequence[CandidateRecord], points: np.ndarray, one: int, other: int) -> bool:
    """Tell whether two candidates are equal in everything that was measured."""
    same = records[one].search.deviations == records[other].search.deviations
    return same and bool((points[one] == points[other]).all())
