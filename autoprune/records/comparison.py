"""Comparison: a cost against the dense model's, both measured in turn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A cost compared with the dense model's, both measured in turn, so free of the machine's drift.

    Attributes:
        ratio: Ratio to the dense model; < 1 is better.
        low: Lower end of the ratio's 95 % interval.
        high: Upper end of the ratio's 95 % interval.
        dense: Number of the dense model.
        doubts: Reasons not to trust the measurement, in sentences. What is in doubt decides nothing.
        predicted: Whether the latency model of the device gave it, so that nothing was timed.
    """

    ratio: float
    low: float
    high: float
    dense: float
    doubts: tuple[str, ...] = ()
    predicted: bool = False

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against the measurement."""
        return not self.doubts

    @property
    def remark(self) -> str:
        """Words behind the ratio: ", predicted" or ", in doubt"; "" for a trusted measurement."""
        return ", predicted" if self.predicted else "" if self.trusted else ", in doubt"

    @property
    def text(self) -> str:
        """The ratio with its interval; without one for the dense model against itself."""
        return f"{self.ratio:.2f} ({self.interval})" if self.low != self.high else f"{self.ratio:.2f}"

    @property
    def interval(self) -> str:
        """The 95 % interval of the ratio."""
        return f"{self.low:.2f} to {self.high:.2f}"

    @property
    def with_itself(self) -> Comparison:
        """The comparison of the dense model with itself, whose ratio is 1 also where its times are in doubt."""
        return replace(self, ratio=1.0, low=1.0, high=1.0, doubts=())

    @property
    def as_measured(self) -> Comparison:
        """The same numbers, taken as measured: without doubts."""
        return replace(self, doubts=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """Number of a call of a model, by its ratio to the dense model's. Intervals say where another measurement falls.

    Attributes:
        value: The dense model's number times the ratio.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        dense: The dense model's number, one for a whole study.
        ratio: Ratio to the dense model.
        ratio_low: Lower end of the ratio's 95 % interval.
        ratio_high: Upper end of the ratio's 95 % interval.
    """

    value: float
    low: float
    high: float
    dense: float
    ratio: float
    ratio_low: float
    ratio_high: float


def typical_noise(half_widths: np.ndarray) -> float:
    """Compute the smallest difference of ratios that can be told from noise.

    Args:
        half_widths: Half the widths of the intervals of measured ratios that are not in doubt; NaN for others.

    Returns:
        Their median; 0 without any.
    """
    known = half_widths[np.isfinite(half_widths)]
    return float(np.median(known)) if len(known) else 0.0


def shared_medians(networks: np.ndarray, ratios: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the median of the ratios of each network, for each of its candidates.

    Args:
        networks: Number of the network of each candidate.
        ratios: Ratio of each candidate.
        counted: Whether its ratio counts.

    Returns:
        Float [candidates]; NaN for networks without a ratio that counts.
    """
    found = np.full(len(ratios), np.nan)
    places = np.flatnonzero(counted)
    if not len(places):
        return found
    order = places[np.lexsort((ratios[places], networks[places]))]
    known, first, counts = np.unique(networks[order], return_index=True, return_counts=True)
    low, high = ratios[order[first + (counts - 1) // 2]], ratios[order[first + counts // 2]]
    place = np.minimum(np.searchsorted(known, networks), len(known) - 1)
    there = known[place] == networks
    found[there] = ((low + high) / 2)[place[there]]
    return found


def ratio_numbers(
    plain: Comparison | None, found: Comparison | None, as_measured: bool
) -> tuple[float, float, float, float]:
    """Collect what dominance needs of a ratio to dense. Of all that is compared with dense, less is better.

    Args:
        plain: The comparison with dense; None where nothing was measured.
        found: The same, where the dense model's ratio is 1.
        as_measured: Whether numbers in doubt count, too.

    Returns:
        The ratio, half its interval, whether it was measured, and whether it was predicted; NaN and 0 for what does
        not count.
    """
    if plain is None or found is None:
        return math.nan, math.nan, 0.0, 0.0
    if as_measured:
        plain, found = plain.as_measured, found.as_measured
    width = (plain.high - plain.low) / 2 if plain.trusted and not plain.predicted else math.nan
    if not found.trusted:
        return math.nan, width, 0.0, 0.0
    return found.ratio, width, float(not found.predicted), float(found.predicted)


def ratio_losses(rows: np.ndarray, networks: np.ndarray) -> np.ndarray:
    """Make losses of ratios to dense: those of one network are shared, and all are rounded to their noise.

    Args:
        rows: Results of `ratio_numbers`, [candidates, 4].
        networks: Number of the network of each candidate.

    Returns:
        Float [candidates]; NaN where no ratio counts.
    """
    ratios, widths, measured, predicted = rows.T
    counted = measured > 0
    also = (predicted > 0) & ~np.isin(networks, networks[counted])  # measured ratios go before predicted ones
    ratios = shared_medians(networks, ratios, counted | also)
    noise = typical_noise(widths)
    return np.asarray(np.round(ratios / noise) * noise if noise > 0 else ratios)
