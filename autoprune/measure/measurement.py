"""Measurement: the numbers of one model, as plain data that does not need torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from autoprune.codec import Format, from_plain, stored, to_plain_object
from autoprune.errors import error_message, raise_all

#: The cost axes that a Measurement has; lower is better for each.
COSTS = ("parameters", "nonzero_parameters", "multiply_adds", "size_bytes", "latency_ms")

#: Stands for a count that was not taken, as in records from before there were masks.
_ALL = -1
_NONZERO = "nonzero_parameters"


@stored(Format(what="a latency"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latency of a model and of another, mostly the dense one, taken in turn so that both saw the same machine.

    latency_ms, dense_ms: medians of one call on the example inputs, milliseconds; dense_ms is that of the other model.
    low_ms, high_ms: 95 % interval of the median.
    ratio: median of the pairwise ratios to the other, < 1 is faster. ratio_low, ratio_high: its 95 % interval.
    backend: what ran the model. rounds: number of pairs.
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


@stored(
    Format(
        what="a measurement",
        optional=("nonzero_parameters", "masked"),
        any_number=("quality", "quality_error", "metrics"),
    )
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The numbers of one model on one split.

    split: "search" or "test". quality: value of the task's quality metric.
    quality_error: its standard error over samples; 0 when it could not be told.
    metrics: every metric of the task by name.
    parameters: count. multiply_adds: on the example inputs, those with zeros included.
    size_bytes: of the file in the run folder, which is compressed where zeros make that smaller.
    latency: None when it was not measured (a test measurement reuses the search one).
    nonzero_parameters: entries of parameters that are not zero; all of them when it is left out.
    masked: latency against the same model without its masks, so what these alone do to the clock; None without masks
        or when it was not measured.
    """

    split: str
    quality: float
    quality_error: float
    metrics: Mapping[str, float]
    parameters: int
    multiply_adds: int
    size_bytes: int
    latency: Latency | None
    nonzero_parameters: int = _ALL
    masked: Latency | None = None

    def __post_init__(self) -> None:
        least = dict.fromkeys(("quality_error", "parameters", "multiply_adds", "size_bytes"), 0) | {_NONZERO: _ALL}
        wrong = [
            error_message(name, "be >= 0", getattr(self, name)) for name in least if getattr(self, name) < least[name]
        ]
        raise_all("a measurement", wrong)
        if self.nonzero_parameters == _ALL:
            object.__setattr__(self, "nonzero_parameters", self.parameters)
        object.__setattr__(self, "metrics", MappingProxyType(dict(self.metrics)))

    @property
    def latency_ms(self) -> float:
        """Median latency, not a number when it was not measured."""
        return float("nan") if self.latency is None else self.latency.latency_ms

    def value(self, objective: str) -> float:
        """The number of an objective: "quality" or one of COSTS."""
        return float(getattr(self, objective))

    def to_dict(self) -> dict[str, object]:
        """JSON-ready data."""
        return to_plain_object(self)

    @classmethod
    def from_dict(cls, data: object, where: str = "a measurement") -> Measurement:
        """Read what `to_dict` gave; unknown fields of a later version are left out.

        where: what holds the data, for the message. Raises StorageError for what is no measurement.
        """
        return from_plain(cls, data, where)
