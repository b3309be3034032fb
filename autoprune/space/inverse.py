"""From widths back to the parameters that give them, where widths are 2^(linear in the parameters)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from autoprune.sensitivity.cost_model import CostModel
from autoprune.sensitivity.rounding import AllowedWidths

#: How much less it counts that parameters are small than that they give the widths.
_SIZE_PENALTY = 1e-3
#: The inner part of what is rounded to a width, where a fractional one is to lie: the width itself first.
_INNER_FRACTIONS = (0.0, 0.3, 0.6, 0.9)
#: Stands for the side of a width without bound, in octaves: what is clipped there may lie anywhere.
_UNBOUNDED = 60.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearShape:
    """Parameters x with which a group keeps the share 2^(matrix x + constant) of its channels, before it is clipped.

    matrix: float [groups, parameters]. low, high: bounds of x [parameters]; 0 lies within.
    """

    matrix: np.ndarray
    low: np.ndarray
    high: np.ndarray


def invert_widths(
    shape: LinearShape, widths: np.ndarray, cost_model: CostModel, allowed: AllowedWidths
) -> Iterator[np.ndarray]:
    """Small parameters with which scaling onto the cost of these widths, and rounding, gives them; the nearest else.

    widths: allowed ones [groups]. Yields x [parameters], several ways to take "near".
    Linear programs: every group's fractional width is to lie in the inner part of where it is rounded to the whole
    one, as many of them as can; and to first order all of them together cost what the whole ones do.
    """
    for inner in _INNER_FRACTIONS:
        found = _solved(shape, (widths, inner), cost_model, allowed)
        if found is not None:
            yield np.asarray(np.clip(found, shape.low, shape.high))


def _solved(
    shape: LinearShape, aim: tuple[np.ndarray, float], cost_model: CostModel, allowed: AllowedWidths
) -> np.ndarray | None:
    from scipy.optimize import linprog  # heavy, and needed for plans from outside alone

    (widths, inner), (groups, count) = aim, shape.matrix.shape
    target = np.log2(widths / cost_model.channels)
    up, down = _slack(widths, allowed)
    above, below = up < _UNBOUNDED, down < _UNBOUNDED
    # Unknowns: positive and negative parts of x, the common factor in octaves, and how far each width lies outside.
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
    """Octaves by which each width may grow and shrink before it is rounded to another one."""
    low, high = allowed.rounding_interval(widths)
    bounded = np.isfinite(high)
    up = np.where(bounded, np.log2(np.where(bounded, high, widths) / widths), _UNBOUNDED)
    down = np.where(low > 0, np.log2(widths / np.where(low > 0, low, widths)), _UNBOUNDED)
    return up, down


def _slopes(cost_model: CostModel, widths: np.ndarray) -> np.ndarray:
    """Change of the cost's share of dense for each octave of a width, [groups]."""
    step = 1e-4
    rows = np.tile(widths, (len(widths), 1))
    np.fill_diagonal(rows, widths * 2.0**step)
    return np.asarray((cost_model.shares(rows) - cost_model.share(widths)) / step)
