"""The reduced space: a budget, an exponent and eight multipliers, for any number of groups."""

from __future__ import annotations

import numpy as np

from autoprune.search.space.context import SpaceContext
from autoprune.search.space.scaled import ScaledSpace, ShapeParameter, indicator_profile, solved_profile

#: Number of stretches of the network that have one multiplier.
MULTIPLIERS = 8
#: Largest exponent of the solved allocation: a poor scan has the right order but too small a spread.
_MAX_EXPONENT = 2.0
#: Largest exponent of the costs, in either direction: keep shares follow their square root.
_MAX_COST_EXPONENT = 0.5


def reduced(context: SpaceContext) -> ScaledSpace:
    """Build the reduced space: keep shares are solved^exponent * 2^multiplier, scaled onto the budget.

    Exponent 0 is the uniform sweep, 1 the scan's allocation. Without a scan keep shares are costs^-exponent: a positive
    exponent prunes expensive groups more, a negative one less. There is one multiplier for each of eight stretches of
    the network, from half to twice the keep share of its groups, named after its first group.

    Args:
        context: Settings, topology and scan.

    Returns:
        The space.
    """
    if not context.ties:
        return ScaledSpace(context=context, shape_parameters=[])
    if context.path is not None:
        exponent = ShapeParameter(
            name="exponent", low=0.0, high=_MAX_EXPONENT, log2_scale=solved_profile(context), solved=1.0
        )
    else:
        costs = _cost_profile(context)
        exponent = ShapeParameter(
            name="exponent", low=-_MAX_COST_EXPONENT, high=_MAX_COST_EXPONENT, log2_scale=lambda _: costs
        )
    names = context.names
    stretches = [stretch for stretch in np.array_split(np.arange(len(names)), MULTIPLIERS) if len(stretch)]
    multipliers = [
        ShapeParameter(
            name=f"multiplier/{names[stretch[0]]}",
            low=-1.0,
            high=1.0,
            log2_scale=indicator_profile(context, stretch.tolist()),
        )
        for stretch in stretches
    ]
    return ScaledSpace(context=context, shape_parameters=[exponent, *multipliers])


def _cost_profile(context: SpaceContext) -> np.ndarray:
    """Return minus log2 of the cost saved by halving each tie, centred, float [ties]."""
    cost = context.cost(())
    rows = np.tile(cost.channels, (len(cost.channels), 1))
    np.fill_diagonal(rows, cost.channels / 2)
    saved = np.maximum(1.0 - cost.shares(rows), 1e-6)
    log2_scale = np.log2(saved)
    return np.asarray(log2_scale.mean() - log2_scale)
