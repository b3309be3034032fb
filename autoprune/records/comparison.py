"""Comparison: a cost against the dense model's, both measured in turn."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.records.measurement import Latency


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


def latency_comparison(latency: Latency | None) -> Comparison | None:
    """Read the comparison of a latency.

    Args:
        latency: Latency of a model; None where it was not measured.

    Returns:
        The comparison with the other model.
    """
    if latency is None:
        return None
    return Comparison(
        ratio=latency.ratio,
        low=latency.ratio_low,
        high=latency.ratio_high,
        dense=latency.dense_ms,
        trusted=latency.trusted,
        predicted=latency.is_predicted,
    )
