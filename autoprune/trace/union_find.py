"""Which channels are the same channel: union-find over the positions of parameter axes.

Every position of every parameter axis is a node. Operators say which nodes must be removed together
(`unify`) and which cannot be removed at all (`freeze`). Where a model reshapes one axis into two, a node
becomes the product of a row node and a column node (`split`): it goes when either of them goes.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from autoprune.trace.reasons import COUPLED, Reason

T = TypeVar("T", bound=Hashable)
Nodes = npt.NDArray[np.int64]
#: Node per position of one axis; None for an axis that no parameter channel runs along (batch, space, time).
AxisNodes = Nodes | None

#: In the place of a factor where there is none, and of what is said of a class where nothing is.
_NONE = -1


class ChannelUnionFind:
    """The union-find; nodes are integers, and a whole axis of them is looked at at once.

    Of a class, its representative knows: the factors of a product (row, column), why it is frozen, and its family.
    """

    def __init__(self) -> None:
        self._count = 0
        self._parent, self._row, self._column, self._frozen, self._family = np.empty((5, 1024), dtype=np.int64)
        self._products: dict[tuple[int, int], int] = {}
        self._reasons, self._families = _Numbered[Reason](), _Numbered[str]()
        # Representative -> its atoms, until something is unified: a proof asks for them again and again.
        self._known_atoms: dict[int, frozenset[int]] = {}

    @property
    def count(self) -> int:
        """How many nodes there are: they are numbered from zero."""
        return self._count

    def new(self, count: int, family: str = "") -> Nodes:
        """Fresh nodes. `family` keeps the rows and columns of one split apart when they look alike."""
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
        """Representative of a node's class."""
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
        """Representatives of many nodes at once."""
        found: Nodes = self._parent[nodes]
        while not np.array_equal(above := self._parent[found], found):
            found = above
        self._parent[nodes] = found
        return found

    def atoms(self, node: int) -> frozenset[int]:
        """The representatives whose removal removes this node: itself, or the factors of a product."""
        root = self.find(node)
        known = self._known_atoms.get(root)
        if known is None:
            row, column = self._row.item(root), self._column.item(root)
            known = frozenset((root,)) if row == _NONE else self.atoms(row) | self.atoms(column)
            self._known_atoms[root] = known
        return known

    def atoms_of(self, nodes: Nodes) -> Nodes:
        """The atoms of many nodes, each once."""
        found, left = [], np.unique(self.roots(nodes))
        while len(left):
            product = self._row[left] != _NONE
            found.append(left[~product])
            factors = np.concatenate((self._row[left[product]], self._column[left[product]]))
            left = np.unique(self.roots(factors))
        return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)

    def removable(self, nodes: Nodes) -> dict[int, list[int]]:
        """Atoms that lie along an axis and are not frozen, in order, with the positions of each."""
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
        """Representatives of classes that are a row and a column of a grid, each once."""
        roots = np.unique(np.concatenate([self.roots(nodes) for nodes in axes])) if axes else np.empty(0, np.int64)
        found: Nodes = roots[self._row[roots] != _NONE]
        return found

    def marked(self, nodes: Nodes, atoms: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Whether an atom of each node is among some. atoms: for each node whether it is; later ones are not."""
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
        """Positions of two axes of the same length are the same channels."""
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
        """Every row of a table holds the same channels as the first."""
        for row in table[1:]:
            self.unify(table[0], row)

    def balance(self, table: Nodes) -> Nodes:
        """Every row of a table loses as many positions as the first, so that all stay equally long.

        Where each position is a channel of its own, the same positions go in every row. Where some already go
        together, as after a shuffle, that would couple more than it has to: a channel that lies in all rows equally
        often is right as it is, and the others are joined with those that make up for them. Gives those that nothing
        makes up for, as other channels stay: they have to stay too.
        """
        roots = self.roots(table.reshape(-1))
        found, first, where = np.unique(roots, return_index=True, return_inverse=True)
        if len(found) == len(roots) or (self._row[found] != _NONE).any():
            self.unify_rows(table)
            return table[0, :0]
        counts = np.zeros((len(found), len(table)), dtype=np.int64)
        np.add.at(counts, (where.reshape(-1), np.repeat(np.arange(len(table)), table.shape[1])), 1)
        # The classes of each row that lie in no other, in order of position, by how often they do; and all others.
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
        sets, left = _made_up(alone)
        for together in sets:
            self.unify_rows(np.array(together, dtype=np.int64)[:, None])
        rest += np.flatnonzero(np.isin(found, left)).tolist()
        unmatched: Nodes = found[rest]
        if len(set(counts[rest].sum(0).tolist())) > 1:
            return unmatched
        self.unify_rows(unmatched[:, None])
        return unmatched[:0]

    def without_rows(self, rows: Nodes, columns: Nodes) -> bool:
        """Give up the rows of a grid: its positions go with their column alone. False when there is no such grid."""
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
        """These cannot be removed; the first reason given is kept."""
        atoms = self.atoms_of(np.fromiter(nodes, dtype=np.int64))
        free = atoms[self._frozen[atoms] == _NONE]
        self._frozen[free] = self._reasons.number(reason)

    def reason(self, atom: int) -> Reason | None:
        """Why a representative is frozen, None when it is not."""
        return self._reasons.value(self._frozen.item(self.find(atom)))

    def stay(self, nodes: AxisNodes) -> bool:
        """Whether nothing of an axis can be removed."""
        return nodes is None or bool((self._frozen[self.atoms_of(nodes)] != _NONE).all())

    def stay_alike(self, left: AxisNodes, right: AxisNodes) -> bool:
        """Whether two axes of one length hold the same channels, or can lose none."""
        if left is not None and right is not None and (self.roots(left) == self.roots(right)).all():
            return True
        return self.stay(left) and self.stay(right)

    def family(self, atom: int) -> str:
        """The family of a representative."""
        return self._families.value(self._family.item(self.find(atom))) or ""

    def split(self, nodes: Nodes, rows: int, columns: int) -> tuple[Nodes, Nodes]:
        """Read an axis of rows * columns positions as a grid; gives the nodes of both new axes."""
        grid = nodes.reshape(rows, columns)
        row_nodes, column_nodes = self._existing_grid(grid)
        if row_nodes is None or column_nodes is None:
            tag = f"{self._count}"
            row_nodes, column_nodes = self.new(rows, f"rows {tag}"), self.new(columns, f"columns {tag}")
            self.unify(nodes, self.product(row_nodes, column_nodes))
        return row_nodes, column_nodes

    def product(self, rows: Nodes, columns: Nodes) -> Nodes:
        """Nodes of the flattened grid, row by row; the same row and column always give the same node."""
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
        """Factors already known for exactly this grid, so that splitting twice gives the same nodes."""
        roots = self.roots(grid.reshape(-1))
        if (self._row[roots] == _NONE).any():
            return None, None
        rows = self.roots(self._row[roots]).reshape(grid.shape)
        columns = self.roots(self._column[roots]).reshape(grid.shape)
        if (rows == rows[:, :1]).all() and (columns == columns[:1]).all():
            return rows[:, 0], columns[0]
        return None, None

    def _unify_some(self, a: Nodes, b: Nodes) -> None:
        """Bring pairs of different representatives closer to being one class; the first of them at least."""
        inside = self._holds(a, b) | self._holds(b, a)
        if inside.any():
            first = int(np.flatnonzero(inside)[0])
            pair = int(a[first]), int(b[first])
            product, atom = pair if self._holds(a[first : first + 1], b[first : first + 1])[0] else pair[::-1]
            self._collapse(product, atom)
            return
        products = (self._row[a] != _NONE) & (self._row[b] != _NONE)
        if products.any():
            # One may collapse meanwhile: those whose factors are not the same are looked at again.
            c, d = a[products], b[products]
            self.unify(self._row[c], self._row[d])
            self.unify(self._column[c], self._column[d])
            a, b = self.roots(a), self.roots(b)
            ready = (a != b) & (~products | self._is_product(a, self._row[b], self._column[b]))
            a, b = a[ready], b[ready]
        self._join(*_apart(a, b))

    def _is_product(self, nodes: Nodes, rows: Nodes, columns: Nodes) -> npt.NDArray[np.bool_]:
        """Whether each representative is the product of that row and that column."""
        found: npt.NDArray[np.bool_] = (self._row[nodes] != _NONE) & (rows != _NONE)
        known = np.flatnonzero(found)
        for table, sides in ((self._row, rows), (self._column, columns)):
            found[known] &= self.roots(table[nodes[known]]) == self.roots(sides[known])
        return found

    def _holds(self, nodes: Nodes, others: Nodes) -> npt.NDArray[np.bool_]:
        """Whether each node is a product with the other among its atoms. others: representatives."""
        found = np.zeros(len(nodes), dtype=bool)
        product = np.flatnonzero(self._row[nodes] != _NONE)
        for table in (self._row, self._column) if len(product) else ():
            factors = self.roots(table[nodes[product]])
            found[product] |= (factors == others[product]) | self._holds(factors, others[product])
        return found

    def _join(self, left: Nodes, right: Nodes) -> None:
        """Make pairs of classes one, all of them different; the older node represents both."""
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
        """Give up a product that is to go with one of its atoms alone. Only more is coupled, never less.

        If that is one of its two factors, the other one stays: queries that share a head of keys go when that goes.
        Deeper inside, its atoms and itself become one channel.
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
    """Values by number, so that arrays can hold them."""

    def __init__(self) -> None:
        self._values: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        """The number of a value, a new one for a new value."""
        if value not in self._numbers:
            self._numbers[value] = len(self._values)
            self._values.append(value)
        return self._numbers[value]

    def value(self, number: int) -> T | None:
        """The value of a number, None for none."""
        return None if number == _NONE else self._values[number]


def _made_up(rows: Sequence[Mapping[int, list[int]]]) -> tuple[list[list[int]], list[int]]:
    """Sets of classes that lie in all rows equally often, and the classes that are left.

    rows: for each row, its classes by how often they lie in it. Alike ones are joined first, in order.
    """
    sets: list[list[int]] = []
    left: list[list[tuple[int, int]]] = [[] for _ in rows]
    for count in sorted({count for row in rows for count in row}):
        alike = [row.get(count, []) for row in rows]
        matched = min(map(len, alike))
        sets += [list(together) for together in zip(*(nodes[:matched] for nodes in alike), strict=True)]
        for own, nodes in zip(left, alike, strict=True):
            own += [(count, node) for node in nodes[matched:]]
    sums, open_ = [0] * len(rows), list[int]()
    while left[shortest := sums.index(min(sums))]:
        count, node = left[shortest].pop(0)
        sums[shortest] += count
        open_.append(node)
        if len(set(sums)) == 1:
            sets.append(open_)
            open_ = []
    return sets, open_ + [node for row in left for _, node in row]


def _apart(a: Nodes, b: Nodes) -> tuple[Nodes, Nodes]:
    """Pairs of which no two share a node; the first pair is one of them."""
    nodes = np.stack((a, b), axis=1)
    _, first, place = np.unique(nodes.reshape(-1), return_index=True, return_inverse=True)
    earliest = (first // 2)[place.reshape(nodes.shape)]
    chosen = (earliest == np.arange(len(nodes))[:, None]).all(axis=1)
    return a[chosen], b[chosen]
