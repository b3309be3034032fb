"""Measurement: the numbers of one model, as plain data without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from autoprune.codec import Format, from_plain, stored, to_plain_object
from autoprune.errors import error_message, raise_all
from autoprune.records.comparison import Against, Comparison
from autoprune.records.energy import Energy

#: Name of the latency profile behind the cost "latency_ms".
DEFAULT_PROFILE = "default"
#: In place of a clock where a latency was not measured.
PREDICTION = "prediction"
#: Stand-in for a missing count, as in records that are older than masks.
_ALL = -1
_NONZERO = "nonzero_parameters"
#: Bound of deviations and errors, whose squares are added up.
HIGHEST = 1e60


@stored(Format(what="a latency", optional=None, apart=("comparison",)))
@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latency of a model and of another one, mostly the dense one, measured in turn on the same machine.

    Attributes:
        latency_ms: Milliseconds of one call: those of the other model times the ratio.
        low_ms: Lower end of the 95 % interval in which another measurement falls.
        high_ms: Upper end of that interval.
        dense_ms: Milliseconds of the other model; one number for a whole study.
        ratio: Ratio to the other model; < 1 is faster.
        ratio_low: Lower end of the 95 % interval in which another measurement of the ratio falls.
        ratio_high: Upper end of that interval.
        backend: Name of the runtime that was timed.
        rounds: Number of pairs of stretches of calls.
        bursts: Number of bursts of pairs, apart in time; 0 in records of versions without bursts.
        clock: Clock that the ratio was read from: "processor" time of the calling thread, "wall", or "device" for a
            clock of a GPU or another machine; "prediction" where the latency model of the device gave it.
        wall_ratio: Ratio by the wall clock where the ratio is one of processor times; else None.
        fallback: Why another backend than the requested one was timed, as a sentence; "" where it was not.
        doubts: Reasons not to trust the measurement, in sentences.
        sizes_ms: (size, milliseconds) for a profile with inputs of several sizes.
        comparison: Comparison with the other model; follows from the rest.
    """

    latency_ms: float
    low_ms: float
    high_ms: float
    dense_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    backend: str
    rounds: int
    bursts: int = 0
    clock: str = "wall"
    wall_ratio: float | None = None
    fallback: str = ""
    doubts: tuple[str, ...] = ()
    sizes_ms: tuple[tuple[int, float], ...] = ()
    comparison: Comparison = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = Comparison(
            ratio=self.ratio,
            low=self.ratio_low,
            high=self.ratio_high,
            dense=self.dense_ms,
            doubts=self.doubts,
            predicted=self.is_predicted,
        )
        object.__setattr__(self, "comparison", found)

    @classmethod
    def of(cls, found: Against, *, backend: str, rounds: int, clock: str = "wall") -> Latency:
        """Make the latency of a model that was compared with the dense one.

        Args:
            found: Its milliseconds against the dense model's.
            backend: Name of the runtime.
            rounds: Number of pairs of stretches of calls.
            clock: Clock that the ratio was read from.
        """
        return cls(
            latency_ms=found.value,
            low_ms=found.low,
            high_ms=found.high,
            dense_ms=found.dense,
            ratio=found.ratio,
            ratio_low=found.ratio_low,
            ratio_high=found.ratio_high,
            backend=backend,
            rounds=rounds,
            clock=clock,
        )

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against the measurement."""
        return not self.doubts

    @property
    def is_predicted(self) -> bool:
        """Whether the latency model of the device gave it, so that nothing was timed."""
        return self.clock == PREDICTION


@stored(Format(what="the latencies of a candidate", optional=("energy",)))
@dataclass(frozen=True, slots=True, kw_only=True)
class LaterLatencies:
    """Latencies and energy that were measured after the trial, in place of earlier ones.

    Attributes:
        latencies: Name of a latency profile -> latency against dense.
        energy: Energy against dense; None where it was not measured.
    """

    latencies: Mapping[str, Latency]
    energy: Energy | None = None


def _by_profile(data: Mapping[str, object]) -> Mapping[str, object]:
    """Lift a measurement that knew one latency, which could be missing."""
    if "latency" not in data or "latencies" in data:
        return data
    rest = {name: value for name, value in data.items() if name != "latency"}
    return {**rest, "latencies": {} if data["latency"] is None else {DEFAULT_PROFILE: data["latency"]}}


@stored(
    Format(
        what="a measurement",
        optional=(
            "nonzero_parameters",
            "latencies",
            "energy",
            "mask_latency",
            "costs",
            "deviations",
            "metric_deviations",
        ),
        formerly={"mask_latency": "masked"},
        apart=("_arrays",),
        any_number=("quality", "quality_error", "metrics", "costs"),
        lift=_by_profile,
    )
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Numbers of one model on one split.

    Attributes:
        split: "search" or "test".
        quality: Value of the task's quality metric.
        quality_error: Standard error of the quality over samples; 0 when it is unknown.
        metrics: Name of a metric of the task -> value.
        parameters: Number of parameters.
        multiply_adds: Multiply-adds on the example inputs; multiplications by zero count, too.
        size_bytes: Length of the file in the run folder, which is compressed where zeros make that smaller.
        latencies: Name of a latency profile -> latency against dense. Those that were not measured are missing, and a
            test measurement has those of the search measurement.
        energy: Energy of a call against dense, in the default latency profile; None when it was not measured.
        nonzero_parameters: Entries of parameters that are not zero; by default all of them.
        mask_latency: Latency against the same model without its masks, so the effect of the masks alone; None without
            masks or when it was not measured.
        costs: Name of a further cost of `records.objectives.COSTS` -> value.
        deviations: How much each fold of the samples moves the quality, see `records.paired`; the sum of their squares
            is the square of `quality_error`. Empty where that is unknown, and in older records.
        metric_deviations: Name of a further metric that is an objective or limited -> the same for that metric.
    """

    split: str
    quality: float
    quality_error: float
    metrics: Mapping[str, float]
    parameters: int
    multiply_adds: int
    size_bytes: int
    latencies: Mapping[str, Latency] = field(default_factory=dict)
    nonzero_parameters: int = _ALL
    energy: Energy | None = None
    mask_latency: Latency | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    deviations: tuple[float, ...] = ()
    metric_deviations: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    _arrays: dict[str, np.ndarray] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        least = dict.fromkeys(("quality_error", "parameters", "multiply_adds", "size_bytes"), 0) | {_NONZERO: _ALL}
        wrong = [
            error_message(name, "be >= 0", getattr(self, name)) for name in least if getattr(self, name) < least[name]
        ]
        for name, values in {"deviations": self.deviations, **self.metric_deviations}.items():
            if not all(abs(value) < HIGHEST for value in values):
                wrong.append(error_message(name, f"lie within {HIGHEST:g} of 0", "others"))
        raise_all("a measurement", wrong)
        if self.nonzero_parameters == _ALL:
            object.__setattr__(self, "nonzero_parameters", self.parameters)
        for name in ("metrics", "costs", "latencies", "metric_deviations"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def deviations_of(self, metric: str = "") -> tuple[float, ...]:
        """Return how much each fold of the samples moves a metric.

        Args:
            metric: Name of a further metric; the quality by default.

        Returns:
            The deviations; empty where they are unknown.
        """
        return self.metric_deviations.get(metric, ()) if metric else self.deviations

    def deviations_array(self, metric: str = "") -> np.ndarray:
        """Return the deviations as an array, which is made once, as searches compare them again and again.

        Args:
            metric: Name of a further metric; the quality by default.

        Returns:
            Float [folds], which must not be changed.
        """
        if metric not in self._arrays:
            self._arrays[metric] = np.array(self.deviations_of(metric))
            self._arrays[metric].flags.writeable = False
        return self._arrays[metric]

    def error_of(self, metric: str = "") -> float:
        """Return the standard error of a metric.

        Args:
            metric: Name of a further metric; the quality by default.

        Returns:
            The standard error; 0 where it is unknown.
        """
        return math.hypot(*self.deviations_of(metric)) if metric else self.quality_error

    @property
    def latency(self) -> Latency | None:
        """Latency in the default profile; None when it was not measured."""
        return self.latencies.get(DEFAULT_PROFILE)

    @property
    def predicted(self) -> tuple[str, ...]:
        """Names of the latency profiles in which nothing was timed."""
        return tuple(name for name, latency in self.latencies.items() if latency.is_predicted)

    def to_dict(self) -> dict[str, object]:
        """Convert to JSON-ready data.

        Returns:
            Field -> value.
        """
        return to_plain_object(self)

    @classmethod
    def from_dict(cls, data: object, where: str = "a measurement") -> Measurement:
        """Read parsed JSON; unknown fields of a later version are ignored.

        Args:
            data: What `to_dict` returned.
            where: Name of the data's source, for the message.

        Returns:
            The measurement.

        Raises:
            StorageError: For data that is no measurement.
        """
        return from_plain(cls, data, where)
