"""Keep track of channels that have to be removed together: union-find over the positions of parameter axes.

Every position of every parameter axis is a node. Rules say which nodes have to be removed together
(`unify`) and which cannot be removed at all (`freeze`). Where a model reshapes one axis into two, a node
becomes the product of a row node and a column node (`split`): it is removed with either of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from autoprune.structure.reasons import COUPLED, Reason
from autoprune.trace.matching import disjoint_pairs, match_rows

T = TypeVar("T", bound=Hashable)
Nodes = npt.NDArray[np.int64]
#: Node per position of one axis; None for an axis that no parameter channel runs along (batch, space, time).
AxisNodes = Nodes | None

#: Marks a missing factor of a class, or a missing reason or family.
_NONE = -1


class ChannelUnionFind:
    """The union-find: nodes are integers, and operations work on whole axes of nodes.

    The representative of a class holds the factors of a product (row, column), the reason if the class is frozen, and
    its family. Atoms are classes that are no product.
    """

    def __init__(self) -> None:
        self._count = 0
        self._parent, self._row, self._column, self._frozen, self._family = np.empty((5, 1024), dtype=np.int64)
        self._products: dict[tuple[int, int], int] = {}
        self._reasons, self._families = _Numbered[Reason](), _Numbered[str]()
        # Representative -> its atoms, valid until the next union: a proof asks for them repeatedly.
        self._known_atoms: dict[int, frozenset[int]] = {}

    @property
    def count(self) -> int:
        """Number of nodes, which are numbered from zero."""
        return self._count

    def new(self, count: int, family: str = "") -> Nodes:
        """Make new nodes.

        Args:
            count: How many.
            family: Keeps rows and columns of one split apart if they look alike.

        Returns:
            The nodes, [count].
        """
        nodes = np.arange(self._count, self._count + count, dtype=np.int64)
        self._count += count
        if self._count > len(self._parent):
            tables = (self._parent, self._row, self._column, self._frozen, self._family)
            grown = (np.resize(table, 2 * self._count) for table in tables)
            self._parent, self._row, self._column, self._frozen, self._family = grown
        self._parent[nodes] = nodes
        for table in (self._row, self._column, self._frozen):
            table[nodes] = _NONE
        self._family[nodes] = self._families.number(family)
        return nodes

    def find(self, node: int) -> int:
        """Return the representative of a node's class."""
        parent = self._parent
        root = parent.item(node)
        if (above := parent.item(root)) == root:
            return root
        while above != root:
            root, above = above, parent.item(above)
        while (above := parent.item(node)) != root:
            parent[node] = root
            node = above
        return root

    def roots(self, nodes: Nodes) -> Nodes:
        """Return the representatives of many nodes, in their shape."""
        found: Nodes = self._parent[nodes]
        while not np.array_equal(above := self._parent[found], found):
            found = above
        self._parent[nodes] = found
        return found

    def atoms(self, node: int) -> frozenset[int]:
        """Return the representatives whose removal removes a node: its own, or those of the factors of a product."""
        root = self.find(node)
        known = self._known_atoms.get(root)
        if known is None:
            row, column = self._row.item(root), self._column.item(root)
            known = frozenset((root,)) if row == _NONE else self.atoms(row) | self.atoms(column)
            self._known_atoms[root] = known
        return known

    def atoms_of(self, nodes: Nodes) -> Nodes:
        """Return the distinct atoms of many nodes, sorted."""
        found, left = [], np.unique(self.roots(nodes))
        while len(left):
            product = self._row[left] != _NONE
            found.append(left[~product])
            factors = np.concatenate((self._row[left[product]], self._column[left[product]]))
            left = np.unique(self.roots(factors))
        return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)

    def removable(self, nodes: Nodes) -> dict[int, list[int]]:
        """Return the unfrozen atoms along an axis, in order, each with its positions. nodes: [positions]."""
        positions, left = np.arange(len(nodes), dtype=np.int64), self.roots(nodes)
        found = []
        while len(left):
            product = self._row[left] != _NONE
            free = ~product & (self._frozen[left] == _NONE)
            found.append(np.stack((left[free], positions[free]), axis=1))
            factors = np.concatenate((self._row[left[product]], self._column[left[product]]))
            positions, left = np.tile(positions[product], 2), self.roots(factors)
        pairs = np.unique(np.concatenate(found), axis=0) if found else np.empty((0, 2), dtype=np.int64)
        atoms, starts = np.unique(pairs[:, 0], return_index=True)
        held = np.split(pairs[:, 1], starts[1:])
        order = np.argsort(pairs[starts, 1], kind="stable").tolist()
        return {int(atoms[number]): held[number].tolist() for number in order}

    def products_among(self, axes: Sequence[Nodes]) -> Nodes:
        """Return the distinct representatives of classes along some axes that are products."""
        roots = np.unique(np.concatenate([self.roots(nodes) for nodes in axes])) if axes else np.empty(0, np.int64)
        found: Nodes = roots[self._row[roots] != _NONE]
        return found

    def marked(self, nodes: Nodes, atoms: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Tell for each node whether one of its atoms is marked.

        Args:
            nodes: The nodes, [n].
            atoms: For each node of the union-find whether it is marked; newer nodes are not.

        Returns:
            Bool, [n].
        """
        roots = self.roots(nodes)
        found = np.zeros(len(roots), dtype=bool)
        known = roots < len(atoms)
        found[known] = atoms[roots[known]]
        product = np.flatnonzero(self._row[roots] != _NONE)
        if len(product):
            sides = (self._row[roots[product]], self._column[roots[product]])
            found[product] = self.marked(sides[0], atoms) | self.marked(sides[1], atoms)
        return found

    def unify(self, left: Nodes, right: Nodes) -> None:
        """Couple the positions of two axes of the same length, one by one.

        Args:
            left: Nodes of one axis, [n].
            right: Nodes of the other, [n].

        Raises:
            ValueError: If the lengths differ.
        """
        if len(left) != len(right):
            raise ValueError(f"{len(left)} positions are not the same channels as {len(right)}")
        while True:
            a, b = self.roots(left), self.roots(right)
            differ = np.flatnonzero(a != b)
            if not len(differ):
                return
            left, right = left[differ], right[differ]
            self._unify_some(a[differ], b[differ])

    def unify_rows(self, table: Nodes) -> None:
        """Couple every row of a table [rows, n] to the first."""
        for row in table[1:]:
            self.unify(table[0], row)

    def balance(self, table: Nodes) -> Nodes:
        """Let every row of a table lose as many positions as the first, so that all stay equally long.

        If each position is a separate class, the same positions are coupled in every row. If some are coupled already,
        as after a shuffle, that would couple too much: a class that lies equally often in all rows is left alone,
        and the others are coupled to classes that make up for them.

        Args:
            table: The nodes, [rows, n].

        Returns:
            Classes that no others make up for, which the caller has to freeze.
        """
        roots = self.roots(table.reshape(-1))
        found, first, where = np.unique(roots, return_index=True, return_inverse=True)
        if len(found) == len(roots) or (self._row[found] != _NONE).any():
            self.unify_rows(table)
            return table[0, :0]
        counts = np.zeros((len(found), len(table)), dtype=np.int64)
        np.add.at(counts, (where.reshape(-1), np.repeat(np.arange(len(table)), table.shape[1])), 1)
        # For each row the classes that lie in no other row, by how often; then the classes that lie in several.
        alone: list[dict[int, list[int]]] = [{} for _ in table]
        rest = []
        for number in np.argsort(first).tolist():
            node, held = int(found[number]), np.flatnonzero(counts[number]).tolist()
            if self._frozen[node] != _NONE:
                continue
            if len(held) == 1:
                alone[held[0]].setdefault(int(counts[number].max()), []).append(node)
            elif len(set(counts[number].tolist())) > 1:
                rest.append(number)
        sets, left = match_rows(alone)
        for together in sets:
            self.unify_rows(np.array(together, dtype=np.int64)[:, None])
        rest += np.flatnonzero(np.isin(found, left)).tolist()
        unmatched: Nodes = found[rest]
        if len(set(counts[rest].sum(0).tolist())) > 1:
            return unmatched
        self.unify_rows(unmatched[:, None])
        return unmatched[:0]

    def without_rows(self, rows: Nodes, columns: Nodes) -> bool:
        """Couple the positions of a grid to their columns alone, and give up its rows.

        Args:
            rows: Nodes of the rows.
            columns: Nodes of the columns.

        Returns:
            False if there is no such grid.
        """
        keys = list(itertools.product(rows.tolist(), columns.tolist()))
        if any(key not in self._products for key in keys):
            return False
        row, column = np.array(keys, dtype=np.int64).T
        nodes = self.roots(np.array([self._products[key] for key in keys], dtype=np.int64))
        own = nodes[self._is_product(nodes, row, column)]
        self._row[own] = self._column[own] = _NONE
        self._known_atoms.clear()
        self.unify(nodes, column)
        return True

    def freeze(self, nodes: Iterable[int], reason: Reason) -> None:
        """Freeze the atoms of some nodes; the first reason is kept."""
        atoms = self.atoms_of(np.fromiter(nodes, dtype=np.int64))
        free = atoms[self._frozen[atoms] == _NONE]
        self._frozen[free] = self._reasons.number(reason)

    def reason(self, atom: int) -> Reason | None:
        """Return the reason for which a class is frozen, None if it is not."""
        return self._reasons.value(self._frozen.item(self.find(atom)))

    def alike(self, roots: Nodes) -> Nodes:
        """Return representatives, with one in the place of all classes that are frozen for the same reason."""
        _, first, where = np.unique(self._frozen[roots], return_index=True, return_inverse=True)
        return np.where(self._frozen[roots] == _NONE, roots, roots[first][where.reshape(-1)])

    def stay(self, nodes: AxisNodes) -> bool:
        """Tell whether all channels of an axis are frozen; an axis without nodes has none."""
        return nodes is None or bool((self._frozen[self.atoms_of(nodes)] != _NONE).all())

    def stay_alike(self, left: AxisNodes, right: AxisNodes) -> bool:
        """Tell whether two axes of one length hold the same channels, or only frozen ones."""
        if left is not None and right is not None and (self.roots(left) == self.roots(right)).all():
            return True
        return self.stay(left) and self.stay(right)

    def family(self, atom: int) -> str:
        """Return the family of a class."""
        return self._families.value(self._family.item(self.find(atom))) or ""

    def split(self, nodes: Nodes, rows: int, columns: int) -> tuple[Nodes, Nodes]:
        """Read an axis as a grid, row by row. Splitting the same axis twice gives the same nodes.

        Args:
            nodes: Nodes of the axis, [rows * columns].
            rows: Number of rows.
            columns: Number of columns.

        Returns:
            Nodes of both new axes.
        """
        grid = nodes.reshape(rows, columns)
        row_nodes, column_nodes = self._existing_grid(grid)
        if row_nodes is None or column_nodes is None:
            tag = f"{self._count}"
            row_nodes, column_nodes = self.new(rows, f"rows {tag}"), self.new(columns, f"columns {tag}")
            self.unify(nodes, self.product(row_nodes, column_nodes))
        return row_nodes, column_nodes

    def product(self, rows: Nodes, columns: Nodes) -> Nodes:
        """Return the nodes of a flattened grid, row by row; the same row and column always give the same node."""
        sides = np.stack(np.broadcast_arrays(self.roots(rows)[:, None], self.roots(columns)[None]), axis=-1)
        pairs, places = np.unique(sides.reshape(-1, 2), axis=0, return_inverse=True)
        keys = [(row, column) for row, column in pairs.tolist()]
        missing = [key for key in keys if key not in self._products]
        nodes = self.new(len(missing))
        if missing:
            self._row[nodes], self._column[nodes] = np.array(missing, dtype=np.int64).T
            self._products.update(zip(missing, nodes.tolist(), strict=True))
        self._known_atoms.clear()
        known = np.array([self._products[key] for key in keys], dtype=np.int64)
        found: Nodes = known[places.reshape(-1)]
        return found

    def _existing_grid(self, grid: Nodes) -> tuple[AxisNodes, AxisNodes]:
        """Return the known factors of a grid, so that splitting twice gives the same nodes; (None, None) if there are
        none.
        """
        roots = self.roots(grid.reshape(-1))
        if (self._row[roots] == _NONE).any():
            return None, None
        rows = self.roots(self._row[roots]).reshape(grid.shape)
        columns = self.roots(self._column[roots]).reshape(grid.shape)
        if (rows == rows[:, :1]).all() and (columns == columns[:1]).all():
            return rows[:, 0], columns[0]
        return None, None

    def _unify_some(self, a: Nodes, b: Nodes) -> None:
        """Make progress in coupling pairs of different representatives; at least the first pair is handled."""
        inside = self._holds(a, b) | self._holds(b, a)
        if inside.any():
            first = int(np.flatnonzero(inside)[0])
            pair = int(a[first]), int(b[first])
            product, atom = pair if self._holds(a[first : first + 1], b[first : first + 1])[0] else pair[::-1]
            self._collapse(product, atom)
            return
        products = (self._row[a] != _NONE) & (self._row[b] != _NONE)
        if products.any():
            # A product may have collapsed meanwhile: pairs whose factors still differ come again.
            c, d = a[products], b[products]
            self.unify(self._row[c], self._row[d])
            self.unify(self._column[c], self._column[d])
            a, b = self.roots(a), self.roots(b)
            ready = (a != b) & (~products | self._is_product(a, self._row[b], self._column[b]))
            a, b = a[ready], b[ready]
        self._join(*disjoint_pairs(a, b))

    def _is_product(self, nodes: Nodes, rows: Nodes, columns: Nodes) -> npt.NDArray[np.bool_]:
        """Tell for each representative whether it is the product of that row and that column."""
        found: npt.NDArray[np.bool_] = (self._row[nodes] != _NONE) & (rows != _NONE)
        known = np.flatnonzero(found)
        for table, sides in ((self._row, rows), (self._column, columns)):
            found[known] &= self.roots(table[nodes[known]]) == self.roots(sides[known])
        return found

    def _holds(self, nodes: Nodes, others: Nodes) -> npt.NDArray[np.bool_]:
        """Tell for each node whether it is a product with the other one among its atoms. others: representatives."""
        found = np.zeros(len(nodes), dtype=bool)
        product = np.flatnonzero(self._row[nodes] != _NONE)
        for table in (self._row, self._column) if len(product) else ():
            factors = self.roots(table[nodes[product]])
            found[product] |= (factors == others[product]) | self._holds(factors, others[product])
        return found

    def _join(self, left: Nodes, right: Nodes) -> None:
        """Merge pairs of distinct classes; the older node becomes the representative."""
        a, b = np.minimum(left, right), np.maximum(left, right)
        self._known_atoms.clear()
        self._parent[b] = a
        for table in (self._row, self._column, self._frozen):
            table[a] = np.where(table[a] == _NONE, table[b], table[a])
        nameless = self._family[a] == self._families.number("")
        self._family[a] = np.where(nameless, self._family[b], self._family[a])
        for node in a[(self._row[a] != _NONE) & (self._frozen[a] != _NONE)].tolist():
            reason, self._frozen[node] = self._reasons.value(self._frozen.item(node)), _NONE
            assert reason is not None
            self.freeze((node,), reason)

    def _collapse(self, node: int, atom: int) -> None:
        """Give up a product that is coupled to one of its own atoms. More gets coupled, never less.

        If the atom is one of the two factors, the other factor is frozen: queries that share a head of keys are removed
        with that head. If it lies deeper, all atoms and the product become one channel.
        """
        factors = self.find(self._row.item(node)), self.find(self._column.item(node))
        atoms = sorted(self.atoms(node))
        self._row[node] = self._column[node] = _NONE
        self._known_atoms.clear()
        if atom in factors and factors[0] != factors[1]:
            self.freeze((factors[factors[0] == atom],), Reason(kind=COUPLED))
            atoms = [atom]
        self.unify(np.full(len(atoms), node), np.array(atoms, dtype=np.int64))


class _Numbered(Generic[T]):
    """Values with numbers, so that arrays can refer to them."""

    def __init__(self) -> None:
        self._values: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        """Return the number of a value; a new one for a new value."""
        if value not in self._numbers:
            self._numbers[value] = len(self._values)
            self._values.append(value)
        return self._numbers[value]

    def value(self, number: int) -> T | None:
        """Return the value of a number, None for `_NONE`."""
        return None if number == _NONE else self._values[number]
