"""From a budget to widths: the greedy path from dense to smallest, and scaling onto a budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoprune.sensitivity.cost_model import CostModel
from autoprune.sensitivity.scan import Sensitivity

#: A group loses this share of its channels, at least one, in one step of the path.
_STEP = 1 / 24


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationPath:
    """Widths from dense to smallest, each step taking channels where a unit of cost loses the least.

    widths: float [steps, groups]. shares: cost of each step as a share of dense, descending, [steps].
    """

    widths: np.ndarray
    shares: np.ndarray

    def at(self, budget: float) -> np.ndarray:
        """Widths at a share of the dense cost, interpolated between steps; the ends where it lies outside."""
        position = float(np.interp(-budget, -self.shares, np.arange(len(self.shares))))
        low = int(np.floor(position))
        high = min(low + 1, len(self.shares) - 1)
        return np.asarray(self.widths[low] + (position - low) * (self.widths[high] - self.widths[low]))


def solve(cost_model: CostModel, sensitivity: Sensitivity, floor: np.ndarray) -> AllocationPath:
    """Greedy allocation: repeatedly take the step with the least added loss per unit of cost saved.

    floor: fewest channels of each group. The steps of one group are taken as convex by the order of the
    path; the scan's losses are monotone, so the path never returns channels.
    """
    widths = cost_model.channels.copy()
    rows, costs = [widths.copy()], [cost_model.cost(widths)]
    names = cost_model.names
    while (widths > floor).any():
        best, best_price = -1, np.inf
        for group in np.flatnonzero(widths > floor):
            smaller = widths.copy()
            smaller[group] = _next(widths[group], cost_model.channels[group], floor[group])
            saved = costs[-1] - cost_model.cost(smaller)
            channels = cost_model.channels[group]
            added = sensitivity.added(names[group], smaller[group] / channels) - sensitivity.added(
                names[group], widths[group] / channels
            )
            price = added / saved if saved > 0 else np.inf
            if price < best_price or best < 0:
                best, best_price = int(group), price
        widths[best] = _next(widths[best], cost_model.channels[best], floor[best])
        rows.append(widths.copy())
        costs.append(cost_model.cost(widths))
    return AllocationPath(widths=np.array(rows), shares=np.array(costs) / cost_model.dense)


def scale_to_budget(
    cost_model: CostModel, shape: np.ndarray, budget: float, floor: np.ndarray, grain: np.ndarray | None = None
) -> np.ndarray:
    """Multiply keep shares by one factor, within [floor, dense], until the cost is `budget` of dense.

    shape: relative keep shares, > 0, [groups]. grain: widths are multiples of it, or dense, [groups]; None is 1.
    Returns whole widths whose cost is as near as rounding by single grains allows; the nearest reachable ones when
    the budget lies outside what can be reached.
    """
    low, high = -12.0, 12.0
    for _ in range(48):
        middle = (low + high) / 2
        widths = np.clip(cost_model.channels * shape * np.exp(middle), floor, cost_model.channels)
        low, high = (middle, high) if cost_model.share(widths) < budget else (low, middle)
    exact = np.clip(cost_model.channels * shape * np.exp((low + high) / 2), floor, cost_model.channels)
    return _round(cost_model, exact, budget, floor, np.ones_like(exact) if grain is None else grain)


def _round(cost_model: CostModel, exact: np.ndarray, budget: float, floor: np.ndarray, grain: np.ndarray) -> np.ndarray:
    """Round down, then give single grains back, largest remainder first, while that comes nearer to the budget."""
    whole = exact >= cost_model.channels - 1e-9
    down = np.where(whole, cost_model.channels, np.floor((exact + 1e-9) / grain) * grain)
    widths: np.ndarray = np.maximum(down, floor)
    for group in np.argsort(widths - exact, kind="stable"):
        larger = widths.copy()
        larger[group] = min(widths[group] + grain[group], cost_model.channels[group])
        if abs(cost_model.share(larger) - budget) <= abs(cost_model.share(widths) - budget):
            widths = larger
    return widths


def _next(width: float, channels: float, floor: float) -> float:
    return float(max(floor, width - max(1.0, round(channels * _STEP))))
