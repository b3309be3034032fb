"""Correct the sensitivity scan with the quality losses of finished trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from autoprune.records.candidate import CandidateRecord, dense_record
from autoprune.records.objectives import Objective
from autoprune.records.sensitivity import Sensitivity

#: With fewer finished candidates the scan is not corrected.
MIN_TRIALS_FOR_CORRECTION = 10
#: Largest correction factor of a group's losses, in either direction.
MAX_FACTOR = 4.0
#: Prior spreads of the logarithm of the factors, 0 for no correction; folds of the cross-validation.
_SPREADS, _FOLDS = (0.0, 0.25, 0.5, 1.0), 5
#: Lower bound of the noise of a loss's logarithm; steps of a fit; lower bound of the link's slope.
_NOISE, _STEPS, _LEAST_SLOPE = 0.1, 12, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One finished candidate.

    Attributes:
        keep: Group name -> share of its channels that stays.
        lost: Quality lost against dense, in the metric's unit; positive is worse.
        noise: Standard error of `lost`.
        trained: Samples that the candidate and its ancestors were trained with.
    """

    keep: Mapping[str, float]
    lost: float
    noise: float
    trained: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedScan:
    """A sensitivity scan after the correction.

    Attributes:
        sensitivity: The scan with each group's losses multiplied by its factor.
        factors: Group name -> factor, in [1 / MAX_FACTOR, MAX_FACTOR]; all 1 without sufficient evidence.
        observations: Number of finished candidates behind it.
    """

    sensitivity: Sensitivity
    factors: Mapping[str, float]
    observations: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", MappingProxyType(dict(self.factors)))


def observe(
    records: Sequence[CandidateRecord], dense_widths: Mapping[str, int], quality: Objective
) -> list[Observation]:
    """Collect the observations of finished candidates.

    Left out are candidates with dropped blocks or masks, candidates that were stopped early or have no finite quality,
    and
    candidates of dense widths.

    Args:
        records: Finished candidates.
        dense_widths: Group name -> dense width.
        quality: Objective of the quality.

    Returns:
        The observations; none before the dense model is measured.
    """
    dense = dense_record(records)
    if dense is None:
        return []
    return [
        Observation(
            keep={name: kept.get(name, width) / width for name, width in dense_widths.items()},
            lost=quality.gain(dense.search.quality, record.search.quality),
            noise=record.search.quality_error,
            trained=record.lineage_trained,
        )
        for record, kept in ((record, record.widths) for record in records)
        if not record.dropped
        and record.plan.weights is None
        and not record.stopped
        and math.isfinite(dense.search.quality - record.search.quality)
        and any(kept.get(name, width) < width for name, width in dense_widths.items())
    ]


