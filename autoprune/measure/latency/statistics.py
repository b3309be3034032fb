"""Means and intervals of times that were measured in bursts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from scipy.special import stdtrit

#: Share of the bursts that the trimmed mean leaves out at each end.
_TRIMMED = 0.2
_CONFIDENCE = 0.95
#: Largest correlation of neighbours that a few bursts are believed to have.
_MOST_ALIKE = 0.9


def trimmed_mean(values: Sequence[float]) -> tuple[float, float]:
    """Compute the mean without a fifth of the values at each end, and half the width of its 95 % interval.

    The standard error is that of Tukey and McLaughlin (1963): with g of n values left out at each end and the standard
    deviation s of the values of which those g are replaced by the nearest one that stays,
    `s / ((1 - 2 g / n) sqrt(n))`, with n - 2 g - 1 degrees of freedom.

    Args:
        values: One or more numbers.

    Returns:
        The mean, and the half width: infinite for one value.
    """
    ordered = sorted(values)
    count = len(ordered)
    left_out = int(_TRIMMED * count)
    stay = ordered[left_out : count - left_out]
    mean = sum(stay) / len(stay)
    if len(stay) == 1:
        return mean, math.inf
    replaced = [stay[0]] * left_out + stay + [stay[-1]] * left_out
    centre = sum(replaced) / count
    deviation = math.sqrt(sum((value - centre) ** 2 for value in replaced) / (count - 1))
    error = deviation / ((1 - 2 * left_out / count) * math.sqrt(count))
    return mean, float(stdtrit(len(stay) - 1, (1 + _CONFIDENCE) / 2)) * error


def burst_mean(values: Sequence[float]) -> tuple[float, float]:
    """Compute the trimmed mean of bursts, and half its 95 % interval, widened where bursts resemble the ones before.

    With a correlation r of neighbours, the mean of n values is as uncertain as that of n (1 - r) / (1 + r) independent
    ones (Bartlett, 1946). The correlation is taken of the values without outliers, plus 1 / n, its bias.

    Args:
        values: One or more numbers, in the order of time.

    Returns:
        The mean, and the half width: infinite for one value.
    """
    mean, half_width = trimmed_mean(values)
    return mean, half_width * math.sqrt(_dependence(values))


def _dependence(values: Sequence[float]) -> float:
    """By how much the variance of the mean grows since neighbours are alike, >= 1."""
    ordered, count = sorted(values), len(values)
    left_out = int(_TRIMMED * count)
    low, high = ordered[left_out], ordered[count - 1 - left_out]
    inside = [min(max(value, low), high) for value in values]
    centre = sum(inside) / count
    apart = [value - centre for value in inside]
    spread = sum(value**2 for value in apart)
    if count < 3 or spread == 0:
        return 1.0
    alike = sum(a * b for a, b in pairwise(apart)) / spread + 1 / count
    alike = min(max(alike, 0.0), _MOST_ALIKE)
    return (1 + alike) / (1 - alike)


def another(half_width: float, between: float) -> float:
    """Widen the half width of an interval so that it covers what another measurement of the same kind would give.

    The difference of two measurements has twice the variance of one; a part of it shows only between processes.

    Args:
        half_width: Half the 95 % interval of one measurement.
        between: Standard deviation between processes.

    Returns:
        Half the interval in which another measurement falls.
    """
    return math.sqrt(2 * (half_width**2 + (1.96 * between) ** 2))
