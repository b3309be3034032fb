"""Comparison: a cost against the dense model's, both measured in turn."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace


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


def typical_noise(compared: Iterable[Comparison | None]) -> float:
    """Compute the smallest difference of ratios that can be told from noise.

    Args:
        compared: Comparisons of candidates; None where nothing was measured in turn.

    Returns:
        Half the median width of the intervals of measured ratios that are not in doubt; 0 without any.
    """
    measured = [one for one in compared if one is not None and one.trusted and not one.predicted]
    widths = [(one.high - one.low) / 2 for one in measured]
    return statistics.median(widths) if widths else 0.0
