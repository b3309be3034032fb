"""Non-dominated sets and hypervolumes, by moocore."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Find the points that no other point dominates; the first of equal points counts.

    Args:
        points: [n, d], all minimised. Points that are not finite are dominated.

    Returns:
        Mask, bool [n].
    """
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    finite = np.isfinite(points).all(axis=1)
    mask = np.zeros(len(points), dtype=bool)
    if finite.any():
        mask[np.flatnonzero(finite)] = moocore.is_nondominated(points[finite], keep_weakly=False)
    return mask


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Compute the ranks of values, from 1; equal values share their mean rank.

    Args:
        values: Finite numbers [n].

    Returns:
        Float [n].
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Compute Spearman's rank correlation, with the mean rank for equal values.

    Args:
        one: Finite numbers [n].
        other: Finite numbers [n].

    Returns:
        The correlation; NaN where all numbers of a side are equal.
    """
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(mean_ranks(one), mean_ranks(other))[0, 1])


def pareto_ranks(points: np.ndarray) -> np.ndarray:
    """Compute the rank of each point; rank 0 is the front.

    Source: Deb, Pratap, Agarwal, Meyarivan, A fast and elitist multiobjective genetic algorithm: NSGA-II, 2002.

    Args:
        points: [n, d], all minimised and finite.

    Returns:
        Int [n].
    """
    return np.asarray(moocore.pareto_rank(points))


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """Compute the volume that points dominate up to a reference.

    Args:
        points: [n, d], all minimised. Points that are not finite do not count.
        reference: End of the volume, d numbers.

    Returns:
        The volume; 0 when no point dominates the reference.
    """
    inside = (
        points[np.isfinite(points).all(axis=1) & (points < np.asarray(reference)).all(axis=1)]
        if len(points)
        else points
    )
    return float(moocore.hypervolume(inside, ref=list(reference))) if len(inside) else 0.0


def growing_hypervolume(points: np.ndarray, reference: Sequence[float]) -> np.ndarray:
    """Compute the hypervolume after each point of a sequence.

    The volume of the front, which is small, is computed only after a point that no earlier point dominates or equals.

    Args:
        points: [n, d], all minimised. Points that are not finite do not count.
        reference: End of the volume, d numbers.

    Returns:
        Float [n], never falling.
    """
    edge = np.asarray(reference, dtype=float)
    inside = (np.isfinite(points) & (points < edge)).all(axis=1)
    volumes, volume = np.zeros(len(points)), 0.0
    front = np.empty((0, len(edge)))
    for position, point in enumerate(points):
        if inside[position] and not (front <= point).all(axis=1).any():
            front = np.vstack([front[~(point <= front).all(axis=1)], point])
            volume = hypervolume(front, reference)
        volumes[position] = volume
    return volumes
