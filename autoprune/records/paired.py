"""Noise of differences in quality: candidates see the same samples, so most of their luck is common.

Each fold of the samples moves the quality of a candidate by its deviation. The standard error of a difference is the
root of the summed squares of the differences of deviations. Where these are unknown, as in older records, the two
errors count as independent, which is cautious.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from autoprune.errors import ConfigurationError, error_message
from autoprune.records.confidence import CONFIDENCE
from autoprune.records.measurement import HIGHEST, Measurement

#: Relative error beyond which numbers are not those of rounding.
_CLEAR = 1e-6
#: Independent changes are drawn for so many measurements at a time, and kept for later ones.
_ROWS = 256


def quantile(confidence: float = CONFIDENCE) -> float:
    """Compute how many standard errors a difference must have.

    Args:
        confidence: One-sided confidence, in [0.5, 1); 0.5 takes every measured difference.

    Returns:
        Quantile of the normal distribution.

    Raises:
        ConfigurationError: Another confidence.

    Example:
        >>> round(quantile(0.9), 2)
        1.28
    """
    if not 0.5 <= confidence < 1:
        remedy = "0.5 takes the measured quality as it is."
        raise ConfigurationError(error_message("the confidence", "lie in [0.5, 1)", repr(confidence), remedy))
    return NormalDist().inv_cdf(confidence)


def difference_error(one: Measurement, other: Measurement, metric: str = "") -> float:
    """Compute the standard error of the difference of two qualities on the same split.

    Args:
        one: Measurement of a candidate.
        other: Measurement of another one.
        metric: Name of a further metric in place of the quality.

    Returns:
        The standard error, see `difference_errors`.
    """
    return float(difference_errors(one, [other], metric)[0])


def difference_errors(one: Measurement, others: Sequence[Measurement], metric: str = "") -> np.ndarray:
    """Compute the standard errors of the differences between one quality and others on the same split.

    The fold in which two candidates differ most counts twice: a few samples that differ say little about how many will.
    For one sample a fold and a share such as accuracy, this is the adjustment of Agresti and Min, Simple improved
    confidence intervals for comparing matched proportions, 2005. Where no fold tells two candidates apart, the one that
    moves either most counts.

    Args:
        one: Measurement of a candidate.
        others: Measurements of others.
        metric: Name of a further metric in place of the quality.

    Returns:
        Float [others]; 0 for the same measurement, and where no error is known.
    """
    return pair_errors([one] * len(others), others, metric)


def pair_errors(ones: Sequence[Measurement], others: Sequence[Measurement], metric: str = "") -> np.ndarray:
    """Compute the standard errors of the differences of pairs of qualities, see `difference_errors`.

    Args:
        ones: Measurements on one split.
        others: As many others on the same split.
        metric: Name of a further metric in place of the quality.

    Returns:
        Float [pairs]; 0 for the same measurement, and where no error is known.
    """
    found = np.hypot([one.error_of(metric) for one in ones], [other.error_of(metric) for other in others])
    own, theirs = ([one.deviations_array(metric) for one in some] for some in (ones, others))
    folds = np.array([len(a) if len(a) == len(b) else 0 for a, b in zip(own, theirs, strict=True)])
    for count in {*folds.tolist()} - {0}:
        places = np.flatnonzero(folds == count)
        found[places] = _errors_of_folds(*(np.array([some[place] for place in places]) for some in (own, theirs)))
    found[[one is other for one, other in zip(ones, others, strict=True)]] = 0.0
    return found


def _errors_of_folds(own: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Compute the errors of pairs of deviations, float [pairs, folds]."""
    differences = np.abs(theirs - own)
    largest = differences.max(axis=1)
    alike = np.maximum(np.abs(own).max(axis=1), np.abs(theirs).max(axis=1))
    return np.asarray(np.sqrt((differences**2).sum(axis=1) + np.where(largest > 0, largest, alike) ** 2))


