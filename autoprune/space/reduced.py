"""The reduced space: a budget, an exponent and eight multipliers, however many groups there are."""

from __future__ import annotations

import numpy as np

from autoprune.space.frame import Frame
from autoprune.space.scaled import Direction, ScaledSpace, followed, marked

#: Groups of groups, by depth.
MULTIPLIERS = 8
#: How far the scan may be followed: twice as far as it says, as a poor one has the right order and too small a spread.
_FARTHEST = 2.0
#: How strongly shares may follow costs, in either direction: by the root of them.
_BY_COST = 0.5


def reduced(frame: Frame) -> ScaledSpace:
    """Keep shares are solved^exponent * 2^multiplier, scaled onto the budget; costs^-exponent without a scan.

    exponent: 0 is the uniform sweep, 1 the scan's own allocation. Without a scan a positive one takes more from groups
    that cost more than others, a negative one less. multiplier: one for each of eight stretches of the network, from
    halving the share of its groups to doubling it, under the name of its first group.
    """
    if not frame.ties:
        return ScaledSpace(frame=frame, directions=[])
    if frame.path is not None:
        exponent = Direction(name="exponent", low=0.0, high=_FARTHEST, octaves=followed(frame), solved=1.0)
    else:
        costs = _costs(frame)
        exponent = Direction(name="exponent", low=-_BY_COST, high=_BY_COST, octaves=lambda _: costs)
    names = frame.names
    stretches = [stretch for stretch in np.array_split(np.arange(len(names)), MULTIPLIERS) if len(stretch)]
    multipliers = [
        Direction(name=f"multiplier/{names[stretch[0]]}", low=-1.0, high=1.0, octaves=marked(frame, stretch.tolist()))
        for stretch in stretches
    ]
    return ScaledSpace(frame=frame, directions=[exponent, *multipliers])


def _costs(frame: Frame) -> np.ndarray:
    """Minus the octaves by which what a tie costs differs from their middle, [ties]: what goes with half of it."""
    cost = frame.cost(())
    rows = np.tile(cost.channels, (len(cost.channels), 1))
    np.fill_diagonal(rows, cost.channels / 2)
    saved = np.maximum(1.0 - cost.shares(rows), 1e-6)
    octaves = np.log2(saved)
    return np.asarray(octaves.mean() - octaves)
