"""Cost of any widths, quick enough to ask thousands of times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoprune.errors import UnknownNameError
from autoprune.sensitivity.cost_table import CostTable
from autoprune.trace.topology import Topology

#: Costs that follow from widths alone; latency does not.
AXES = ("multiply_adds", "parameters", "size_bytes")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terms:
    """A sum of products of lengths, each of which is linear in the widths but for grids.

    channels: dense widths [groups]. whole: dense lengths, the last of which is 1 and stands for none [lengths].
    per_channel: positions that go with each channel [lengths, groups]. grids: (length, positions, groups).
    factors: the lengths of each term [terms, factors]. prices: of each term [terms].
    """

    channels: np.ndarray
    whole: np.ndarray
    per_channel: np.ndarray
    grids: tuple[tuple[int, float, np.ndarray], ...]
    factors: np.ndarray
    prices: np.ndarray

    @classmethod
    def of(cls, table: CostTable, prices: np.ndarray) -> Terms:
        """The terms of a table at these prices [terms]; those that cost nothing are left out."""
        channels = np.array(table.channels, dtype=np.float64)
        none = len(table.lengths)
        per_channel = np.zeros((none + 1, len(channels)))
        for row, length in enumerate(table.lengths):
            for group, positions in length.single:
                per_channel[row, group] = positions / channels[group]
        paid = np.flatnonzero(prices)
        most = max((len(table.terms[row].lengths) for row in paid.tolist()), default=0)
        factors = np.full((len(paid), most), none)
        for position, row in enumerate(paid.tolist()):
            factors[position, : len(table.terms[row].lengths)] = table.terms[row].lengths
        return cls(
            channels=channels,
            whole=np.array([*(length.whole for length in table.lengths), 1.0]),
            per_channel=per_channel,
            grids=tuple(
                (row, positions, np.array(groups))
                for row, length in enumerate(table.lengths)
                for positions, groups in length.grids
            ),
            factors=factors,
            prices=np.asarray(prices[paid], dtype=np.float64),
        )

    def cost(self, widths: np.ndarray) -> np.ndarray:
        """Sums for widths [..., groups], as [...]."""
        return np.asarray(self.sizes(widths) @ self.prices)

    def sizes(self, widths: np.ndarray) -> np.ndarray:
        """Products of lengths for widths [..., groups], as [..., terms]."""
        lengths = self.whole - (self.channels - widths) @ self.per_channel.T
        for row, positions, groups in self.grids:
            shares = (widths[..., groups] / self.channels[groups]).prod(axis=-1)
            lengths[..., row] -= positions * (1.0 - shares)
        return np.asarray(lengths[..., self.factors].prod(axis=-1))

    @property
    def depends(self) -> np.ndarray:
        """Which terms depend on which groups, bool [terms, groups]."""
        touched = self.per_channel != 0
        for row, _, groups in self.grids:
            touched[row, groups] = True
        return np.asarray(touched[self.factors].any(axis=1))

    def only(self, rows: np.ndarray) -> Terms:
        """The terms of these rows alone, with the lengths that they need."""
        none = len(self.whole) - 1
        used = np.unique(np.append(self.factors[rows], none))
        place = np.zeros(none + 1, dtype=np.int64)
        place[used] = np.arange(len(used))
        return replace(
            self,
            whole=self.whole[used],
            per_channel=self.per_channel[used],
            grids=tuple((int(place[row]), count, groups) for row, count, groups in self.grids if row in used),
            factors=place[self.factors[rows]],
            prices=self.prices[rows],
        )


class CostModel:
    """Topology.cost for one axis as arrays; gives the same numbers.

    axis: one of AXES. dropped: blocks that are gone. dense: cost of the dense model, with all of its blocks.
    """

    def __init__(self, topology: Topology, axis: str, dropped: Sequence[str] = ()) -> None:
        table = CostTable.of(topology, dropped)
        self._set(table, axis, _prices(table, axis))
        self.dense = float(getattr(topology.cost({}), axis))

    @classmethod
    def of_table(cls, table: CostTable, axis: str, dense: float | None = None) -> CostModel:
        """The cost of one axis from a table. Raises UnknownNameError for an axis that is not in it.

        dense: cost of the dense model, where the table is that of one without some of its blocks.
        """
        model = cls.priced(table, axis, _prices(table, axis))
        model.dense = model.dense if dense is None else dense
        return model

    @classmethod
    def priced(cls, table: CostTable, axis: str, prices: np.ndarray) -> CostModel:
        """A cost of any name as prices of the terms of a table [terms]; a term without lengths is a constant."""
        model = cls.__new__(cls)
        model._set(table, axis, prices)
        model.dense = float(model._terms.cost(model.channels))
        return model

    def _set(self, table: CostTable, axis: str, prices: np.ndarray) -> None:
        self.axis = axis
        self.names = list(table.names)
        self.channels = np.array(table.channels, dtype=np.float64)
        self.dense = 0.0
        self._terms = Terms.of(table, prices)
        self._depends = self._terms.depends

    def cost(self, widths: np.ndarray) -> float:
        """Cost when group i keeps widths[i] channels; fractional widths are allowed."""
        return float(self._terms.cost(widths))

    def share(self, widths: np.ndarray) -> float:
        """Cost as a share of dense."""
        return self.cost(widths) / self.dense

    def shares(self, widths: np.ndarray) -> np.ndarray:
        """Costs of several widths [n, groups] as shares of dense [n]."""
        return np.asarray(self._terms.cost(widths) / self.dense)

    def part(self, groups: Sequence[int] | np.ndarray) -> Terms:
        """What of the cost changes with any of these groups, numbers; the rest is constant in them."""
        return self._terms.only(np.flatnonzero(self._depends[:, list(groups)].any(axis=1)))

    def neighbours(self, group: int) -> np.ndarray:
        """Groups whose own part of the cost changes with the width of this one, itself included, numbers."""
        return np.flatnonzero(self._depends[self._depends[:, group]].any(axis=0))

    def as_array(self, widths: Mapping[str, int]) -> np.ndarray:
        """Widths by name as an array in the order of `names`."""
        return np.array(
            [widths.get(name, channels) for name, channels in zip(self.names, self.channels, strict=True)],
            dtype=np.float64,
        )

    @property
    def smallest(self) -> float:
        """Share of dense when every group keeps one channel."""
        return self.share(np.ones_like(self.channels))


def _prices(table: CostTable, axis: str) -> np.ndarray:
    if axis not in AXES:
        raise UnknownNameError("a cost of the budget", axis, AXES)
    return np.array([getattr(term, axis) for term in table.terms], dtype=np.float64)
