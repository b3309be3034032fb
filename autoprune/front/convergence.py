"""How a front grew: hypervolume against samples processed and against seconds, of one study or of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from autoprune.errors import UnknownNameError
from autoprune.front.front import Front

#: What hypervolume is drawn against.
PROGRESS_AXES = ("candidates", "samples", "seconds")


def worst_quality(fronts: Sequence[Front]) -> float:
    """The worst finite quality in any of the studies: one reference for all of them. 0 when there is none."""
    values = [record.search.quality for front in fronts for record in front.records]
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return 0.0
    return min(finite) if fronts[0].higher_is_better else max(finite)


def convergence(
    front: Front, *, cost: str = "multiply_adds", reference: float | None = None, start: tuple[int, float] = (0, 0.0)
) -> pd.DataFrame:
    """One row after each candidate: candidates, samples, seconds, hypervolume (see Front.hypervolume).

    samples: processed until then, forward or trained. seconds: spent until then. start: (samples, seconds) gone before
    the first candidate, as for a scan. reference: the quality at which the hypervolume is 0; the worst one when None.
    """
    worst = worst_quality([front]) if reference is None else reference
    records = front.records
    own = np.cumsum([record.samples_forward + record.samples_trained for record in records], dtype=np.int64)
    shared = np.maximum.accumulate(np.array([record.samples_shared for record in records], dtype=np.int64))
    seconds = np.cumsum([sum(record.seconds.values()) for record in records], dtype=float)
    return pd.DataFrame(
        {
            "candidates": np.arange(1, len(records) + 1),
            "samples": start[0] + own + shared,
            "seconds": start[1] + seconds,
            "hypervolume": front.hypervolumes(cost, worst),
        }
    )


def hypervolume_band(curves: Sequence[pd.DataFrame], *, by: str = "samples", points: int = 60) -> pd.DataFrame:
    """Median, lowest and highest hypervolume of several studies at the same places: `by`, median, low, high.

    A study counts with the last hypervolume it had there, 0 before its first candidate; places reach as far as the
    shortest study. Raises UnknownNameError for another axis.
    """
    if by not in PROGRESS_AXES:
        raise UnknownNameError("what hypervolume is drawn against", by, PROGRESS_AXES)
    reach = min((float(curve[by].iloc[-1]) for curve in curves if len(curve)), default=0.0)
    places = np.linspace(0.0, reach, points)
    values = np.array([_at(curve, by, places) for curve in curves]).reshape(len(curves), points)
    middle, low, high = (
        (np.median(values, axis=0), values.min(axis=0), values.max(axis=0)) if len(curves) else (places * 0.0,) * 3
    )
    return pd.DataFrame({by: places, "median": middle, "low": low, "high": high})


def first_reaching(curve: pd.DataFrame, hypervolume: float, *, by: str = "samples") -> float:
    """Where a study first has that hypervolume; infinite when it never does."""
    there = curve[curve["hypervolume"] >= hypervolume]
    return float(there[by].iloc[0]) if len(there) else float("inf")


def _at(curve: pd.DataFrame, by: str, places: np.ndarray) -> np.ndarray:
    position = np.searchsorted(curve[by].to_numpy(dtype=float), places, side="right")
    return np.concatenate([[0.0], curve["hypervolume"].to_numpy(dtype=float)])[position]
