"""Energy: what a call of a model takes, against the dense model, as a counter of the machine tells."""

from __future__ import annotations

from dataclasses import dataclass, field

from autoprune.codec import Format, stored
from autoprune.records.comparison import Against, Comparison


@stored(Format(what="an energy", optional=None, apart=("comparison",)))
@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Energy of a call of a model and of the dense model, read in turn from a counter of the same machine.

    Attributes:
        energy_mj: Millijoules of one call: those of the dense model times the ratio.
        low_mj: Lower end of the 95 % interval in which another measurement falls.
        high_mj: Upper end of that interval.
        dense_mj: Millijoules of the dense model; one number for a whole study.
        ratio: Ratio to the dense model; < 1 takes less.
        ratio_low: Lower end of the 95 % interval in which another measurement of the ratio falls.
        ratio_high: Upper end of that interval.
        counter: Name of the counter.
        backend: Name of the runtime that was called.
        bursts: Number of bursts of calls, apart in time.
        fallback: Why another backend than the requested one was called, as a sentence; "" where it was not.
        doubts: Reasons not to trust the measurement, in sentences.
        comparison: Comparison with the dense model; follows from the rest.
    """

    energy_mj: float
    low_mj: float
    high_mj: float
    dense_mj: float
    ratio: float
    ratio_low: float
    ratio_high: float
    counter: str
    backend: str
    bursts: int
    fallback: str = ""
    doubts: tuple[str, ...] = ()
    comparison: Comparison = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = Comparison(
            ratio=self.ratio, low=self.ratio_low, high=self.ratio_high, dense=self.dense_mj, doubts=self.doubts
        )
        object.__setattr__(self, "comparison", found)

    @classmethod
    def of(cls, found: Against, *, counter: str, backend: str, bursts: int) -> Energy:
        """Make the energy of a model that was compared with the dense one.

        Args:
            found: Its millijoules against the dense model's.
            counter: Name of the counter.
            backend: Name of the runtime.
            bursts: Number of bursts of calls.
        """
        return cls(
            energy_mj=found.value,
            low_mj=found.low,
            high_mj=found.high,
            dense_mj=found.dense,
            ratio=found.ratio,
            ratio_low=found.ratio_low,
            ratio_high=found.ratio_high,
            counter=counter,
            backend=backend,
            bursts=bursts,
        )

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against the measurement."""
        return not self.doubts
