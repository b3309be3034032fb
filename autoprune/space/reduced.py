"""The reduced space: a budget, an exponent and eight multipliers, however many groups there are."""

from __future__ import annotations

import numpy as np

from autoprune.space.context import SpaceContext
from autoprune.space.scaled import ScaledSpace, ShapeParameter, indicator_profile, solved_profile

#: Groups of groups, by depth.
MULTIPLIERS = 8
#: How far the scan may be followed: twice as far as it says, as a poor one has the right order and too small a spread.
_MAX_EXPONENT = 2.0
#: How strongly shares may follow costs, in either direction: by the root of them.
_MAX_COST_EXPONENT = 0.5


def reduced(context: SpaceContext) -> ScaledSpace:
    """Keep shares are solved^exponent * 2^multiplier, scaled onto the budget; costs^-exponent without a scan.

    exponent: 0 is the uniform sweep, 1 the scan's own allocation. Without a scan a positive one takes more from groups
    that cost more than others, a negative one less. multiplier: one for each of eight stretches of the network, from
    halving the share of its groups to doubling it, under the name of its first group.
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
    """Minus the octaves by which what a tie costs differs from their middle, [ties]: what goes with half of it."""
    cost = context.cost(())
    rows = np.tile(cost.channels, (len(cost.channels), 1))
    np.fill_diagonal(rows, cost.channels / 2)
    saved = np.maximum(1.0 - cost.shares(rows), 1e-6)
    log2_scale = np.log2(saved)
    return np.asarray(log2_scale.mean() - log2_scale)
