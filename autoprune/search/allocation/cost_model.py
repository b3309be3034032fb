"""Costs of any widths, fast enough for thousands of calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoprune.errors import UnknownNameError
from autoprune.records.cost_table import CostTable
from autoprune.structure.cost import STRUCTURE_COSTS
from autoprune.structure.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CostPolynomial:
    """A sum of products of axis lengths. Lengths are linear in the widths, except for grids.

    Attributes:
        channels: Dense widths, float [groups].
        whole: Dense lengths, float [lengths]; the last one is 1 and stands for no axis.
        per_channel: Positions that are removed with each channel, float [lengths, groups].
        grids: (length, positions, groups), see AxisLength.
        factors: Lengths of each term, int [terms, factors].
        prices: Price of each term, float [terms].
    """

    channels: np.ndarray
    whole: np.ndarray
    per_channel: np.ndarray
    grids: tuple[tuple[int, float, np.ndarray], ...]
    factors: np.ndarray
    prices: np.ndarray

    @classmethod
    def of(cls, table: CostTable, prices: np.ndarray) -> CostPolynomial:
        """Build the polynomial of a table at given prices. Terms without a price are left out.

        Args:
            table: Table of costs.
            prices: Price of each term of the table, [terms].

        Returns:
            The polynomial.
        """
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
        """Compute the cost of widths.

        Args:
            widths: Float [..., groups].

        Returns:
            Costs [...].
        """
        return np.asarray(self.sizes(widths) @ self.prices)

    def sizes(self, widths: np.ndarray) -> np.ndarray:
        """Compute the product of lengths of each term.

        Args:
            widths: Float [..., groups].

        Returns:
            Products [..., terms].
        """
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

    def only(self, rows: np.ndarray) -> CostPolynomial:
        """Select some terms, with the lengths that they need.

        Args:
            rows: Numbers of the terms.

        Returns:
            The smaller polynomial.
        """
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
    """The values of Topology.cost for one axis, computed with arrays.

    Args:
        topology: Proved groups of the dense model.
        axis: One of STRUCTURE_COSTS.
        dropped: Names of blocks that are dropped.

    Attributes:
        axis: Name of the cost.
        names: Names of the groups.
        channels: Dense widths, float [groups].
        dense: Cost of the dense model with all of its blocks.
    """

    def __init__(self, topology: Topology, axis: str, dropped: Sequence[str] = ()) -> None:
        table = CostTable.of(topology, dropped)
        self._set(table, axis, _prices(table, axis))
        self.dense = float(getattr(topology.cost({}), axis))

    @classmethod
    def of_table(cls, table: CostTable, axis: str, dense: float | None = None) -> CostModel:
        """Build the model of one axis from a table.

        Args:
            table: Table of costs.
            axis: One of STRUCTURE_COSTS.
            dense: Cost of the dense model, if the table is that of a model with dropped blocks; None takes it from the
                table.

        Returns:
            The model.

        Raises:
            UnknownNameError: The axis is not in the table.
        """
        model = cls.priced(table, axis, _prices(table, axis))
        model.dense = model.dense if dense is None else dense
        return model

    @classmethod
    def priced(cls, table: CostTable, axis: str, prices: np.ndarray) -> CostModel:
        """Build the model of any cost from prices of the terms of a table.

        Args:
            table: Table of costs. A term without lengths is a constant.
            axis: Name of the cost.
            prices: Price of each term, [terms].

        Returns:
            The model.
        """
        model = cls.__new__(cls)
        model._set(table, axis, prices)
        model.dense = float(model._terms.cost(model.channels))
        return model

    def _set(self, table: CostTable, axis: str, prices: np.ndarray) -> None:
        self.axis = axis
        self.names = list(table.names)
        self.channels = np.array(table.channels, dtype=np.float64)
        self.dense = 0.0
        self._terms = CostPolynomial.of(table, prices)
        self._depends = self._terms.depends

    def cost(self, widths: np.ndarray) -> float:
        """Compute the cost of widths.

        Args:
            widths: Channels that stay, float [groups]; fractional widths are allowed.

        Returns:
            The cost.
        """
        return float(self._terms.cost(widths))

    def share(self, widths: np.ndarray) -> float:
        """Compute the cost of widths as a share of dense.

        Args:
            widths: Float [groups].

        Returns:
            The share, 1 for the dense model.
        """
        return self.cost(widths) / self.dense

    def shares(self, widths: np.ndarray) -> np.ndarray:
        """Compute the costs of several sets of widths as shares of dense.

        Args:
            widths: Float [n, groups].

        Returns:
            Shares [n].
        """
        return np.asarray(self._terms.cost(widths) / self.dense)

    def part(self, groups: Sequence[int] | np.ndarray) -> CostPolynomial:
        """Select the terms that depend on any of some groups. The rest of the cost is constant in these groups.

        Args:
            groups: Numbers of the groups.

        Returns:
            The polynomial of these terms.
        """
        return self._terms.only(np.flatnonzero(self._depends[:, list(groups)].any(axis=1)))

    def neighbours(self, group: int) -> np.ndarray:
        """List the groups whose part of the cost changes with the width of one group, itself included.

        Args:
            group: Number of the group.

        Returns:
            Numbers of the groups.
        """
        return np.flatnonzero(self._depends[self._depends[:, group]].any(axis=0))

    def as_array(self, widths: Mapping[str, int]) -> np.ndarray:
        """Turn widths by name into an array in the order of `names`.

        Args:
            widths: Group name -> width; dense for groups without an entry.

        Returns:
            Float [groups].
        """
        return np.array(
            [widths.get(name, channels) for name, channels in zip(self.names, self.channels, strict=True)],
            dtype=np.float64,
        )


def _prices(table: CostTable, axis: str) -> np.ndarray:
    if axis not in STRUCTURE_COSTS:
        raise UnknownNameError("a cost of the budget", axis, STRUCTURE_COSTS)
    return np.array([getattr(term, axis) for term in table.terms], dtype=np.float64)
