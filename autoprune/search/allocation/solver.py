"""From a budget to widths: the greedy path from dense to smallest, and scaling to a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.errors import ConfigurationError, error_message
from autoprune.plan.validation import is_finite
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.allocation.allowed_widths import AllowedWidths
from autoprune.search.allocation.cost_model import CostModel
from autoprune.search.allocation.rounding import TOLERANCE, round_to_budget

#: Share of a group's channels, at least one channel, that one step of the path removes.
_STEP = 1 / 24


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationPath:
    """Widths from dense to smallest; each step removes channels where a unit of cost loses the least.

    Attributes:
        widths: Float [steps, groups].
        shares: Cost of each step as a share of dense, descending, [steps].
    """

    widths: np.ndarray
    shares: np.ndarray

    def at(self, budget: float) -> np.ndarray:
        """Interpolate the widths at a budget.

        Args:
            budget: Share of the dense cost.

        Returns:
            Fractional widths [groups]; the nearer end of the path if the budget lies outside.
        """
        position = float(np.interp(-budget, -self.shares, np.arange(len(self.shares))))
        low = int(np.floor(position))
        high = min(low + 1, len(self.shares) - 1)
        return np.asarray(self.widths[low] + (position - low) * (self.widths[high] - self.widths[low]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The widths for a budget.

    Attributes:
        budget: The budget asked for, as a share of the dense cost.
        widths: Group name -> channels that stay.
        share: Their cost as a share of dense.
        exact: Whether `share` is within 1 % of the budget; if not, it is the nearest reachable one.
    """

    budget: float
    widths: Mapping[str, int]
    share: float
    exact: bool


def allocate(
    cost_model: CostModel, sensitivity: Sensitivity | None, budget: float, allowed: AllowedWidths
) -> Allocation:
    """Find the widths for a budget that lose the least by the scan; widths of a uniform ratio without a scan.

    Args:
        cost_model: Any cost; the scan is the same for all.
        sensitivity: The scan; None for a uniform ratio.
        budget: Share of dense, in (0, 1].
        allowed: Allowed widths.

    Returns:
        The allocation.

    Raises:
        ConfigurationError: The budget is outside (0, 1].
    """
    if not (is_finite(budget) and 0 < budget <= 1):
        raise ConfigurationError(error_message("a budget", "lie in (0, 1], as a share of the dense cost", budget))
    shape = np.ones_like(cost_model.channels)
    if sensitivity is not None and cost_model.names:
        shape = solve(cost_model, sensitivity, allowed.base).at(budget) / cost_model.channels
    widths = scale_to_budget(cost_model, shape, budget, allowed)
    share = cost_model.share(widths)
    return Allocation(
        budget=budget,
        widths={name: int(width) for name, width in zip(cost_model.names, widths, strict=True)},
        share=share,
        exact=abs(share - budget) <= TOLERANCE * budget,
    )


def solve(cost_model: CostModel, sensitivity: Sensitivity, floor: np.ndarray) -> AllocationPath:
    """Allocate greedily: repeatedly take the step with the least added loss per unit of cost saved.

    The steps of one group are taken in order, as if its losses were convex. The scan's losses are monotone, so the path
    never returns channels.

    Args:
        cost_model: Any cost.
        sensitivity: The scan.
        floor: Fewest channels of each group, [groups].

    Returns:
        The path from dense to the floor.
    """
    ladders = [_ladder(c, low) for c, low in zip(cost_model.channels, floor, strict=True)]
    losses = [
        np.diff(sensitivity.curve(name, ladder / ladder[0]))
        for name, ladder in zip(cost_model.names, ladders, strict=True)
    ]
    parts = [cost_model.part([group]) for group in range(len(ladders))]
    neighbours = [cost_model.neighbours(group) for group in range(len(ladders))]
    widths, taken = cost_model.channels.copy(), np.zeros(len(ladders), dtype=np.int64)
    saved, prices = np.zeros(len(ladders)), np.full(len(ladders), np.inf)

    def price(group: int) -> None:
        """Update the saving of a group's next step, and the loss per unit of it."""
        if taken[group] == len(losses[group]):
            saved[group], prices[group] = 0.0, np.inf
            return
        both = np.stack([widths, widths])
        both[1, group] = ladders[group][taken[group] + 1]
        before, after = parts[group].cost(both)
        saved[group] = before - after
        # A step that saves nothing comes last, but before the finished groups.
        prices[group] = losses[group][taken[group]] / saved[group] if saved[group] > 0 else np.finfo(float).max

    for group in range(len(ladders)):
        price(group)
    rows, costs = [widths.copy()], [cost_model.cost(widths)]
    for _ in range(sum(len(steps) for steps in losses)):
        best = int(np.argmin(prices))
        taken[best] += 1
        costs.append(costs[-1] - saved[best])
        widths[best] = ladders[best][taken[best]]
        rows.append(widths.copy())
        for group in (best, *neighbours[best]):
            price(group)
    return AllocationPath(widths=np.array(rows), shares=np.array(costs) / cost_model.dense)


def scale_to_budget(cost_model: CostModel, shape: np.ndarray, budget: float, allowed: AllowedWidths) -> np.ndarray:
    """Multiply keep shares by one factor, within the allowed widths, until the cost is `budget` of dense.

    Args:
        cost_model: Any cost.
        shape: Relative keep shares, > 0, [groups].
        budget: Share of dense.
        allowed: Allowed widths.

    Returns:
        Allowed widths [groups] whose cost is within 1 % of the budget, or as near as rounding allows; the nearest
        reachable ones if the budget is out of reach.
    """
    return round_to_budget(cost_model, fractional_widths(cost_model, shape, budget, allowed), budget, allowed)


def fractional_widths(cost_model: CostModel, shape: np.ndarray, budget: float, allowed: AllowedWidths) -> np.ndarray:
    """Scale keep shares to a budget without rounding.

    Args:
        cost_model: Any cost.
        shape: Relative keep shares, > 0, [groups].
        budget: Share of dense.
        allowed: Allowed widths.

    Returns:
        Fractional widths [groups].
    """
    low, high = -12.0, 12.0
    for _ in range(48):
        middle = (low + high) / 2
        widths = np.clip(cost_model.channels * shape * np.exp(middle), allowed.base, allowed.top)
        low, high = (middle, high) if cost_model.share(widths) < budget else (low, middle)
    return np.asarray(np.clip(cost_model.channels * shape * np.exp((low + high) / 2), allowed.base, allowed.top))


def _ladder(channels: float, floor: float) -> np.ndarray:
    """Widths of one group along the path, from dense to its floor."""
    step = max(1.0, round(channels * _STEP))
    return np.append(np.arange(channels, floor, -step), floor) if floor < channels else np.array([channels])
