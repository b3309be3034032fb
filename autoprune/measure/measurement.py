"""Measurement: the numbers of one model, as plain data that does not need torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

#: The cost axes that a Measurement has; lower is better for each.
COSTS = ("parameters", "multiply_adds", "size_bytes", "latency_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latency of a model and of the dense one, taken in turn so that both saw the same machine.

    latency_ms, dense_ms: medians of one call on the example inputs, milliseconds.
    low_ms, high_ms: 95 % interval of the median.
    ratio: median of the pairwise ratios to dense, < 1 is faster. ratio_low, ratio_high: its 95 % interval.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The numbers of one model on one split.

    split: "search" or "test". quality: value of the task's quality metric.
    quality_error: its standard error over samples; 0 when it could not be told.
    metrics: every metric of the task by name.
    parameters: count. multiply_adds: on the example inputs. size_bytes: of the safetensors file.
    latency: None when it was not measured (a test measurement reuses the search one).
    """

    split: str
    quality: float
    quality_error: float
    metrics: Mapping[str, float]
    parameters: int
    multiply_adds: int
    size_bytes: int
    latency: Latency | None

    def __post_init__(self) -> None:
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
        data = {name: getattr(self, name) for name in self.__slots__}
        return {
            **data,
            "metrics": dict(self.metrics),
            "latency": None if self.latency is None else asdict(self.latency),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Measurement:
        """Read what `to_dict` gave; unknown fields of a later version are left out."""
        known: dict[str, object] = {name: data[name] for name in cls.__slots__ if name in data}
        latency = known.get("latency")
        if isinstance(latency, Mapping):
            known["latency"] = Latency(**{name: latency[name] for name in Latency.__slots__})
        return cls(**known)  # type: ignore[arg-type]
