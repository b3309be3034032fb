"""Non-dominated set and hypervolume, by moocore."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import moocore
import numpy as np

from autoprune.errors import UnknownNameError
from autoprune.front.record import CandidateRecord
from autoprune.measure.measurement import COSTS

OBJECTIVES = ("quality", *COSTS)


def check_objectives(names: Sequence[str]) -> None:
    """Raise UnknownNameError for the first name that is no objective."""
    for name in names:
        if name not in OBJECTIVES:
            raise UnknownNameError("an objective", name, OBJECTIVES)


def objective_matrix(
    records: Sequence[CandidateRecord], objectives: Sequence[str], higher_is_better: bool
) -> np.ndarray:
    """What dominance compares, float [records, objectives], every column to be minimised.

    Latency enters as its ratio to dense, measured in turn and so free of the machine's drift, rounded to
    the study's own noise: half the median width of its intervals. Two candidates that the clock cannot
    tell apart count as equally quick.
    """
    columns = []
    for name in objectives:
        if name == "latency_ms":
            columns.append(_latency(records))
        else:
            sign = -1.0 if name == "quality" and higher_is_better else 1.0
            columns.append(np.array([sign * record.search.value(name) for record in records]))
    return np.stack(columns, axis=1) if records else np.empty((0, len(objectives)))


def latency_noise(records: Sequence[CandidateRecord]) -> float:
    """Half the median width of the latency ratios' intervals, 0 without measurements."""
    widths = [(m.ratio_high - m.ratio_low) / 2 for record in records if (m := record.search.latency) is not None]
    return float(np.median(widths)) if widths else 0.0


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Mask bool [n] of the points [n, d] that no other one dominates, all minimised; of equal points the first."""
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    finite = np.isfinite(points).all(axis=1)
    mask = np.zeros(len(points), dtype=bool)
    if finite.any():
        mask[np.flatnonzero(finite)] = moocore.is_nondominated(points[finite], keep_weakly=False)
    return mask


def pareto_ranks(points: np.ndarray) -> np.ndarray:
    """Int [n]: the layer of each of the points [n, d], all minimised and finite; 0 is that of the front.

    Source: Deb, Pratap, Agarwal, Meyarivan, A fast and elitist multiobjective genetic algorithm: NSGA-II, 2002.
    """
    return np.asarray(moocore.pareto_rank(points))


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """Volume that points [n, d], all minimised, dominate up to a reference; 0 when none does."""
    inside = (
        points[np.isfinite(points).all(axis=1) & (points < np.asarray(reference)).all(axis=1)]
        if len(points)
        else points
    )
    return float(moocore.hypervolume(inside, ref=list(reference))) if len(inside) else 0.0


def growing_hypervolume(points: np.ndarray, reference: Sequence[float]) -> np.ndarray:
    """Compute the hypervolume after each of the points, which come one by one.

    A point that one before it dominates, or equals, changes nothing; only after the others the volume of the front,
    which is small, is computed anew.

    Args:
        points: [n, d], all minimised; those that are not finite count for nothing.
        reference: up to where volume counts, d numbers.

    Returns:
        float [n], never falling.

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


def _latency(records: Sequence[CandidateRecord]) -> np.ndarray:
    """Candidates of the same widths are the same network: they share the median of their ratios."""
    noise = latency_noise(records)
    measured: dict[object, list[float]] = defaultdict(list)
    for record in records:
        if record.search.latency is not None:
            measured[record.architecture].append(record.search.latency.ratio)
    ratios = np.array([np.median(measured.get(record.architecture, [np.nan])) for record in records])
    return np.round(ratios / noise) * noise if noise > 0 else ratios
