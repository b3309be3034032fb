"""Comparison: a cost against the dense model's, both measured in turn."""

from __future__ import annotations

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
        trusted: Whether nothing speaks against the measurement. What is in doubt decides nothing.
        predicted: Whether the latency model of the device gave it, so that nothing was timed.
    """

    ratio: float
    low: float
    high: float
    dense: float
    trusted: bool = True
    predicted: bool = False

    @property
    def remark(self) -> str:
        """Words behind the ratio: ", predicted" or ", in doubt"; "" for a trusted measurement."""
        return ", predicted" if self.predicted else "" if self.trusted else ", in doubt"

    @property
    def with_itself(self) -> Comparison:
        """The comparison of the dense model with itself, whose ratio is 1 also where its times are in doubt."""
        return replace(self, ratio=1.0, low=1.0, high=1.0, trusted=True)


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
