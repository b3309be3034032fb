"""CostTable: the costs of any widths of a model, as plain data that does not need the model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoprune.codec import Format, from_plain, stored, to_plain_object
from autoprune.errors import StorageError, error_message
from autoprune.structure.blocks import DroppableBlock
from autoprune.structure.groups import PositionSpan
from autoprune.structure.topology import Topology

#: Upper bound of stored costs.
_HIGHEST = 1e60


@stored(Format(what="a length"))
@dataclass(frozen=True, slots=True, kw_only=True)
class AxisLength:
    """The length of an axis: whole - positions that are removed with their groups.

    Attributes:
        whole: Length in the dense model.
        single: (group, positions) of the positions that belong to one group.
        grids: (positions, groups) of the positions that stay only if they stay in each of several groups.
    """

    whole: float
    single: tuple[tuple[int, float], ...] = ()
    grids: tuple[tuple[float, tuple[int, ...]], ...] = ()

    @classmethod
    def of(cls, whole: int, spans: Iterable[PositionSpan], numbers: Mapping[str, int]) -> AxisLength:
        """Build the length of an axis from its spans.

        Args:
            whole: Length in the dense model.
            spans: Positions of the axis by group.
            numbers: Group name -> number. Positions of other groups stay.

        Returns:
            The length.
        """
        single: dict[int, float] = {}
        grids: list[tuple[float, tuple[int, ...]]] = []
        for span in spans:
            groups = tuple(numbers[name] for name in span.groups if name in numbers)
            if len(groups) == 1:
                single[groups[0]] = single.get(groups[0], 0.0) + span.positions
            elif groups:
                grids.append((float(span.positions), groups))
        return cls(whole=float(whole), single=tuple(sorted(single.items())), grids=tuple(sorted(grids)))

    def at(self, shares: Sequence[float]) -> float:
        """Compute the length in a cut model.

        Args:
            shares: Share of the channels of each group that stays.

        Returns:
            The length.
        """
        gone = sum(positions * (1.0 - shares[group]) for group, positions in self.single)
        grids = (positions * (1.0 - math.prod(shares[group] for group in groups)) for positions, groups in self.grids)
        return self.whole - gone - sum(grids)

    @property
    def groups(self) -> frozenset[int]:
        """Return the numbers of the groups that change the length."""
        return frozenset({group for group, _ in self.single}.union(*(groups for _, groups in self.grids)))


@stored(Format(what="a term"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Monomial:
    """Tensors, or products of activations, of one shape. Each cost is a price times the product of the lengths.

    Attributes:
        lengths: Numbers of the lengths, ascending.
        multiply_adds: Price in multiply-adds.
        parameters: Price in parameters.
        size_bytes: Price in bytes.
    """

    lengths: tuple[int, ...]
    multiply_adds: float
    parameters: float
    size_bytes: float

    @classmethod
    def bare(cls, lengths: tuple[int, ...]) -> Monomial:
        """Make a term whose price is given elsewhere.

        Args:
            lengths: Numbers of the lengths.

        Returns:
            The term, without prices of its own.
        """
        return cls(lengths=lengths, multiply_adds=0.0, parameters=0.0, size_bytes=0.0)


@stored(Format(what="a consistent table"))
@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """Every cost that follows from widths, and the widths that each group may have.

    Attributes:
        names: Names of the groups, in the order of the forward.
        channels: Dense width of each group.
        least: Fewest channels of each group, >= 1.
        kinds: Kind of each group.
        lengths: Axis lengths that the terms refer to by number.
        terms: The terms whose sum each cost is.
    """

    names: tuple[str, ...]
    channels: tuple[int, ...]
    least: tuple[int, ...]
    kinds: tuple[str, ...]
    lengths: tuple[AxisLength, ...]
    terms: tuple[Monomial, ...]

    @classmethod
    def of(cls, topology: Topology, dropped: Sequence[str] = ()) -> CostTable:
        """Build the table of a topology.

        Args:
            topology: Proved groups of the dense model.
            dropped: Names of blocks that are dropped.

        Returns:
            The table.
        """
        builder = _TableBuilder(topology, topology.dropped(dropped))
        builder.add_tensors()
        builder.add_contractions()
        return cls(
            names=tuple(group.name for group in topology.groups),
            channels=tuple(group.channels for group in topology.groups),
            least=tuple(group.min_channels for group in topology.groups),
            kinds=tuple(group.kind for group in topology.groups),
            lengths=tuple(builder.lengths),
            terms=tuple(
                Monomial(lengths=key, multiply_adds=prices[0], parameters=prices[1], size_bytes=prices[2])
                for key, prices in builder.terms.items()
            ),
        )

    def tied(self, leaders: Sequence[int]) -> CostTable:
        """Merge tied groups: the groups of one leader share one width, under the leader's name.

        Args:
            leaders: For each group the number of the first group that it is tied to; its own number if it is free. Tied
                groups have equally many channels.

        Returns:
            The table of the leaders.
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
        """Convert to JSON-ready data.

        Returns:
            Data that `from_dict` reads.
        """
        return to_plain_object(self)

    @classmethod
    def from_dict(cls, data: object, where: str = "a table of costs") -> CostTable:
        """Read the data of `to_dict`.

        Args:
            data: JSON data.
            where: The file or place it comes from, for messages.

        Returns:
            The table.

        Raises:
            StorageError: The data is no table, or contradicts itself.
        """
        table = from_plain(cls, data, where)
        fault_found = table.inconsistency()
        if fault_found:
            raise StorageError(error_message(where, "hold a consistent table", f"one in which {fault_found}"))
        return table

    def inconsistency(self) -> str:
        """Look for a contradiction inside a stored table.

        Returns:
            A clause that describes it; "" if there is none.
        """
        return self.inconsistency_of_lengths() or (self._free() if self.names else "")

    def inconsistency_of_lengths(self) -> str:
        """Look for a contradiction between groups, lengths and terms.

        Returns:
            A clause that describes it; "" if there is none.
        """
        groups, lengths = len(self.names), len(self.lengths)
        named = [group for length in self.lengths for group, _ in length.single]
        named += [group for length in self.lengths for _, grid in length.grids for group in grid]
        if not len(self.channels) == len(self.least) == len(self.kinds) == groups or len(set(self.names)) < groups:
            return "names, channels, least and kinds differ in length, or a name occurs twice"
        if not all(1 <= least <= channels for least, channels in zip(self.least, self.channels, strict=True)):
            return "a group has fewer channels than its minimum, or none"
        if not all(0 <= group < groups for group in named):
            return f"lengths refer to groups beyond the {groups} in the table"
        if not all(0 <= number < lengths for term in self.terms for number in term.lengths):
            return f"terms refer to lengths beyond the {lengths} in the table"
        whole = [length.whole for length in self.lengths]
        prices = [price for term in self.terms for price in (term.multiply_adds, term.parameters, term.size_bytes)]
        largest = max((math.prod(whole[number] for number in term.lengths) for term in self.terms), default=0.0)
        if min((*whole, *prices), default=0.0) < 0 or not largest * max(prices, default=0.0) < _HIGHEST:
            return "lengths or prices are below 0, or too high"
        return ""

    def _free(self) -> str:
        """A clause that names a cost which the dense model has none of; "" for none. Some layer reads every group."""
        sizes = [math.prod(self.lengths[number].whole for number in term.lengths) for term in self.terms]
        for axis in ("multiply_adds", "parameters", "size_bytes"):
            if not any(size * getattr(term, axis) > 0 for size, term in zip(sizes, self.terms, strict=True)):
                return f"the dense model has no {axis}, so that no budget can be a share of them"
        return ""


