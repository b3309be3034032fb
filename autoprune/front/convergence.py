"""Convergence of a front: hypervolume against candidates, samples processed and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autoprune.errors import UnknownNameError
from autoprune.front.front import Front

#: Column -> its values, one for each candidate of a study or place along an axis.
Curve = Mapping[str, np.ndarray]
#: Measures of progress against which hypervolume is drawn.
PROGRESS_AXES = ("candidates", "samples", "seconds")


def worst_quality(fronts: Sequence[Front]) -> float:
    """Find the worst finite quality in any of the studies, as one reference for all of them.

    Args:
        fronts: Fronts of the studies, of the same metric.

    Returns:
        The quality; 0 when there is none.
    """
    values = [record.search.quality for front in fronts for record in front.records]
    finite = [value for value in values if np.isfinite(value)]
    return fronts[0].problem.quality.worst(finite) if finite else 0.0


def convergence(
    front: Front, *, cost: str = "multiply_adds", reference: float | None = None, start: tuple[int, float] = (0, 0.0)
) -> Curve:
    """Compute the hypervolume after each candidate.

    Args:
        front: Front of a study.
        cost: Cost axis of the hypervolume, see Front.hypervolume.
        reference: Quality at which the hypervolume is 0; the worst quality when None.
        start: (samples, seconds) spent before the first candidate, such as by a scan.

    Returns:
        Columns with a value for each candidate: candidates, samples (processed so far, by forwards or in training),
        seconds (spent so far), hypervolume.
    """
    worst = worst_quality([front]) if reference is None else reference
    records = front.records
    own = np.cumsum([record.samples_forward + record.samples_trained for record in records], dtype=np.int64)
    shared = np.maximum.accumulate(np.array([record.samples_shared for record in records], dtype=np.int64))
    seconds = np.cumsum([sum(record.seconds.values()) for record in records], dtype=float)
    return {
        "candidates": np.arange(1, len(records) + 1),
        "samples": start[0] + own + shared,
        "seconds": start[1] + seconds,
        "hypervolume": front.hypervolumes(cost, worst),
    }


def hypervolume_band(curves: Sequence[Curve], *, by: str = "samples", points: int = 60) -> Curve:
    """Compute median, lowest and highest hypervolume of several studies at the same positions.

    A study counts with its last hypervolume before the position, 0 before its first candidate. Positions end with the
    shortest study.

    Args:
        curves: Results of `convergence`.
        by: One of PROGRESS_AXES.
        points: Number of positions, >= 1.

    Returns:
        Columns `by`, median, low, high.

    Raises:
        UnknownNameError: For another axis.
    """
    if by not in PROGRESS_AXES:
        raise UnknownNameError("an axis of progress", by, PROGRESS_AXES)
    reach = min((float(curve[by][-1]) for curve in curves if len(curve[by])), default=0.0)
    places = np.linspace(0.0, reach, points)
    values = np.array([_at(curve, by, places) for curve in curves]).reshape(len(curves), points)
    middle, low, high = (
        (np.median(values, axis=0), values.min(axis=0), values.max(axis=0)) if len(curves) else (places * 0.0,) * 3
    )
    return {by: places, "median": middle, "low": low, "high": high}


def _at(curve: Curve, by: str, places: np.ndarray) -> np.ndarray:
    position = np.searchsorted(curve[by].astype(float), places, side="right")
    return np.concatenate([[0.0], curve["hypervolume"].astype(float)])[position]