def correct_scan(sensitivity: Sensitivity, observations: Sequence[Observation]) -> CorrectedScan:
    """Correct a scan with the quality losses of finished candidates. Deterministic.

    log(lost) = a + c x + d x^2 + e log(samples trained) with x = log(sum over groups of e^b_g added_g) is fitted by
    Gauss-Newton, with a ridge on b towards 0: without evidence a factor e^b stays 1. The ridge is the one that predicts
    held-out candidates best. All factors are 1 if no correction predicts them clearly better than the uncorrected scan,
    with fewer than MIN_TRIALS_FOR_CORRECTION observations, or if none lost quality. c and d are there because quality
    is
    not loss and saturates.
    Source of the ridge: Hoerl and Kennard, Ridge regression, 1970.

    Args:
        sensitivity: The scan.
        observations: Finished candidates, from `observe`.

    Returns:
        The corrected scan.
    """
    names = list(sensitivity.added_loss)
    clear = [one for one in observations if one.lost > 0]
    if len(observations) < MIN_TRIALS_FOR_CORRECTION or not clear or not names:
        return CorrectedScan(sensitivity=sensitivity, factors=dict.fromkeys(names, 1.0), observations=len(observations))
    shares = {name: np.array([one.keep.get(name, 1.0) for one in observations]) for name in names}
    added = np.stack([sensitivity.curve(name, shares[name]) for name in names], axis=1)
    # A loss below half the noise is no evidence.
    least = 0.01 * max(one.lost for one in clear)
    floors = [max(one.noise / 2, least) for one in observations]
    lost = np.array([max(one.lost, floor) for one, floor in zip(observations, floors, strict=True)])
    trained = np.log1p([float(one.trained) for one in observations])
    noise = np.array([one.noise for one in observations]) / lost
    data = _Data(
        added=added, lost=np.log(lost), trained=trained - trained.mean(), weights=1.0 / np.hypot(1.0, noise / _NOISE)
    )
    factors = np.exp(_fit(data))
    scaled = {
        name: tuple(loss * float(factor) for loss in sensitivity.added_loss[name])
        for name, factor in zip(names, factors, strict=True)
    }
    return CorrectedScan(
        sensitivity=replace(sensitivity, added_loss=scaled),
        factors=dict(zip(names, factors.tolist(), strict=True)),
        observations=len(observations),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Data:
    """added: [n, groups]. lost, trained: logarithms [n]. weights: of the errors, 1 without noise [n]."""

    added: np.ndarray
    lost: np.ndarray
    trained: np.ndarray
    weights: np.ndarray

    def of(self, rows: np.ndarray) -> _Data:
        """Select some of the observations."""
        return _Data(
            added=self.added[rows], lost=self.lost[rows], trained=self.trained[rows], weights=self.weights[rows]
        )

    def link(self, found: np.ndarray) -> np.ndarray:
        """Columns of the link between added loss and the logarithm of the lost quality, [n, 4]."""
        x = np.log(self.added @ np.exp(found))
        return np.stack([np.ones_like(x), x, x**2, self.trained], axis=1)


def _fit(data: _Data) -> np.ndarray:
    """Logarithms of the factors, [groups], by the ridge that predicts held-out candidates best; 0 if none helps."""
    errors = np.array([_left_out(data, spread) for spread in _SPREADS])
    best = int(np.argmin(errors.mean(axis=1)))
    # The gain must exceed its standard error, or nothing is corrected.
    gain = errors[0] - errors[best]
    if gain.mean() <= gain.std() / math.sqrt(len(gain)):
        return np.zeros(data.added.shape[1])
    return _ridge(data, _SPREADS[best])[0]


def _left_out(data: _Data, spread: float) -> np.ndarray:
    """Squared weighted errors of held-out candidates, [n]."""
    errors = np.zeros(len(data.lost))
    for part in range(_FOLDS):
        out = np.arange(len(errors)) % _FOLDS == part
        found, link = _ridge(data.of(~out), spread)
        unseen = data.of(out)
        errors[out] = (unseen.weights * (unseen.lost - unseen.link(found) @ link)) ** 2
    return errors


def _ridge(data: _Data, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the factors, and the coefficients of the link. spread: prior spread of the logarithms."""
    found, limit = np.zeros(data.added.shape[1]), math.log(MAX_FACTOR)
    weights, lost = data.weights[:, None], data.weights * data.lost
    for _ in range(_STEPS if spread else 0):
        columns = weights * data.link(found)
        # One SVD for both: columns may be linearly dependent if candidates are alike.
        basis, sizes, turn = np.linalg.svd(columns, full_matrices=False)
        there = sizes > np.finfo(float).eps * len(columns) * sizes[0]
        basis = basis[:, there]
        link = turn[there].T @ (basis.T @ lost / sizes[there])
        left = lost - columns @ link
        parts = data.added * np.exp(found)
        total = parts.sum(axis=1)
        steep = np.maximum(link[1] + 2.0 * link[2] * np.log(total), _LEAST_SLOPE)
        slopes = weights * steep[:, None] * parts / total[:, None]
        slopes -= basis @ (basis.T @ slopes)  # the part that the link explains
        noise = max(float(np.mean(left**2)), _NOISE**2) / spread**2
        step = np.linalg.solve(slopes.T @ slopes + noise * np.eye(len(found)), slopes.T @ (left + slopes @ found))
        found = np.clip(0.5 * (found + step), -limit, limit)
    return found, np.linalg.lstsq(weights * data.link(found), lost, rcond=None)[0]
