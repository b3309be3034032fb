"""Limits that a candidate must keep, as data: one entry for each limit that is set."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from autoprune.codec import Format, stored
from autoprune.display import LARGEST_INTEGER, describe_value
from autoprune.errors import UnknownNameError, error_message, raise_all
from autoprune.records.objectives import COSTS, QUALITY, find_cost, timed_cost

#: Limit of the loss of quality -> whether it is a share of the dense quality.
_DROPS = {"max_drop": False, "max_drop_share": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit.

    Attributes:
        name: Name, such as "max_latency_share".
        objective: Name of the objective that it limits: "quality", a cost, or a metric of the task.
        lowest: Whether it is the lowest number allowed; else the highest.
        drop: Whether it limits the loss against dense, in place of the number.
        share: Whether it is a share of the dense model's number.
    """

    name: str
    objective: str
    lowest: bool = False
    drop: bool = False
    share: bool = False

    @property
    def is_relative(self) -> bool:
        """Whether the limit refers to the dense model."""
        return self.drop or self.share

    @property
    def is_cost(self) -> bool:
        """Whether the limit is one of a cost."""
        return find_cost(self.objective) is not None


@stored(Format(what="limits", content="given", any_number=None))
@dataclass(frozen=True, slots=True, init=False)
class Limits:
    """Limits that a candidate must keep. None is no limit, and infinity becomes None.

    Where a limit is given both as a number and as a share, the tighter one holds. The names of limits are:

    - `max_drop`: largest loss of quality against dense, in the metric's unit, >= 0. `max_drop_share`: the same as a
      share of the dense quality.
    - `max_<cost>`: largest number of a cost, > 0, such as `max_latency_ms`, `max_parameters` or `max_size_bytes`.
    - `max_<cost>_share`: the same as a share of dense. The unit of the cost is left out, as in `max_latency_share`.
      The latency of a further profile has the profile's name at the end, as in `max_latency_ms[batch32]`.
    - `min_<metric>` or `max_<metric>`: bound of the quality or of a further metric of the task, such as
      `min_quality=0.9` or `min_recall=0.8`. A metric of which more is better has a `min_`, any other one a `max_`.

    Args:
        **given: Name of a limit -> number.

    Attributes:
        given: Name -> number of the limits that are set.

    Raises:
        UnknownNameError: A name is no limit.
        ConfigurationError: A number is out of its range.

    Example:
        >>> dict(Limits(max_drop=0.01, max_size_share=0.3, min_recall=0.8).given)
        {'max_drop': 0.01, 'max_size_share': 0.3, 'min_recall': 0.8}
    """

    given: Mapping[str, float]

    def __init__(self, **given: float | None) -> None:
        numbers = {name: number for name, number in given.items() if number is not None}
        faults = [fault for name, number in numbers.items() if (fault := _fault(parse_limit(name), number))]
        raise_all("the limits", faults)
        finite = {name: number for name, number in numbers.items() if not math.isinf(number)}
        object.__setattr__(self, "given", MappingProxyType(finite))

    @property
    def each(self) -> dict[str, Limit]:
        """Name -> meaning of the limits that are set."""
        return {name: parse_limit(name) for name in self.given}

    @property
    def relative(self) -> tuple[str, ...]:
        """Names of the limits that are set and refer to the dense model."""
        return tuple(name for name, limit in self.each.items() if limit.is_relative)

    def largest_drop(self, dense: float) -> float:
        """Compute the largest loss of quality that is allowed.

        Args:
            dense: Quality of the dense model; NaN where it is unknown.

        Returns:
            The loss in the metric's unit, the tighter one of two; NaN where it is unknown or not limited.
        """
        allowed = [
            self.given[name] * (abs(dense) if limit.share else 1.0) for name, limit in self.each.items() if limit.drop
        ]
        return float(np.min(allowed)) if allowed else math.nan


@functools.cache
def parse_limit(name: str) -> Limit:
    """Find what a limit limits.

    Args:
        name: Name of the limit.

    Returns:
        The limit. Its objective may be a metric that the task does not have, see `Problem`.

    Raises:
        UnknownNameError: The name is no limit of any task.

    Example:
        >>> parse_limit("max_latency_share").objective
        'latency_ms'
    """
    if name in _DROPS:
        return Limit(name=name, objective=QUALITY, drop=True, share=_DROPS[name])
    side, _, rest = name.partition("_")
    bracket = "".join(rest.partition("[")[1:])
    costs = [cost for one in COSTS if (cost := find_cost(one + bracket)) is not None]
    shares = {cost.derived("share"): cost.name for cost in costs}
    if side == "max" and rest in shares:
        return Limit(name=name, objective=shares[rest], share=True)
    if side not in ("min", "max") or not rest or (side == "min" and find_cost(rest) is not None):
        raise UnknownNameError("a limit", name, limit_names())
    return Limit(name=name, objective=rest, lowest=side == "min")


def limit_names(metrics: Collection[str] = ("<metric>",), profiles: Collection[str] = ()) -> tuple[str, ...]:
    """List the names of limits.

    Args:
        metrics: Names of the task's metrics.
        profiles: Names of the latency profiles beside the default one.

    Returns:
        The names.
    """
    known = (*COSTS.values(), *map(timed_cost, profiles))
    costs = [f"max_{cost.name}" for cost in known]
    shares = [f"max_{cost.derived('share')}" for cost in known]
    bounds = [f"{side}_{name}" for name in (QUALITY, *metrics) for side in ("min", "max")]
    return (*_DROPS, *costs, *shares, *bounds)


def _fault(limit: Limit, number: object) -> str:
    """Say what is wrong with the number of a limit; "" for a right one."""
    positive = limit.is_cost
    if isinstance(number, int) and abs(number) >= LARGEST_INTEGER:
        return error_message(limit.name, "be a number of at most 63 bits, or infinity", describe_value(number))
    if isinstance(number, int | float) and not isinstance(number, bool):
        bounded = limit.drop or positive
        right = (number >= 0 if limit.drop else number > 0) if bounded else not _is_empty(limit, number)
        if right:
            return ""
    least = ">= 0" if limit.drop else "> 0" if positive else "a number that some model can keep"
    return error_message(limit.name, f"be {least}", repr(number))


def _is_empty(limit: Limit, number: float) -> bool:
    """Tell whether no number keeps the bound of a metric."""
    return math.isnan(number) or number == (math.inf if limit.lowest else -math.inf)
