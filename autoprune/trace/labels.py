"""Which channels are the same channel: union-find over the positions of parameter axes.

Every position of every parameter axis is a node. Operators say which nodes must be removed together
(`unify`) and which cannot be removed at all (`freeze`). Where a model reshapes one axis into two, a node
becomes the product of a row node and a column node (`split`): it goes when either of them goes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

#: Node per position of one axis; None for an axis that no parameter channel runs along (batch, space, time).
AxisNodes = npt.NDArray[np.int64] | None


class Labels:
    """The union-find; nodes are integers."""

    def __init__(self) -> None:
        self._parent = np.empty(1024, dtype=np.int64)
        self._count = 0
        self._factors: dict[int, tuple[int, int]] = {}
        self._products: dict[tuple[int, int], int] = {}
        self._frozen: dict[int, str] = {}
        self._family: dict[int, str] = {}
        # Representative -> its atoms, until something is unified: a proof asks for them again and again.
        self._known_atoms: dict[int, frozenset[int]] = {}

    def new(self, count: int, family: str = "") -> npt.NDArray[np.int64]:
        """Fresh nodes. `family` keeps the rows and columns of one split apart when they look alike."""
        nodes = np.arange(self._count, self._count + count, dtype=np.int64)
        self._count += count
        if self._count > len(self._parent):
            self._parent = np.resize(self._parent, 2 * self._count)
        self._parent[nodes] = nodes
        if family:
            self._family.update(dict.fromkeys(nodes.tolist(), family))
        return nodes

    def find(self, node: int) -> int:
        """Representative of a node's class."""
        parent = self._parent
        root = node
        while (above := parent.item(root)) != root:
            root = above
        while (above := parent.item(node)) != root:
            parent[node] = root
            node = above
        return root

    def roots(self, nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Representatives of many nodes at once."""
        found = self._parent[nodes]
        while not np.array_equal(above := self._parent[found], found):
            found = above
        self._parent[nodes] = found
        return found

    def atoms(self, node: int) -> frozenset[int]:
        """The representatives whose removal removes this node: itself, or the factors of a product."""
        root = self.find(node)
        known = self._known_atoms.get(root)
        if known is None:
            factors = self._factors.get(root)
            known = frozenset((root,)) if factors is None else self.atoms(factors[0]) | self.atoms(factors[1])
            self._known_atoms[root] = known
        return known

    def unify(self, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> None:
        """Positions of two axes of the same length are the same channels."""
        if len(left) != len(right):
            raise ValueError(f"{len(left)} positions are not the same channels as {len(right)}")
        for position in np.flatnonzero(self.roots(left) != self.roots(right)).tolist():
            self._unify_pair(int(left[position]), int(right[position]))

    def unify_rows(self, table: npt.NDArray[np.int64]) -> None:
        """Every row of a table holds the same channels as the first."""
        for row in table[1:]:
            self.unify(table[0], row)

    def freeze(self, nodes: Iterable[int], reason: str) -> None:
        """These cannot be removed; the first reason given is kept."""
        for node in nodes:
            for atom in self.atoms(int(node)):
                self._frozen.setdefault(atom, reason)

    def reason(self, atom: int) -> str | None:
        """Why a representative is frozen, None when it is not."""
        return self._frozen.get(self.find(atom))

    def family(self, atom: int) -> str:
        """The family of a representative."""
        return self._family.get(self.find(atom), "")

    def split(
        self, nodes: npt.NDArray[np.int64], rows: int, columns: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Read an axis of rows * columns positions as a grid; gives the nodes of both new axes."""
        grid = nodes.reshape(rows, columns)
        row_nodes, column_nodes = self._existing_grid(grid)
        if row_nodes is None or column_nodes is None:
            tag = f"{self._count}"
            row_nodes, column_nodes = self.new(rows, f"rows {tag}"), self.new(columns, f"columns {tag}")
            self.unify(nodes, self.product(row_nodes, column_nodes))
        return row_nodes, column_nodes

    def product(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Nodes of the flattened grid, row by row; the same row and column always give the same node."""
        pairs = list(itertools.product(self.roots(rows).tolist(), self.roots(columns).tolist()))
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in self._products]
        for pair, node in zip(missing, self.new(len(missing)).tolist(), strict=True):
            self._products[pair] = node
            self._factors[node] = pair
        self._known_atoms.clear()
        return np.array([self._products[pair] for pair in pairs], dtype=np.int64)

    def _existing_grid(
        self, grid: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None]:
        """Factors already known for exactly this grid, so that splitting twice gives the same nodes."""
        factors = [self._factors.get(node) for node in self.roots(grid.reshape(-1)).tolist()]
        known = [pair for pair in factors if pair is not None]
        if len(known) < len(factors):
            return None, None
        sides = self.roots(np.array(known, dtype=np.int64).reshape(-1)).reshape(*grid.shape, 2)
        rows, columns = sides[..., 0], sides[..., 1]
        if (rows == rows[:, :1]).all() and (columns == columns[:1]).all():
            return rows[:, 0], columns[0]
        return None, None

    def _unify_pair(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        if a == b:
            return None
        for node, other in ((a, b), (b, a)):
            if node in self._factors and other in self.atoms(node):
                self._collapse(node)
                return self._unify_pair(a, b)
        factors_a, factors_b = self._factors.get(a), self._factors.get(b)
        if factors_a is not None and factors_b is not None:
            self._unify_pair(factors_a[0], factors_b[0])
            self._unify_pair(factors_a[1], factors_b[1])
            a, b = self.find(a), self.find(b)
            if a != b and not self._same_factors(a, b):
                return self._unify_pair(a, b)  # one of them collapsed meanwhile: look again
        if a != b:
            self._join(a, b)
        return None

    def _same_factors(self, a: int, b: int) -> bool:
        left, right = self._factors.get(a), self._factors.get(b)
        if left is None or right is None:
            return False
        return [self.find(node) for node in left] == [self.find(node) for node in right]

    def _join(self, a: int, b: int) -> None:
        """Put class b under class a; what is known of b becomes known of a."""
        self._known_atoms.clear()
        self._parent[b] = a
        factors_b = self._factors.pop(b, None)
        if factors_b is not None:
            self._factors.setdefault(a, factors_b)
        family_b = self._family.pop(b, "")
        if family_b:
            self._family.setdefault(a, family_b)
        reasons = [reason for reason in (self._frozen.pop(a, None), self._frozen.pop(b, None)) if reason]
        if reasons:
            self.freeze((a,), reasons[0])

    def _collapse(self, node: int) -> None:
        """Give up a product: its factors and itself become one channel. Only more is coupled, never less."""
        atoms = sorted(self.atoms(node))
        del self._factors[node]
        self._known_atoms.clear()
        for atom in atoms:
            self._unify_pair(node, atom)
