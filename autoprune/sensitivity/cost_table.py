"""CostTable: what any widths of a model cost, as plain data that does not need the model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from autoprune.codec import Format, from_plain, stored, to_plain_object
from autoprune.errors import StorageError, error_message
from autoprune.trace.blocks import DroppableBlock
from autoprune.trace.topology import PositionSpan, Topology

#: Costs lie below this.
_HIGHEST = 1e60


@stored(Format(what="a length"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long an axis is: whole - sum of positions that go with their groups.

    whole: in the dense model. single: (group, positions) that go with one group. grids: (positions, groups) where a
    position stays when it stays in each of them. Groups are numbers.
    """

    whole: float
    single: tuple[tuple[int, float], ...] = ()
    grids: tuple[tuple[float, tuple[int, ...]], ...] = ()


@stored(Format(what="a term"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """Tensors, or products of activations, of one shape: each cost is a price times the product of the lengths.

    lengths: numbers of lengths, ascending. multiply_adds, parameters, size_bytes: the prices.
    """

    lengths: tuple[int, ...]
    multiply_adds: float
    parameters: float
    size_bytes: float


@stored(Format(what="one"))
@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """Every cost that follows from widths, and what widths a group may have.

    names, channels, least, kinds: of the groups, in the order of the forward. lengths, terms: what costs are made of.
    """

    names: tuple[str, ...]
    channels: tuple[int, ...]
    least: tuple[int, ...]
    kinds: tuple[str, ...]
    lengths: tuple[Length, ...]
    terms: tuple[Term, ...]

    @classmethod
    def of(cls, topology: Topology, dropped: Sequence[str] = ()) -> CostTable:
        """The table of a topology. dropped: names of blocks that are gone."""
        maker = _Maker(topology, topology.dropped(dropped))
        maker.add_tensors()
        maker.add_contractions()
        return cls(
            names=tuple(group.name for group in topology.groups),
            channels=tuple(group.channels for group in topology.groups),
            least=tuple(group.min_channels for group in topology.groups),
            kinds=tuple(group.kind for group in topology.groups),
            lengths=tuple(maker.lengths),
            terms=tuple(
                Term(lengths=key, multiply_adds=prices[0], parameters=prices[1], size_bytes=prices[2])
                for key, prices in maker.terms.items()
            ),
        )

    def tied(self, leaders: Sequence[int]) -> CostTable:
        """The table of groups that are tied: those of one leader have one width, under its name.

        leaders: for each group the number of the first one that it is tied to, itself where it is free. Tied groups
        have as many channels.
        """
        first = sorted(set(leaders))
        place = {leader: position for position, leader in enumerate(first)}
        at = [place[leader] for leader in leaders]
        members = [[group for group, leader in enumerate(leaders) if leader == one] for one in first]
        return replace(
            self,
            names=tuple(self.names[one] for one in first),
            channels=tuple(self.channels[one] for one in first),
            least=tuple(max(self.least[group] for group in tie) for tie in members),
            kinds=tuple(self.kinds[one] for one in first),
            lengths=tuple(_moved(length, at) for length in self.lengths),
        )

    def to_dict(self) -> dict[str, object]:
        """JSON-ready data that `from_dict` reads."""
        return to_plain_object(self)

    @classmethod
    def from_dict(cls, data: object, where: str = "a table of costs") -> CostTable:
        """Read what `to_dict` gave. where: what holds it, for the message. Raises StorageError for anything else."""
        table = from_plain(cls, data, where)
        fault_found = table.inconsistency()
        if fault_found:
            raise StorageError(error_message(where, "hold one", f"one in which {fault_found}"))
        return table

    def inconsistency(self) -> str:
        """What of a stored table contradicts the rest, in words; "" for nothing."""
        groups, lengths = len(self.names), len(self.lengths)
        named = [group for length in self.lengths for group, _ in length.single]
        named += [group for length in self.lengths for _, grid in length.grids for group in grid]
        if not len(self.channels) == len(self.least) == len(self.kinds) == groups or len(set(self.names)) < groups:
            return "names, channels, least and kinds are not of as many different groups"
        if not all(1 <= least <= channels for least, channels in zip(self.least, self.channels, strict=True)):
            return "a group has fewer channels than the least that it needs, or none"
        if not all(0 <= group < groups for group in named):
            return f"lengths name groups beyond the {groups} there are"
        if not all(0 <= number < lengths for term in self.terms for number in term.lengths):
            return f"terms name lengths beyond the {lengths} there are"
        whole = [length.whole for length in self.lengths]
        prices = [price for term in self.terms for price in (term.multiply_adds, term.parameters, term.size_bytes)]
        largest = max((math.prod(whole[number] for number in term.lengths) for term in self.terms), default=0.0)
        if min((*whole, *prices), default=0.0) < 0 or not largest * max(prices, default=0.0) < _HIGHEST:
            return "lengths or prices are below 0, or too high"
        return self._free() if groups else ""

    def _free(self) -> str:
        """What the dense model has none of, in words; "" for nothing. A group is read by some layer, so it has each."""
        sizes = [math.prod(self.lengths[number].whole for number in term.lengths) for term in self.terms]
        for axis in ("multiply_adds", "parameters", "size_bytes"):
            if not any(size * getattr(term, axis) > 0 for size, term in zip(sizes, self.terms, strict=True)):
                return f"the dense model costs no {axis}, of which budgets are shares"
        return ""


def _moved(length: Length, at: Sequence[int]) -> Length:
    """The length with its groups renumbered."""
    single: dict[int, float] = {}
    for group, positions in length.single:
        single[at[group]] = single.get(at[group], 0.0) + positions
    grids = tuple((positions, tuple(at[group] for group in groups)) for positions, groups in length.grids)
    return Length(whole=length.whole, single=tuple(sorted(single.items())), grids=grids)


class _Maker:
    """Collects lengths and terms; equal ones are one."""

    def __init__(self, topology: Topology, dropped: Sequence[DroppableBlock]) -> None:
        self.topology, self.dropped = topology, dropped
        self.number = {group.name: position for position, group in enumerate(topology.groups)}
        self.lengths: dict[Length, int] = {}
        self.terms: dict[tuple[int, ...], tuple[float, float, float]] = {}

    def add_tensors(self) -> None:
        """Parameters and buffers."""
        positions: dict[str, int] = {}
        for product in self.topology.products:
            positions[product.weight] = positions.get(product.weight, 0) + product.positions
        without = {tensor for block in self.dropped for tensor in block.tensors}
        for name, info in self.topology.tensors.items():
            if name in without:
                continue
            found = [
                self._length(size, self.topology.spans.get((name, axis), ())) for axis, size in enumerate(info.shape)
            ]
            prices = (float(positions.get(name, 0)), float(info.is_parameter), float(info.item_bytes))
            self._add(found, prices)

    def add_contractions(self) -> None:
        """Products of two activations: multiply-adds alone."""
        for contraction in self.topology.contractions:
            if any(block.holds(contraction.module) for block in self.dropped):
                continue
            found = [self._length(sum(run.positions for run in axis), axis) for axis in contraction.axes]
            self._add(found, (float(contraction.positions), 0.0, 0.0))

    def _length(self, whole: int, runs: Iterable[PositionSpan]) -> Length:
        single: dict[int, float] = {}
        grids: list[tuple[float, tuple[int, ...]]] = []
        for run in runs:
            groups = tuple(self.number[name] for name in run.groups if name in self.number)
            if len(groups) == 1:
                single[groups[0]] = single.get(groups[0], 0.0) + run.positions
            elif groups:
                grids.append((float(run.positions), groups))
        return Length(whole=float(whole), single=tuple(sorted(single.items())), grids=tuple(sorted(grids)))

    def _add(self, lengths: Sequence[Length], prices: tuple[float, float, float]) -> None:
        """A term; axes that no group touches are part of its prices."""
        fixed = math.prod(length.whole for length in lengths if not length.single and not length.grids)
        free = [length for length in lengths if length.single or length.grids]
        key = tuple(sorted(self.lengths.setdefault(length, len(self.lengths)) for length in free))
        before = self.terms.get(key, (0.0, 0.0, 0.0))
        found = [old + price * fixed for old, price in itertools.zip_longest(before, prices)]
        self.terms[key] = (found[0], found[1], found[2])
