"""Depth: which blocks can go whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from autoprune.criteria.kept import KeptChannels
from autoprune.surgery.evidence import Evidence
from autoprune.trace.topology import Block, Topology


def with_blocks(topology: Topology, bench: Evidence, expired: Callable[[], bool]) -> Topology:
    """Keep the blocks that can be dropped: the innermost of those that are proved.

    Args:
        topology: With the blocks to prove.
        bench: What cuts and masks are compared on.
        expired: True once the time for proving is over.

    Returns:
        The topology with the blocks that are proved.

    """
    proved: list[Block] = []
    left = list(topology.blocks)
    while left:
        inner = [block for block in left if not any(_inside(other, block) for other in left)]
        proved += _droppable(topology, inner, bench, expired)
        left = [block for block in left if block not in inner and not any(_inside(b, block) for b in proved)]
    order = {block.name: number for number, block in enumerate(topology.blocks)}
    return replace(topology, blocks=tuple(sorted(proved, key=lambda block: order[block.name])))


def _droppable(
    topology: Topology, blocks: Sequence[Block], bench: Evidence, expired: Callable[[], bool]
) -> list[Block]:
    if not blocks or expired():
        return []
    kept = KeptChannels(groups={}, dropped=tuple(block.name for block in blocks))
    if bench.difference(topology, kept) is None:
        return list(blocks)
    if len(blocks) == 1:
        return []
    middle = len(blocks) // 2
    first, second = (_droppable(topology, part, bench, expired) for part in (blocks[:middle], blocks[middle:]))
    return first + second


def _inside(block: Block, other: Block) -> bool:
    return block != other and other.holds(block.name)
