"""CostTable: what any widths of a model cost, as plain data that does not need the model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from autoprune.errors import StorageError, fault
from autoprune.trace.topology import Block, Run, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long an axis is: whole - sum of positions that go with their groups.

    whole: in the dense model. single: (group, positions) that go with one group. grids: (positions, groups) where a
    position stays when it stays in each of them. Groups are numbers.
    """

    whole: float
    single: tuple[tuple[int, float], ...] = ()
    grids: tuple[tuple[float, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """Tensors, or products of activations, of one shape: each cost is a price times the product of the lengths.

    lengths: numbers of lengths, ascending. multiply_adds, parameters, size_bytes: the prices.
    """

    lengths: tuple[int, ...]
    multiply_adds: float
    parameters: float
    size_bytes: float


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
        maker = _Maker(topology, [topology.block(name) for name in dropped])
        maker.add_tensors()
        maker.add_contractions()
        return cls(
            names=tuple(group.name for group in topology.groups),
            channels=tuple(group.channels for group in topology.groups),
            least=tuple(group.least for group in topology.groups),
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
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> CostTable:
        """Read what `to_dict` gave. Raises StorageError for anything else."""
        try:
            assert isinstance(data, Mapping)
            return cls(
                **{name: tuple(data[name]) for name in ("names", "channels", "least", "kinds")},
                lengths=tuple(_length(entry) for entry in data["lengths"]),
                terms=tuple(Term(**{**entry, "lengths": tuple(entry["lengths"])}) for entry in data["terms"]),
            )
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise StorageError(fault("a table of costs", "hold one", f"{type(error).__name__}: {error}")) from error


def _moved(length: Length, at: Sequence[int]) -> Length:
    """The length with its groups renumbered."""
    single: dict[int, float] = {}
    for group, positions in length.single:
        single[at[group]] = single.get(at[group], 0.0) + positions
    grids = tuple((positions, tuple(at[group] for group in groups)) for positions, groups in length.grids)
    return Length(whole=length.whole, single=tuple(sorted(single.items())), grids=grids)


def _length(entry: Mapping[str, Sequence[Sequence[float]]]) -> Length:
    return Length(
        whole=float(entry["whole"]),  # type: ignore[arg-type]  # the one field that is a number
        single=tuple((int(group), float(positions)) for group, positions in entry["single"]),
        grids=tuple((float(positions), tuple(groups)) for positions, groups in entry["grids"]),  # type: ignore[arg-type]
    )


class _Maker:
    """Collects lengths and terms; equal ones are one."""

    def __init__(self, topology: Topology, dropped: Sequence[Block]) -> None:
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
                self._length(size, self.topology.runs.get((name, axis), ())) for axis, size in enumerate(info.shape)
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

    def _length(self, whole: int, runs: Iterable[Run]) -> Length:
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
