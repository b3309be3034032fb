"""LayerTable: the work of every layer at any widths, as plain data, from which a latency is predicted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from autoprune.codec import Format, stored
from autoprune.errors import UnknownNameError
from autoprune.records.cost_table import AxisLength, CostTable, Monomial, number_lengths
from autoprune.structure.products import Product, TensorInfo
from autoprune.structure.topology import Topology

#: Kinds of work: multiply-adds, numbers that a layer writes and reads, bytes of its weight, and the call itself.
WORK_UNITS = ("multiply_adds", "outputs", "inputs", "weight_bytes", "calls")
#: Kind of a product of two activations.
ATTENTION = "attention"


@stored(Format(what="work of a layer"))
@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWork:
    """Work of one kind in one layer: `count` times the product of the lengths.

    Attributes:
        layer: Name of the layer's weight; for a product of activations, of its module with a number.
        kind: Kind of the layer, such as "pointwise convolution".
        unit: One of WORK_UNITS.
        count: Factor, for what no group changes.
        lengths: Numbers of the lengths.
    """

    layer: str
    kind: str
    unit: str
    count: float
    lengths: tuple[int, ...] = ()


@stored(Format(what="a table of layers"))
@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTable:
    """Work of the layers of a model.

    Attributes:
        names: Names of the groups, in the order of the forward.
        channels: Dense width of each group.
        least: Fewest channels of each group.
        kinds: Kind of each group.
        lengths: Axis lengths that the work refers to by number.
        work: Work of all layers.
        blocks: Name of a block that can be dropped -> numbers of the entries of `work` that go with it.
    """

    names: tuple[str, ...]
    channels: tuple[int, ...]
    least: tuple[int, ...]
    kinds: tuple[str, ...]
    lengths: tuple[AxisLength, ...]
    work: tuple[LayerWork, ...]
    blocks: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", MappingProxyType(dict(self.blocks)))

    @classmethod
    def of(cls, topology: Topology) -> LayerTable:
        """Build the table of a topology.

        Args:
            topology: Proved groups of the dense model.

        Returns:
            The table.
        """
        builder = _Builder(topology)
        for product in topology.products:
            builder.add_product(product)
        for number in range(len(topology.contractions)):
            builder.add_contraction(number)
        return cls(
            names=tuple(group.name for group in topology.groups),
            channels=tuple(group.channels for group in topology.groups),
            least=tuple(group.min_channels for group in topology.groups),
            kinds=tuple(group.kind for group in topology.groups),
            lengths=tuple(builder.lengths),
            work=tuple(builder.work),
            blocks=builder.blocks(),
        )

    @classmethod
    def of_costs(cls, table: CostTable) -> LayerTable:
        """Build the table of a run that has no device profile: each term of its costs is a layer.

        Args:
            table: Table of costs.

        Returns:
            The table, without blocks.
        """
        work = [
            LayerWork(layer=str(row), kind="layer", unit=unit, count=count, lengths=term.lengths)
            for row, term in enumerate(table.terms)
            for unit, count in (("multiply_adds", term.multiply_adds), ("weight_bytes", term.size_bytes))
            if count > 0
        ]
        return cls(
            names=table.names,
            channels=table.channels,
            least=table.least,
            kinds=table.kinds,
            lengths=table.lengths,
            work=tuple(work),
            blocks={},
        )

    def amounts(
        self, widths: Mapping[str, int], dropped: Iterable[str] = (), unit: str = "multiply_adds"
    ) -> dict[str, float]:
        """Compute the work of each layer in a cut model.

        Args:
            widths: Group name -> width; whole for a group that is not named.
            dropped: Names of the blocks that are dropped.
            unit: One of WORK_UNITS.

        Returns:
            Layer -> amount, in the order of the forward; 0 for a layer that is dropped.

        Raises:
            UnknownNameError: A block is not in the table.
        """
        pairs = zip(self.names, self.channels, strict=True)
        shares = [widths.get(name, channels) / channels for name, channels in pairs]
        lengths = [length.at(shares) for length in self.lengths]
        gone = {*self.dropped(dropped)}
        found: dict[str, float] = {}
        for entry, one in enumerate(self.work):
            if one.unit == unit:
                amount = 0.0 if entry in gone else one.count * math.prod(lengths[number] for number in one.lengths)
                found[one.layer] = found.get(one.layer, 0.0) + amount
        return found

    def costs(self) -> CostTable:
        """Return a table of costs with one term for each entry of `work`, in its order, and a constant as the last.

        The prices are the counts of the entries.
        """
        terms = [replace(Monomial.bare(one.lengths), multiply_adds=one.count) for one in self.work]
        constant = replace(Monomial.bare(()), multiply_adds=1.0)
        return CostTable(
            names=self.names,
            channels=self.channels,
            least=self.least,
            kinds=self.kinds,
            lengths=self.lengths,
            terms=(*terms, constant),
        )

    def dropped(self, blocks: Iterable[str]) -> tuple[int, ...]:
        """List the entries of `work` that go with dropped blocks.

        Args:
            blocks: Names of blocks.

        Returns:
            Numbers of the entries, ascending.

        Raises:
            UnknownNameError: A block is not in the table.
        """
        gone: set[int] = set()
        for block in blocks:
            if block not in self.blocks:
                raise UnknownNameError("a dropped block", block, self.blocks)
            gone.update(self.blocks[block])
        return tuple(sorted(gone))

    def groups_of(self, entry: int) -> frozenset[int]:
        """List the groups that change an entry of `work`.

        Args:
            entry: Number of the entry.

        Returns:
            Numbers of the groups.
        """
        return frozenset().union(*(self.lengths[length].groups for length in self.work[entry].lengths))

    def inconsistency(self) -> str:
        """Look for a contradiction inside a stored table.

        Returns:
            A clause that describes it; "" if there is none.
        """
        if not all(0 <= entry < len(self.work) for entries in self.blocks.values() for entry in entries):
            return f"blocks refer to entries beyond the {len(self.work)} in the table"
        if not all(math.isfinite(one.count) and one.count >= 0 and one.unit in WORK_UNITS for one in self.work):
            return "work has a count below 0 or an unknown unit"
        return self.costs().inconsistency_of_lengths()


class _Builder:
    """Collects lengths and work."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.number = {group.name: position for position, group in enumerate(topology.groups)}
        self.lengths: dict[AxisLength, int] = {}
        self.work: list[LayerWork] = []
        self._modules: dict[str, str] = {}
        numbers = (number for group in topology.groups for number in group.attributes)
        self._grouped = {number.module for number in numbers if number.name == "groups"}

    def add_product(self, product: Product) -> None:
        """Add a matrix product or convolution with a weight."""
        name, info = product.weight, self.topology.tensors[product.weight]
        axes = [
            AxisLength.of(size, self.topology.spans.get((name, axis), ()), self.number)
            for axis, size in enumerate(info.shape)
        ]
        inward = self.topology.input_axes.get(name, min(1, len(axes) - 1))
        outward = next((axis for axis in range(len(axes)) if axis != inward), inward)
        kind = _kind(info, name.rpartition(".")[0] in self._grouped)
        positions = float(product.positions)
        self._add(name, kind, ("multiply_adds", positions), axes)
        self._add(name, kind, ("outputs", positions), [axes[outward]])
        self._add(name, kind, ("inputs", positions), [axes[inward]])
        self._add(name, kind, ("weight_bytes", float(info.item_bytes)), axes)
        self._add(name, kind, ("calls", 1.0), ())

    def add_contraction(self, number: int) -> None:
        """Add a product of two activations."""
        one = self.topology.contractions[number]
        axes = [AxisLength.of(sum(run.positions for run in axis), axis, self.number) for axis in one.axes]
        name = f"{one.module}#{number}"
        self._modules[name] = one.module
        self._add(name, ATTENTION, ("multiply_adds", float(one.positions)), axes)
        self._add(name, ATTENTION, ("calls", 1.0), ())

    def _add(self, layer: str, kind: str, amount: tuple[str, float], axes: Sequence[AxisLength]) -> None:
        unit, count = amount
        fixed, key = number_lengths(axes, self.lengths)
        self.work.append(LayerWork(layer=layer, kind=kind, unit=unit, count=count * fixed, lengths=key))

    def blocks(self) -> dict[str, tuple[int, ...]]:
        """Which entries go with each block."""
        return {block.name: tuple(self._gone(block.name)) for block in self.topology.blocks}

    def _gone(self, name: str) -> Iterator[int]:
        block = self.topology.block(name)
        tensors = set(block.tensors)
        for entry, one in enumerate(self.work):
            module = self._modules.get(one.layer)
            if block.holds(module) if module is not None else one.layer in tensors:
                yield entry


def _kind(weight: TensorInfo, grouped: bool) -> str:
    """Name the kind of a layer by the shape of its weight. grouped: whether its channels are convolved in groups."""
    if len(weight.shape) <= 2:
        return "linear"
    if grouped and weight.shape[1] == 1:
        return "depthwise convolution"
    return "pointwise convolution" if math.prod(weight.shape[2:]) == 1 else "convolution"
