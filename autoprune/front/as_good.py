"""Candidates that are beaten within noise only: they stay on the front, marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.records.candidate import CandidateRecord
from autoprune.records.paired import difference_errors, quantile


def find_as_good(
    records: Sequence[CandidateRecord], points: np.ndarray, strict: np.ndarray, in_doubt: np.ndarray, quality: int
) -> dict[int, int]:
    """Find the dominated candidates whose quality is not worse beyond noise than that of each one that dominates them.

    A candidate is beaten if a non-dominated one is no worse in any objective, and its quality is better with a
    confidence of `CONFIDENCE`. A cheap candidate that was lucky on the search split therefore takes no
    other from the front. Candidates that equal a non-dominated one in all that was measured are beaten.

    Args:
        records: Candidates.
        points: Their losses [records, objectives]; lower is better.
        strict: Whether each is non-dominated, bool [records].
        in_doubt: Losses that decide nothing, bool [records, objectives].
        quality: Column of the quality.

    Returns:
        Position of a candidate -> position of the best non-dominated one that it is as good as.
    """
    found, z = {}, quantile()
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
    return found


def _are_equal(records: Sequence[CandidateRecord], points: np.ndarray, one: int, other: int) -> bool:
    """Tell whether two candidates are equal in everything that was measured."""
    same = records[one].search.deviations == records[other].search.deviations
    return same and bool((points[one] == points[other]).all())
