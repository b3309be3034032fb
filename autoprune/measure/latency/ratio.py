"""A number of a call against the dense model's, from bursts in which both were measured in turn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from autoprune.measure.latency.statistics import another, burst_mean
from autoprune.measure.latency.timing import FEWEST_BURSTS, Burst, Bursts
from autoprune.records.comparison import Against

#: Half the widest interval of a logarithm: one burst alone has none.
_WIDEST = math.log(10.0)
#: Change of the dense model's number during a measurement that is doubtful.
_DRIFT = 0.15


@dataclass(frozen=True, slots=True)
class _Kept:
    """Number of a call of the dense model, with half the width of the logarithm's interval."""

    number: float
    half_width: float
    trusted: bool


class DenseReference:
    """The dense model's number for a whole study: that of the first comparison that can be trusted."""

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def keep(self, number: float, low: float, high: float, *, trusted: bool) -> None:
        """Take the number of an earlier measurement of the same study.

        Args:
            number: Number of the dense model.
            low: Lower end of the interval of the dense model as a candidate.
            high: Upper end of that interval.
            trusted: Whether nothing speaks against it.
        """
        self._kept = _Kept(number, math.log(high / low) / 2, trusted)

    def against(self, bursts: Sequence[Burst], between: float, *, trusted: bool) -> Against:
        """Compare the model of bursts with the dense model.

        Args:
            bursts: Bursts by the clock or counter that counts.
            between: Standard deviation of the logarithm of the ratio between processes.
            trusted: Whether nothing speaks against the bursts.

        Returns:
            The comparison.
        """
        mean, half = log_ratio(bursts, between)
        if self._kept is None or (not self._kept.trusted and trusted):
            own, own_half = burst_mean([math.log(burst.mean(1)) for burst in bursts])
            self._kept = _Kept(math.exp(own), min(another(own_half, between), _WIDEST), trusted)
        dense, ratio = self._kept.number, math.exp(mean)
        margin, in_all = math.exp(half), math.exp(math.hypot(half, self._kept.half_width))
        return Against(
            value=dense * ratio,
            low=dense * ratio / in_all,
            high=dense * ratio * in_all,
            dense=dense,
            ratio=ratio,
            ratio_low=ratio / margin,
            ratio_high=ratio * margin,
        )


def log_ratio(bursts: Sequence[Burst], between: float) -> tuple[float, float]:
    """Compute the logarithm of the ratio, and half the interval in which another measurement of the same kind falls.

    Args:
        bursts: Bursts by one clock or counter.
        between: Standard deviation of the logarithm of the ratio between processes.

    Returns:
        The logarithm, and half the width of its 95 % interval.
    """
    mean, half = burst_mean([burst.log_ratio for burst in bursts])
    return mean, min(another(half, between), _WIDEST)


def burst_doubts(bursts: Bursts, told: Sequence[Burst], unit: str) -> Iterator[str]:
    """List what bursts say against a measurement by themselves.

    Args:
        bursts: All bursts.
        told: Those of the clock or counter that counts.
        unit: Unit of its numbers.

    Yields:
        Reasons, in sentences.
    """
    if not bursts.locked:
        yield "Another measurement ran at the same time."
    if len(told) < FEWEST_BURSTS:
        yield f"There were {len(told)} bursts of calls; fewer than {FEWEST_BURSTS} show no spread."
    third = max(len(told) // 3, 1)
    first, last = (median([burst.mean(1) for burst in part]) for part in (told[:third], told[-third:]))
    if len(told) >= FEWEST_BURSTS and abs(last / first - 1) > _DRIFT:
        changed = "the machine's speed changed" if unit == "ms" else "the machine's power changed"
        yield f"The dense model took {first:.3g} {unit} at first and {last:.3g} {unit} at last: {changed}."
