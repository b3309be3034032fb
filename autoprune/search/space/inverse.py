"""Inversion of the scaled spaces: find parameters for given widths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from autoprune.search.allocation.allowed_widths import AllowedWidths
from autoprune.search.allocation.cost_model import CostModel

#: Weight of the parameters' size against the distance of the widths.
_SIZE_PENALTY = 1e-3
#: Parts of the rounding interval in which fractional widths are sought: the width itself first.
_INNER_FRACTIONS = (0.0, 0.3, 0.6, 0.9)
#: log2 distance to a missing bound: a width that is clipped there may lie anywhere.
_UNBOUNDED = 60.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearShape:
    """A linear map from parameters x to log2 of the keep shares: matrix x + constant, before clipping.

    Attributes:
        matrix: Float [groups, parameters].
        low: Lower bounds of x, float [parameters], <= 0.
        high: Upper bounds of x, float [parameters], >= 0.
    """

    matrix: np.ndarray
    low: np.ndarray
    high: np.ndarray


def invert_widths(
    shape: LinearShape, widths: np.ndarray, cost_model: CostModel, allowed: AllowedWidths
) -> Iterator[np.ndarray]:
    """Find parameters that decode to these widths, preferring small ones; the nearest if none do.

    Solves linear programs: as many fractional widths as possible lie well inside the interval that rounds to the wanted
    width, and to first order the fractional widths cost as much as the wanted ones.

    Args:
        shape: Map from parameters to keep shares.
        widths: Allowed widths, float [groups].
        cost_model: Cost that the space scales onto.
        allowed: Allowed widths of each group.

    Yields:
        Parameters, float [parameters]; one candidate for each meaning of "well inside".
    """
    for inner in _INNER_FRACTIONS:
        found = _solved(shape, (widths, inner), cost_model, allowed)
        if found is not None:
            yield np.asarray(np.clip(found, shape.low, shape.high))


def _solved(
    shape: LinearShape, aim: tuple[np.ndarray, float], cost_model: CostModel, allowed: AllowedWidths
) -> np.ndarray | None:
    from scipy.optimize import linprog  # slow to import, and needed for plans from outside alone

    (widths, inner), (groups, count) = aim, shape.matrix.shape
    target = np.log2(widths / cost_model.channels)
    up, down = _slack(widths, allowed)
    above, below = up < _UNBOUNDED, down < _UNBOUNDED
    # Unknowns: positive and negative parts of x, log2 of the common factor, distance of each width to its interval.
    spread = np.hstack([shape.matrix, -shape.matrix, np.ones((groups, 1))])
    outside = np.eye(groups)
    slopes = np.where(above & below, _slopes(cost_model, widths), 0.0)
    far = 1.0 / np.minimum(up, down).clip(1e-3, 1.0)
    answer = linprog(
        np.concatenate([np.full(2 * count, _SIZE_PENALTY), [0.0], far]),
        A_ub=np.vstack([np.hstack([spread, -outside])[above], np.hstack([-spread, -outside])[below]]),
        b_ub=np.concatenate([(target + inner * up)[above], (inner * down - target)[below]]),
        A_eq=np.append(slopes @ spread, np.zeros(groups))[None, :],
        b_eq=[slopes @ target],
        bounds=[
            *((0.0, float(high)) for high in shape.high),
            *((0.0, -float(low)) for low in shape.low),
            (None, None),
            *[(0.0, None)] * groups,
        ],
    )
    return None if answer.x is None else np.asarray(answer.x[:count] - answer.x[count : 2 * count])


def _slack(widths: np.ndarray, allowed: AllowedWidths) -> tuple[np.ndarray, np.ndarray]:
    """Return log2 of the factors by which each width may grow and shrink before it rounds to another width."""
    low, high = allowed.rounding_interval(widths)
    bounded = np.isfinite(high)
    up = np.where(bounded, np.log2(np.where(bounded, high, widths) / widths), _UNBOUNDED)
    down = np.where(low > 0, np.log2(widths / np.where(low > 0, low, widths)), _UNBOUNDED)
    return up, down


def _slopes(cost_model: CostModel, widths: np.ndarray) -> np.ndarray:
    """Return the change of the relative cost per doubling of each width, float [groups]."""
    step = 1e-4
    rows = np.tile(widths, (len(widths), 1))
    np.fill_diagonal(rows, widths * 2.0**step)
    return np.asarray((cost_model.shares(rows) - cost_model.share(widths)) / step)
