"""Depth: which blocks can go whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoprune.criteria.kept import KeptChannels
from autoprune.surgery.evidence import Evidence
from autoprune.trace.blocks import Block
from autoprune.trace.topology import ChannelGroup, Topology


def with_blocks(topology: Topology, bench: Evidence, expired: Callable[[], bool]) -> Topology:
    """Keep the blocks that can be dropped, those inside of others too.

    Those of one depth are tried at once, and halved where that is wrong. What is right with whole channels has to be
    right with half of them too.

    Args:
        topology: With the blocks to prove.
        bench: What cuts and masks are compared on.
        expired: True once the time for proving is over.

    Returns:
        The topology with the blocks that are proved.

    """
    proof, proved = _Proof(topology, bench, expired), list[Block]()
    for blocks in _depths(topology.blocks):
        proved += proof.droppable(blocks)
    proved = proof.right(proved, {group.name: _half(group) for group in topology.groups})
    order = {block.needed: number for number, block in enumerate(topology.blocks)}
    left = [replace(block, otherwise=None) for block in sorted(proved, key=lambda block: order[block.needed])]
    return replace(topology, blocks=tuple(left))


def _depths(blocks: Sequence[Block]) -> list[list[Block]]:
    """Blocks with no others inside of them, then those with only these inside, and so on."""
    left, found = list(blocks), []
    while left:
        found.append([block for block in left if not any(other.needed < block.needed for other in left)])
        left = [block for block in left if block not in found[-1]]
    return found


@dataclass(frozen=True, slots=True)
class _Proof:
    """The proof of blocks."""

    topology: Topology
    bench: Evidence
    expired: Callable[[], bool]

    def droppable(self, blocks: Sequence[Block]) -> list[Block]:
        """Those of the blocks that can go, or what means the same as they do."""
        proved: list[Block] = []
        while blocks:
            right = self.right(blocks, {})
            proved += right
            blocks = [block.otherwise for block in blocks if block not in right and block.otherwise is not None]
        return proved

    def right(self, blocks: Sequence[Block], groups: Mapping[str, tuple[int, ...]]) -> list[Block]:
        """Those of the blocks that are right: all at once, else half by half. groups: channels that stay beside."""
        if not blocks or self.expired():
            return []
        topology = replace(self.topology, blocks=tuple(blocks))
        kept = KeptChannels(groups=groups, dropped=tuple(block.name for block in blocks))
        if self.bench.difference(topology, kept) is None:
            return list(blocks)
        if len(blocks) == 1:
            return []
        middle = len(blocks) // 2
        return self.right(blocks[:middle], groups) + self.right(blocks[middle:], groups)


def _half(group: ChannelGroup) -> tuple[int, ...]:
    return tuple(range(max(group.channels // 2, group.least)))
