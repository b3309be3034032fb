"""Which cuts of a model to time, so that the latency of any other can be predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.records.layer_table import LayerTable
from autoprune.search.allocation.allowed_widths import AllowedWidths

#: Profiles by an earlier set of models or by an earlier rule for the grain are made anew: those of 1 know nothing of
#: widths below one grain, and those of 2 may hold a grain some of whose multiples are slower than wider ones.
DESIGN_VERSION = 3
#: Smallest share of the channels that a design keeps in the mean.
_NARROWEST = 0.03
#: One model in so many has any widths, on the grain or off it.
_ANY_WIDTHS = 5
#: Standard deviations of the logarithm to base 2 of a group's share: uniform, mildly and wildly different groups.
_SPREADS = (0.0, 0.5, 1.0)
#: Share of the blocks that go, in every second model of those that lose blocks.
_DROPPED = (0.2, 0.5)
#: Fraction of the golden ratio: its multiples cover (0, 1) evenly, however many there are.
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Widths and dropped blocks of a model to time.

    Attributes:
        widths: Group name -> width.
        dropped: Names of blocks.
    """

    widths: Mapping[str, int]
    dropped: tuple[str, ...] = ()


def timing_design(table: LayerTable, grains: Mapping[str, int], seed: int = 0) -> Iterator[Cut]:
    """Propose cuts without end; any number of the first ones covers budgets, widths and depths.

    The share of channels that stay runs from all to a thirtieth, so that some groups are narrower than one grain, and
    groups differ by none to a wide spread around it. Four of five cuts have widths that rounding to the grain allows,
    and the fifth any widths. Where the model has blocks that can be dropped, every second cut drops some.

    Args:
        table: Work of the layers, with the groups.
        grains: Group name -> distance between fast widths.
        seed: Seed of the spreads and of the choice of blocks.

    Yields:
        Cuts.
    """
    random = np.random.default_rng(seed)
    channels = np.array(table.channels, dtype=np.float64)
    fast = AllowedWidths.of(table.least, [grains.get(name, 1) for name in table.names], table.channels)
    every = AllowedWidths.of(table.least, [1] * len(channels), table.channels)
    blocks, number = sorted(table.blocks), 0
    while True:
        share = _NARROWEST ** ((number + 1) * _GOLDEN % 1)
        spread = _SPREADS[number % len(_SPREADS)]
        exact = channels * share * np.exp2(spread * random.normal(size=len(channels)))
        allowed = every if number % _ANY_WIDTHS == _ANY_WIDTHS - 1 else fast
        widths = allowed.nearest(exact).astype(int).tolist()
        gone: tuple[str, ...] = ()
        if blocks and number % 2:
            chance = _DROPPED[number // 2 % len(_DROPPED)]
            gone = tuple(block for block in blocks if random.random() < chance)
        yield Cut(widths=dict(zip(table.names, widths, strict=True)), dropped=gone)
        number += 1
