"""From a budget to widths: the greedy path from dense to smallest, and scaling onto a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.errors import ConfigurationError, error_message
from autoprune.plan.validation import is_finite
from autoprune.sensitivity.cost_model import CostModel
from autoprune.sensitivity.cost_table import CostTable
from autoprune.sensitivity.rounding import TOLERANCE, Lattice, round_to_budget
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What a budget buys.

    budget: asked for, as a share of the dense cost. widths: group name -> channels that stay. share: what they cost of
    dense. exact: whether that is within 1 % of the budget; else it is the nearest that can be had.
    """

    budget: float
    widths: Mapping[str, int]
    share: float
    exact: bool


def bounds(table: CostTable, max_ratio: float, round_to: int) -> tuple[np.ndarray, np.ndarray]:
    """Fewest channels of each group, and what kept channels are a multiple of, both [groups].

    max_ratio: most that may go of one group, in (0, 1). round_to: >= 1; heads of attention go one by one.
    The fewest are what max_ratio and the group itself allow, rounded up to whole grains, never above dense.
    """
    channels = np.array(table.channels, dtype=np.float64)
    grain = np.array([1.0 if kind == "heads" else float(round_to) for kind in table.kinds])
    fewest = np.maximum(1.0, np.ceil(channels * (1.0 - max_ratio) - 1e-9))
    fewest = np.maximum(fewest, np.array(table.least, dtype=np.float64))
    return np.asarray(np.minimum(np.ceil(fewest / grain) * grain, channels)), grain


def allocate(
    cost_model: CostModel,
    sensitivity: Sensitivity | None,
    budget: float,
    floor: np.ndarray,
    grain: np.ndarray | None = None,
) -> Allocation:
    """The widths with which a budget loses the least by the scan; those of a uniform ratio without one.

    cost_model: any cost; the scan is the same for all. budget: share of dense, in (0, 1]. floor, grain: as `bounds`
    gives them. Raises ConfigurationError for another budget.
    """
    if not (is_finite(budget) and 0 < budget <= 1):
        raise ConfigurationError(error_message("a budget", "lie in (0, 1], as a share of the dense cost", budget))
    shape = np.ones_like(cost_model.channels)
    if sensitivity is not None and cost_model.names:
        shape = solve(cost_model, sensitivity, floor).at(budget) / cost_model.channels
    widths = scale_to_budget(cost_model, shape, budget, floor, grain)
    share = cost_model.share(widths)
    return Allocation(
        budget=budget,
        widths={name: int(width) for name, width in zip(cost_model.names, widths, strict=True)},
        share=share,
        exact=abs(share - budget) <= TOLERANCE * budget,
    )


def solve(cost_model: CostModel, sensitivity: Sensitivity, floor: np.ndarray) -> AllocationPath:
    """Greedy allocation: repeatedly take the step with the least added loss per unit of cost saved.

    floor: fewest channels of each group. The steps of one group are taken as convex by the order of the
    path; the scan's losses are monotone, so the path never returns channels.
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
        """What the next step of a group saves, and what a unit of that costs in loss."""
        if taken[group] == len(losses[group]):
            saved[group], prices[group] = 0.0, np.inf
            return
        both = np.stack([widths, widths])
        both[1, group] = ladders[group][taken[group] + 1]
        before, after = parts[group].cost(both)
        saved[group] = before - after
        # A step that saves nothing comes last, but before those of groups that are at their end.
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


def scale_to_budget(
    cost_model: CostModel, shape: np.ndarray, budget: float, floor: np.ndarray, grain: np.ndarray | None = None
) -> np.ndarray:
    """Multiply keep shares by one factor, within [floor, dense], until the cost is `budget` of dense.

    shape: relative keep shares, > 0, [groups]. grain: widths are multiples of it, or dense, [groups]; None is 1.
    Returns whole widths whose cost is within 1 % of the budget, or as near as rounding allows; the nearest reachable
    ones when the budget lies outside what can be reached.
    """
    lattice = Lattice.of(floor, np.ones_like(floor) if grain is None else grain, cost_model.channels)
    return round_to_budget(cost_model, scaled(cost_model, shape, budget, lattice), budget, lattice)


def scaled(cost_model: CostModel, shape: np.ndarray, budget: float, lattice: Lattice) -> np.ndarray:
    """The fractional widths that `scale_to_budget` rounds."""
    low, high = -12.0, 12.0
    for _ in range(48):
        middle = (low + high) / 2
        widths = np.clip(cost_model.channels * shape * np.exp(middle), lattice.base, lattice.top)
        low, high = (middle, high) if cost_model.share(widths) < budget else (low, middle)
    return np.asarray(np.clip(cost_model.channels * shape * np.exp((low + high) / 2), lattice.base, lattice.top))


def _ladder(channels: float, floor: float) -> np.ndarray:
    """Widths of one group along the path, from dense to its floor."""
    step = max(1.0, round(channels * _STEP))
    return np.append(np.arange(channels, floor, -step), floor) if floor < channels else np.array([channels])