def number_lengths(lengths: Sequence[AxisLength], numbers: dict[AxisLength, int]) -> tuple[float, tuple[int, ...]]:
    """Give numbers to the lengths that some group changes.

    Args:
        lengths: Lengths of the axes of a tensor or product.
        numbers: Length -> number; grows by new lengths.

    Returns:
        Product of the lengths that no group changes, and the numbers of the others, ascending.
    """
    fixed = math.prod(length.whole for length in lengths if not length.groups)
    return fixed, tuple(sorted(numbers.setdefault(length, len(numbers)) for length in lengths if length.groups))


def _moved(length: AxisLength, at: Sequence[int]) -> AxisLength:
    """The length with its groups renumbered."""
    single: dict[int, float] = {}
    for group, positions in length.single:
        single[at[group]] = single.get(at[group], 0.0) + positions
    grids = tuple((positions, tuple(at[group] for group in groups)) for positions, groups in length.grids)
    return AxisLength(whole=length.whole, single=tuple(sorted(single.items())), grids=grids)


class _TableBuilder:
    """Collects lengths and terms, and merges equal ones."""

    def __init__(self, topology: Topology, dropped: Sequence[DroppableBlock]) -> None:
        self.topology, self.dropped = topology, dropped
        self.number = {group.name: position for position, group in enumerate(topology.groups)}
        self.lengths: dict[AxisLength, int] = {}
        self.terms: dict[tuple[int, ...], tuple[float, float, float]] = {}

    def add_tensors(self) -> None:
        """Add the parameters and buffers."""
        positions: dict[str, int] = {}
        for product in self.topology.products:
            positions[product.weight] = positions.get(product.weight, 0) + product.positions
        without = {tensor for block in self.dropped for tensor in block.tensors}
        for name, info in self.topology.tensors.items():
            if name in without:
                continue
            found = [
                AxisLength.of(size, self.topology.spans.get((name, axis), ()), self.number)
                for axis, size in enumerate(info.shape)
            ]
            prices = (float(positions.get(name, 0)), float(info.is_parameter), float(info.item_bytes))
            self._add(found, prices)

    def add_contractions(self) -> None:
        """Add the products of two activations, which cost multiply-adds alone."""
        for contraction in self.topology.contractions:
            if any(block.holds(contraction.module) for block in self.dropped):
                continue
            found = [AxisLength.of(sum(run.positions for run in axis), axis, self.number) for axis in contraction.axes]
            self._add(found, (float(contraction.positions), 0.0, 0.0))

    def _add(self, lengths: Sequence[AxisLength], prices: tuple[float, float, float]) -> None:
        """Add a term. Lengths that no group changes become part of its prices."""
        fixed, key = number_lengths(lengths, self.lengths)
        before = self.terms.get(key, (0.0, 0.0, 0.0))
        found = [old + price * fixed for old, price in itertools.zip_longest(before, prices)]
        self.terms[key] = (found[0], found[1], found[2])
