"""Non-dominated sets and hypervolumes, by moocore."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import moocore
import numpy as np

from autoprune.errors import UnknownNameError
from autoprune.records.candidate import CandidateRecord
from autoprune.records.measurement import COSTS

OBJECTIVES = ("quality", *COSTS)


def check_objectives(names: Sequence[str]) -> None:
    """Check names of objectives.

    Args:
        names: Names to check.

    Raises:
        UnknownNameError: For the first name that is no objective.
    """
    for name in names:
        if name not in OBJECTIVES:
            raise UnknownNameError("an objective", name, OBJECTIVES)


def objective_matrix(
    records: Sequence[CandidateRecord], objectives: Sequence[str], higher_is_better: bool
) -> np.ndarray:
    """Collect the values that dominance compares; every column is minimised.

    Latency enters as its ratio to dense, which is measured in turn and so free of the machine's drift, rounded to the
    study's noise: half the median width of its intervals. Two candidates that the clock cannot tell apart are equal.

    Args:
        records: Candidates of a study.
        objectives: Names of objectives.
        higher_is_better: Direction of the quality.

    Returns:
        Float [records, objectives].
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
    """Compute half the median width of the intervals of the latency ratios.

    Args:
        records: Candidates of a study.

    Returns:
        The noise of a ratio; 0 without measurements.
    """
    widths = [(m.ratio_high - m.ratio_low) / 2 for record in records if (m := record.search.latency) is not None]
    return float(np.median(widths)) if widths else 0.0


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


def _latency(records: Sequence[CandidateRecord]) -> np.ndarray:
    """Give candidates of the same widths, which are the same network, the median of their ratios."""
    noise = latency_noise(records)
    measured: dict[object, list[float]] = defaultdict(list)
    for record in records:
        if record.search.latency is not None:
            measured[record.architecture].append(record.search.latency.ratio)
    ratios = np.array([np.median(measured.get(record.architecture, [np.nan])) for record in records])
    return np.round(ratios / noise) * noise if noise > 0 else ratios
