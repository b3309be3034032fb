"""Limits that a candidate must keep."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoprune.codec import Format, stored
from autoprune.errors import error_message, raise_all
from autoprune.records.measurement import COSTS

#: Short name in the field max_<name>_share -> cost.
_SHARES = {"size": "size_bytes", "latency": "latency_ms"}


@stored(Format(what="limits", optional=None, refuses_unknown=True, any_number=None))
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that a candidate must keep. None is no limit, and infinity becomes None.

    Where a limit is given both as a number and as a share, the tighter one holds.

    Attributes:
        max_drop: Largest loss of quality against dense, in the metric's unit, >= 0.
        max_latency_ms: Largest latency, in milliseconds, > 0.
        max_size_bytes: Largest file, in bytes, > 0.
        max_parameters: Largest number of parameters, > 0.
        max_nonzero_parameters: Largest number of parameters other than zero, > 0.
        max_multiply_adds: Largest number of multiply-adds, > 0.
        max_drop_share: Largest loss of quality, as a share of the dense quality, >= 0.
        max_latency_share: Largest latency, as a share of dense, > 0.
        max_size_share: Largest file, as a share of dense, > 0.
        max_parameters_share: Largest number of parameters, as a share of dense, > 0.
        max_nonzero_parameters_share: Largest number of parameters other than zero, as a share of dense, > 0.
        max_multiply_adds_share: Largest number of multiply-adds, as a share of dense, > 0.

    Example:
        >>> Limits(max_drop=0.01, max_size_share=0.3).given
        {'max_drop': 0.01, 'max_size_share': 0.3}
    """

    max_drop: float | None = None
    max_latency_ms: float | None = None
    max_size_bytes: float | None = None
    max_parameters: float | None = None
    max_nonzero_parameters: float | None = None
    max_multiply_adds: float | None = None
    max_drop_share: float | None = None
    max_latency_share: float | None = None
    max_size_share: float | None = None
    max_parameters_share: float | None = None
    max_nonzero_parameters_share: float | None = None
    max_multiply_adds_share: float | None = None

    def __post_init__(self) -> None:
        wrong = {name: value for name, value in self.given.items() if not _right(name, value)}
        raise_all(
            "the limits",
            [
                error_message(name, f"be {'>=' if name.startswith('max_drop') else '>'} 0", repr(value))
                for name, value in wrong.items()
            ],
        )
        for name, value in self.given.items():
            if math.isinf(value):
                object.__setattr__(self, name, None)

    @property
    def given(self) -> dict[str, float]:
        """Field -> value of the limits that are set."""
        return {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}

    @property
    def relative(self) -> dict[str, float]:
        """Field -> value of the limits that are set and refer to the dense model."""
        return {n: value for n, value in self.given.items() if n == "max_drop" or n.endswith("_share")}

    @property
    def cost_limits(self) -> dict[str, float]:
        """Cost -> limit, of the absolute limits that are set."""
        given = self.given
        return {name: float(given[f"max_{name}"]) for name in COSTS if f"max_{name}" in given}

    @property
    def cost_share_limits(self) -> dict[str, float]:
        """Cost -> limit as a share of dense, of the relative limits that are set."""
        shares = {f"max_{_short(name)}_share": name for name in COSTS}
        return {shares[name]: float(value) for name, value in self.given.items() if name in shares}


def _short(cost: str) -> str:
    return next((short for short, name in _SHARES.items() if name == cost), cost)


def _right(name: str, value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return value > 0 or (value == 0 and name.startswith("max_drop"))
