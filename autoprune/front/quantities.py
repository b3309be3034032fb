"""Quantities: everything measured of candidates, as arrays over all of them, to draw and to compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.errors import UnknownNameError
from autoprune.front.front import Front
from autoprune.front.limit_check import INTERVAL
from autoprune.records.candidate import CandidateRecord
from autoprune.records.limits import Limits
from autoprune.records.measurement import Measurement
from autoprune.records.objectives import QUALITY, Objective

#: Splits on which candidates are measured. The first one decides.
SPLITS = ("search", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number that was measured of candidates: the quality, a metric of the task or a cost.

    Attributes:
        name: Name, as in limits and objectives.
        axis_title: Title of an axis.
        read: Function from a measurement and that of the dense model to the number; NaN where it was not measured.
        better: "lower" or "higher"; "" where that is unknown.
        is_cost: Whether it is a cost and no metric.
        form: Format of the number for people.
        objective: The objective behind it; None for a metric whose direction is unknown.
    """

    name: str
    axis_title: str
    read: Callable[[Measurement, Measurement | None], float]
    better: str = ""
    is_cost: bool = False
    form: str = ".4f"
    objective: Objective | None = None

    @property
    def is_compared(self) -> bool:
        """Whether it is measured in turn with the dense model."""
        return self.objective is not None and self.objective.is_compared

    def values(self, front: Front, split: str = "search") -> np.ndarray:
        """Collect the numbers of all candidates.

        Args:
            front: Front of a study.
            split: One of SPLITS.

        Returns:
            Float [records]; NaN where it was not measured.

        Raises:
            UnknownNameError: There is no such split.
        """
        if split not in SPLITS:
            raise UnknownNameError("a split", split, SPLITS)
        if split == "search" and self.objective is not None:
            return front.numbers.shown(self.name)
        dense = None if front.dense is None else front.dense.measured_on(split)

        def read(record: CandidateRecord) -> float:
            found = record.measured_on(split)
            return math.nan if found is None else self.read(found, dense)

        return front.numbers.column(f"{split} {self.name}", read)

    def arms(self, front: Front, split: str = "search") -> tuple[np.ndarray, np.ndarray] | None:
        """Collect how far the numbers reach up and down within their noise.

        Args:
            front: Front of a study.
            split: One of SPLITS.

        Returns:
            Two of float [records], to the ends of the 95 % interval: that of the quality over the samples, and that of
            a cost that is measured in turn with dense; 0 where it is unknown. None for a quantity without noise.
        """
        if self.name == QUALITY:
            errors = [0.0 if one is None else one.quality_error for one in _all(front.records, split)]
            return INTERVAL * np.array(errors), INTERVAL * np.array(errors)
        if self.objective is None or not self.is_compared:
            return None
        reach = np.zeros((2, len(front.records)))
        for place, (one, value) in enumerate(zip(front.records, self.values(front, split), strict=True)):
            found = self.objective.against_dense(one)
            if found is not None and found.ratio > 0:
                reach[:, place] = value * (found.high / found.ratio - 1), value * (1 - found.low / found.ratio)
        return reach[0], reach[1]


def quantities(front: Front) -> dict[str, Quantity]:
    """List the quantities that were measured of any candidate.

    Args:
        front: Front of a study.

    Returns:
        Name -> quantity: the quality, the further metrics, then the costs in the order of tables. A cost that says
        the same as another one of every candidate is left out.
    """
    return front.numbers.once("quantities", lambda: _quantities(front))


def _quantities(front: Front) -> dict[str, Quantity]:
    problem = front.problem
    measured = [record.search for record in front.records]
    found = {QUALITY: _of_objective(problem.quality)}
    for name in problem.further_metrics:
        if any(math.isfinite(one.metrics.get(name, math.nan)) for one in measured):
            found[name] = _of_metric(front, name)
    for cost in problem.costs.values():
        known = any(math.isfinite(cost.value(one)) for one in measured)
        if known and not (cost.redundant is not None and all(map(cost.redundant, measured))):
            found[cost.name] = _of_objective(cost)
    return found


def find_quantity(front: Front, name: str) -> Quantity:
    """Look up a quantity.

    Args:
        front: Front of a study.
        name: Its name.

    Returns:
        The quantity.

    Raises:
        UnknownNameError: The study has no such quantity.
    """
    problem = front.problem
    if problem.is_quality(name):
        return _of_objective(problem.quality)
    if name in problem.costs:
        return _of_objective(problem.costs[name])
    if name in problem.further_metrics:
        return _of_metric(front, name)
    raise UnknownNameError("a measured quantity", name, (QUALITY, *problem.further_metrics, *problem.costs))


def _of_objective(objective: Objective) -> Quantity:
    return Quantity(
        name=objective.name,
        axis_title=objective.axis_title,
        read=objective.shown,
        better=objective.better,
        is_cost=objective.is_cost,
        form=objective.form,
        objective=objective,
    )


def _of_metric(front: Front, name: str) -> Quantity:
    """Make the quantity of a further metric, whose direction may be unknown."""
    if front.problem.metrics[name] is not None:
        return _of_objective(front.problem.objective(name))
    return Quantity(name=name, axis_title=name, read=lambda one, _: one.metrics.get(name, math.nan))


def _all(records: Sequence[CandidateRecord], split: str) -> list[Measurement | None]:
    return [record.measured_on(split) for record in records]


def allowed_range(front: Front, limits: Limits, quantity: Quantity) -> tuple[float, float]:
    """Find the numbers of a quantity that limits allow.

    Args:
        front: Front of a study.
        limits: Limits to keep.
        quantity: A measured quantity.

    Returns:
        Lowest and highest number; infinite where there is no limit, or one relative to a missing dense model.
    """
    low, high = -math.inf, math.inf
    if quantity.is_cost:
        most = front.absolute_limits(limits).get(quantity.name, math.nan)
        return low, high if math.isnan(most) else most
    same = (quantity.name, front.metric) if quantity.name == QUALITY else (quantity.name,)
    for name, limit in limits.each.items():
        if limit.objective in same and not limit.drop:
            low, high = (limits.given[name], high) if limit.lowest else (low, limits.given[name])
    if quantity.name == QUALITY and front.dense is not None:
        quality = front.dense.search.quality
        drop = limits.largest_drop(quality)
        if math.isfinite(drop) and front.problem.higher_is_better:
            low = max(low, quality - drop)
        elif math.isfinite(drop):
            high = min(high, quality + drop)
    return low, high