def bound_errors(
    ones: Sequence[Measurement], others: Sequence[Measurement], metric: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Bound the standard errors of the differences of all pairs, see `difference_errors`, by one product of matrices.

    Args:
        ones: Measurements on one split.
        others: Others on the same split.
        metric: Name of a further metric in place of the quality.

    Returns:
        Lower and upper bounds, float [ones, others].
    """
    errors, theirs = (np.array([one.error_of(metric) for one in some]) for some in (ones, others))
    high = np.sqrt(2) * (errors[:, None] + theirs)
    lengths = {len(one.deviations_of(metric)) for one in (*ones, *others)}
    if not (ones and others) or len(lengths) != 1 or not (folds := lengths.pop()):
        return np.zeros_like(high), high
    a, b = (np.stack([one.deviations_array(metric) for one in some]) for some in (ones, others))
    sizes = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)
    squares = np.maximum(sizes - 2 * a @ b.T, 0.0)
    clear = squares > _CLEAR * sizes  # else rounding decides
    # The largest of the squares that are added up counts twice: it is at least their mean, and at most their sum.
    low = np.where(clear, np.sqrt(squares * (1 + 1 / folds)) * (1 - _CLEAR), 0.0)
    return low, np.where(clear, np.sqrt(2 * squares) * (1 + _CLEAR), high)


def draw_changes(
    measurements: Sequence[Measurement], draws: int, metric: str = ""
) -> tuple[np.ndarray, np.ndarray] | None:
    """Draw how much qualities change on a draw of the samples with replacement, and on the samples not drawn.

    Every measurement sees the same draws, and so does every metric with as many folds. Where deviations are unknown,
    qualities change independently.

    Args:
        measurements: Measurements on the same split.
        draws: Number of draws.
        metric: Name of a further metric in place of the quality.

    Returns:
        Two of float [draws, measurements]; None where no error is known.
    """
    lengths = {len(one.deviations_of(metric)) for one in measurements}
    if len(lengths) == 1 and (folds := lengths.pop()) > 1:
        deviations = np.stack([one.deviations_array(metric) for one in measurements], axis=1)
        counts, left = _draws(folds, draws)
        return counts @ deviations, left @ deviations
    errors = np.array([one.error_of(metric) for one in measurements])
    errors = np.where(errors < HIGHEST, errors, 0.0)
    if not errors.any():
        return None
    # The same of many independent samples: the two have the covariance -1, and the variances 1 and e - 1.
    rows = math.ceil(len(measurements) / _ROWS) * _ROWS
    drawn, left = (part[: len(errors)].T * errors for part in _independent_draws(rows, draws))
    return drawn, left


def draw_change(measurement: Measurement, draws: int, metric: str = "") -> np.ndarray:
    """Draw how much a quality changes on a draw of the samples with replacement, as `draw_changes` does.

    Equal deviations change equally to the last bit, whatever else is drawn.

    Args:
        measurement: Measurement whose deviations are known for more than one fold.
        draws: Number of draws.
        metric: Name of a further metric in place of the quality.

    Returns:
        Float [draws].
    """
    deviations = measurement.deviations_array(metric)
    return np.asarray(_draws(len(deviations), draws)[0] @ deviations)


@functools.lru_cache(maxsize=4)
def _independent_draws(rows: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw independent changes for errors of 1, float [rows, draws]; a row is the same whatever the number of rows."""
    numbers = np.random.default_rng(0).normal(size=(rows, 2, draws))
    drawn, other = numbers[:, 0], numbers[:, 1]
    return drawn, math.sqrt(math.e - 2) * other - drawn


@functools.lru_cache(maxsize=8)
def _draws(folds: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights of the deviations, float [draws, folds]: for a draw of the folds, and for those not drawn."""
    counts = np.random.default_rng(0).multinomial(folds, np.full(folds, 1 / folds), size=draws)
    counts = counts[(counts == 0).any(axis=1)]
    absent = counts == 0
    return counts - 1.0, absent * (folds / absent.sum(axis=1, keepdims=True))
