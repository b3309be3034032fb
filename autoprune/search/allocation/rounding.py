"""Round fractional widths so that their cost hits a budget: nearest rounding, then repair."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from autoprune.search.allocation.allowed_widths import AllowedWidths
from autoprune.search.allocation.cost_model import CostModel

#: Largest relative difference between the cost and a budget that is hit.
TOLERANCE = 0.01
#: Relative difference at which the flip of one group is enough.
_FINE = 0.002
#: Most groups whose rounding is tried in one repair: those nearest to the middle between two widths.
_MOST_FREE = 64
#: Groups that are searched together, widths to either side of each, sets per round, random sets after them, rounds.
_WINDOW, _REACH, _WINDOWS, _RANDOM, _ROUNDS = 5, 2, 6, 12, 4


def round_to_budget(cost_model: CostModel, exact: np.ndarray, budget: float, allowed: AllowedWidths) -> np.ndarray:
    """Find allowed widths near `exact` whose cost is within TOLERANCE of the budget, or as near as the search comes.

    Widths are rounded to nearest; single groups and pairs are then rounded to the other side until the cost is right.
    If that does not reach the tolerance, all widths of up to five groups at a time are searched, each up to two steps
    away and at most by a factor of two, and again from there while the cost comes nearer. Of widths within the
    tolerance, the least changed are taken. A few groups with a coarse grain may have no such widths: a layer of one
    channel in place of four would be a bad price for the last percent of the budget.

    Args:
        cost_model: Any cost.
        exact: Fractional widths, float [groups], between base and top.
        budget: Share of dense.
        allowed: Allowed widths.

    Returns:
        Allowed widths [groups].
    """
    widths = _repaired(cost_model, exact, budget, allowed)
    for _ in range(_ROUNDS):
        error = abs(cost_model.share(widths) - budget)
        if error <= TOLERANCE * budget:
            break
        widths = _searched(cost_model, exact, (widths, budget), allowed)
        if abs(cost_model.share(widths) - budget) >= error - 1e-12:
            break
    return widths


def _repaired(cost_model: CostModel, exact: np.ndarray, budget: float, allowed: AllowedWidths) -> np.ndarray:
    """Round to nearest, then to the other side where that brings the cost nearer to the budget."""
    low, high = allowed.down(exact), allowed.up(exact)
    widths = allowed.nearest(exact)
    for _ in range(2 * len(widths)):
        error = cost_model.share(widths) - budget
        other = low + high - widths
        free = np.flatnonzero(other != widths)
        if not len(free):
            break
        apart = np.abs(other - exact)[free] / (high - low)[free]
        free = free[np.argsort(apart, kind="stable")[:_MOST_FREE]]
        flips = _flips(cost_model, (widths, other), free, (error, budget))
        turned = widths.copy()
        turned[flips] = other[flips]
        left = abs(cost_model.share(turned) - budget)
        if left < abs(error) - 1e-12:
            widths = turned
        if left >= abs(error) - 1e-12 or left <= _FINE * budget:
            break
    return widths


def _flips(
    cost_model: CostModel, ways: tuple[np.ndarray, np.ndarray], free: np.ndarray, aim: tuple[float, float]
) -> list[int]:
    """The groups to round to the other side: the one that comes nearest to the budget, a pair if one is not enough, or
    none.

    Always the nearest, so that widths which cost exactly the budget are found again from near them.
    ways: widths, and their other rounding. free: groups that may flip. aim: current error, and the budget.
    """
    (widths, other), (error, budget) = ways, aim
    rows = np.tile(widths, (len(free), 1))
    rows[np.arange(len(free)), free] = other[free]
    after = error + cost_model.shares(rows) - cost_model.share(widths)
    nearest = int(np.argmin(np.abs(after)))
    if min(abs(error), abs(after[nearest])) <= _FINE * budget:
        return [int(free[nearest])] if abs(after[nearest]) < abs(error) else []
    pairs = np.abs(after[:, None] + after[None, :] - error)
    np.fill_diagonal(pairs, np.abs(after))
    first, second = np.unravel_index(int(np.argmin(pairs)), pairs.shape)
    return sorted({int(free[first]), int(free[second])})


def _searched(
    cost_model: CostModel, exact: np.ndarray, start: tuple[np.ndarray, float], allowed: AllowedWidths
) -> np.ndarray:
    """The best widths when all widths of a few groups are tried together. start: widths, budget."""
    widths, budget = start
    tolerance, far = TOLERANCE * budget, _farthest(exact, allowed)
    for window in _windows(cost_model, widths, allowed):
        error = cost_model.share(widths) - budget
        if abs(error) <= tolerance:
            break
        choices = [allowed.neighbours(widths, group, _REACH) for group in window]
        near = [own[_octaves(own, exact[group]) <= far[group]] for own, group in zip(choices, window, strict=True)]
        found = np.array(list(itertools.product(*near)))
        rows = np.tile(widths, (len(found), 1))
        rows[:, window] = found
        part = cost_model.part(window)
        errors = np.abs(error + (part.cost(rows) - part.cost(widths)) / cost_model.dense)
        apart = (_octaves(found, exact[window]) ** 2).sum(axis=1)
        inside = errors <= tolerance * (1 - 1e-9)
        best = int(np.argmin(np.where(inside, apart, np.inf))) if inside.any() else int(np.argmin(errors))
        if errors[best] < abs(error):
            widths = rows[best]
    return widths


def _farthest(exact: np.ndarray, allowed: AllowedWidths) -> np.ndarray:
    """How far each group may be from its fractional width, in factors of two: one, or as far as those beside it."""
    beside = np.maximum(_octaves(allowed.down(exact), exact), _octaves(allowed.up(exact), exact))
    return np.asarray(np.maximum(beside, 1.0) + 1e-9)


def _octaves(widths: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """By how many factors of two widths differ from fractional ones."""
    return np.asarray(np.abs(np.log2(widths / exact)))


def _windows(cost_model: CostModel, widths: np.ndarray, allowed: AllowedWidths) -> Iterator[np.ndarray]:
    """Sets of groups to search together: cheap and expensive channels mixed, the cheapest alone, then random ones."""
    free = np.flatnonzero(allowed.base < allowed.top)
    if not len(free):
        return
    rows = np.tile(widths, (len(free), 1))
    grown = np.where(widths >= allowed.top, allowed.down(widths - 1e-3), allowed.up(widths + 1e-3))
    rows[np.arange(len(free)), free] = grown[free]
    order = free[np.argsort(np.abs(cost_model.shares(rows) - cost_model.share(widths)), kind="stable")]
    stride = -(-len(order) // _WINDOW)
    for start in range(min(stride, _WINDOWS)):
        yield np.sort(order[start::stride][:_WINDOW])
    if stride > 1:
        yield np.sort(order[:_WINDOW])
        random = np.random.default_rng(0)
        for _ in range(_RANDOM):
            yield np.sort(random.choice(order, _WINDOW, replace=False))
