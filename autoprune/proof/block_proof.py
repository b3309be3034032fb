"""Prove which blocks and layers can be dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from autoprune.plan.kept import KeptChannels
from autoprune.proof.comparison import EquivalenceCheck
from autoprune.structure.blocks import DroppableBlock, is_part
from autoprune.structure.reasons import DIFFERS, INEXACT, NEEDED, NEEDED_ONE, NOT_RUNNING, PROOF_TIME, Reason
from autoprune.structure.topology import Topology
from autoprune.structure.unprunable import IneligibleModule


def with_blocks(topology: Topology, check: EquivalenceCheck) -> Topology:
    """Keep the blocks and layers that can be dropped, nested ones as well.

    Blocks of one depth are tried together, and halved where they fail. A block that passes with all channels has to
    pass with half of them too. Blocks after which other blocks may take another path are also tried without these.
    Layers have to run: all dropped together, and in sets that separate any two of them.

    Args:
        topology: The topology, with the candidates for blocks.
        check: Compares cuts with masks.

    Returns:
        The topology with the proved blocks; the others are listed with the reason.

    Raises:
        OutOfTime: When the deadline of `check` passes.
    """
    proof, proved = _Proof(topology, check), list[DroppableBlock]()
    for blocks in _depths([block for block in topology.blocks if block.exact]):
        proved += proof.droppable(blocks)
    check.forget()  # a layer may have the name of a block that was tried
    left = [way for block in topology.blocks for way in _ways(block) if not way.exact]
    known = [block.needed for block in proved]
    layers = proof.running([layer for layer in left if layer.needed not in known])
    narrow = {group.name: tuple(range(group.half)) for group in topology.groups}
    proved = [*proof.steady(proof.right(proved, narrow), narrow), *proof.right(layers, narrow)]
    order = {way.needed: number for number, block in enumerate(topology.blocks) for way in _ways(block)}
    found = [replace(block, otherwise=None) for block in sorted(proved, key=lambda block: order[block.needed])]
    whole = [block for block in found if not _is_stack(block, found)]
    return replace(
        topology, blocks=tuple(whole), ineligible=(*topology.ineligible, *_ineligible(topology, proved, proof.faults))
    )


def block_faults(topology: Topology, blocks: Sequence[DroppableBlock], check: EquivalenceCheck) -> Mapping[str, Reason]:
    """Find the blocks that fail another check than the one that proved them.

    Args:
        topology: The topology, with its proved blocks.
        blocks: The blocks to look at.
        check: The other check.

    Returns:
        Name of each failing block -> reason.
    """
    proof = _Proof(topology, check)
    for some in _depths(blocks):
        proof.right(some, {})
    return {block.name: reason for block, reason in proof.faults.items()}


def without_depth(topology: Topology) -> Topology:
    """Withdraw all blocks and layers, for lack of time.

    Args:
        topology: The topology, with the candidates for blocks.

    Returns:
        The topology without them.
    """
    faults = {way: Reason(kind=PROOF_TIME) for block in topology.blocks for way in _ways(block)}
    return replace(topology, blocks=(), ineligible=(*topology.ineligible, *_ineligible(topology, (), faults)))


def _ineligible(
    topology: Topology, proved: Sequence[DroppableBlock], faults: Mapping[DroppableBlock, Reason]
) -> Iterator[IneligibleModule]:
    """Yield each block or layer of which no alternative is proved, with the reason."""
    for block in topology.blocks:
        ways = list(_ways(block))
        for kind in ("blocks", "layers"):
            tried = [way for way in ways if way.is_of(kind)]
            if tried and not any(way in proved for way in tried):
                why = next((faults[way] for way in reversed(tried) if way in faults), None)
                if why is not None:
                    yield IneligibleModule(kind=kind, module=block.name, why=why)


def _ways(block: DroppableBlock) -> Iterator[DroppableBlock]:
    """Yield a block and its alternatives."""
    yield block
    if block.otherwise is not None:
        yield from _ways(block.otherwise)


def _is_stack(block: DroppableBlock, blocks: Sequence[DroppableBlock]) -> bool:
    """Tell whether a block is nothing but droppable layers."""
    parts = [other.needed for other in blocks if other.repeated and is_part(other, block)]
    return len(parts) > 1 and not block.repeated and block.needed <= frozenset[str]().union(*parts)


def _depths(blocks: Sequence[DroppableBlock]) -> list[list[DroppableBlock]]:
    """Sort blocks by depth: those without others inside, then those with only these inside, and so on."""
    left, found = list(blocks), []
    while left:
        found.append([block for block in left if not any(other.needed < block.needed for other in left)])
        left = [block for block in left if block not in found[-1]]
    return found


@dataclass(frozen=True, slots=True)
class _Proof:
    """A proof of blocks in progress."""

    topology: Topology
    check: EquivalenceCheck
    faults: dict[DroppableBlock, Reason] = field(default_factory=dict)

    def droppable(self, blocks: Sequence[DroppableBlock]) -> list[DroppableBlock]:
        """Return the blocks that can be dropped, or an exact alternative of each."""
        proved: list[DroppableBlock] = []
        while blocks:
            right = self.right(blocks, {})
            proved += right
            others = [block.otherwise for block in blocks if block not in right]
            blocks = [block for block in others if block is not None and block.exact]
        return proved

    def right(self, blocks: Sequence[DroppableBlock], groups: Mapping[str, tuple[int, ...]]) -> list[DroppableBlock]:
        """Return the blocks that pass: tried together, else half by half. groups: channels that stay in some groups."""
        if not blocks:
            return []
        fault = self._inexact(blocks, groups)
        if fault is None:
            return list(blocks)
        if len(blocks) == 1:
            self.faults.update(dict.fromkeys(blocks, fault))
            return []
        middle = len(blocks) // 2
        return self.right(blocks[:middle], groups) + self.right(blocks[middle:], groups)

    def _inexact(self, blocks: Sequence[DroppableBlock], groups: Mapping[str, tuple[int, ...]]) -> Reason | None:
        compare = self.check.difference if groups else self.check.first_difference
        why = compare(*self._without(blocks, groups))
        if why is None:
            return None
        note = "; with half of the channels beside" if groups else ""
        plain = {DIFFERS: f"the outputs differ {why.detail}", NOT_RUNNING: f"the model does not run: {why.detail}"}
        how = plain.get(why.kind, why.words)
        return Reason(kind=INEXACT, detail=f"{how}{note}", line=why.line)

    def steady(self, blocks: Sequence[DroppableBlock], groups: Mapping[str, tuple[int, ...]]) -> list[DroppableBlock]:
        """Return the blocks that also pass beside remaining blocks that take another path if an output is missing.

        Dropping all of them at once would hide that, so sets are dropped that separate any two of them.
        """
        left = [block for block in blocks if block.withholds]
        for some in _sets(left):
            for kept in ({}, groups):
                right = self.right([block for block in some if block in left], kept)
                left = [block for block in left if block not in some or block in right]
        return [block for block in blocks if block in left or not block.withholds]

    def running(self, layers: Sequence[DroppableBlock]) -> list[DroppableBlock]:
        """Return the layers without which the model runs."""
        if not layers or all(self._needed(some) is None for some in _sets(layers)):
            return list(layers)
        found: list[DroppableBlock] = []
        for layer in layers:
            fault = self._needed([layer])
            if fault is None and found and self._needed([*found, layer]) is not None:
                fault = Reason(kind=NEEDED_ONE)
            if fault is None:
                found.append(layer)
            else:
                self.faults[layer] = fault
        return found

    def _needed(self, layers: Sequence[DroppableBlock]) -> Reason | None:
        reason = self.check.runs(*self._without(layers, {}))
        return None if reason is None else Reason(kind=NEEDED, detail=reason)

    def _without(
        self, blocks: Sequence[DroppableBlock], groups: Mapping[str, tuple[int, ...]]
    ) -> tuple[Topology, KeptChannels]:
        kept = KeptChannels(groups=groups, dropped=tuple(block.name for block in blocks))
        return replace(self.topology, blocks=tuple(blocks)), kept


def _sets(layers: Sequence[DroppableBlock]) -> Iterator[list[DroppableBlock]]:
    """Yield all layers, then sets that separate any two of them, by the binary digits of their numbers."""
    yield list(layers)
    for digit in range((len(layers) - 1).bit_length()):
        for value in (0, 1):
            yield [layer for number, layer in enumerate(layers) if number >> digit & 1 == value]
