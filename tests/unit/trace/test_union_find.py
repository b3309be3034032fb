"""The union-find: what is unified stays unified, what is frozen stays frozen, products follow their factors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.structure.reasons import PICKED, ROLLED, Reason
from autoprune.trace.union_find import ChannelUnionFind

Axis = npt.NDArray[np.int64]
WHY = Reason(kind=PICKED)


def same(labels: ChannelUnionFind, a: int, b: int) -> bool:
    return labels.find(int(a)) == labels.find(int(b))


def test_fresh_nodes_are_all_different() -> None:
    labels = ChannelUnionFind()
    first, second = labels.new(3), labels.new(2)
    assert len({labels.find(int(node)) for node in (*first, *second)}) == 5
    assert labels.atoms(int(first[0])) == {int(first[0])}


def test_unify_goes_position_by_position_and_is_transitive() -> None:
    labels = ChannelUnionFind()
    a, b, c = labels.new(3), labels.new(3), labels.new(3)
    labels.unify(a, b)
    labels.unify(b, c[::-1])
    assert same(labels, a[0], c[2])
    assert same(labels, a[2], c[0])
    assert not same(labels, a[0], a[1])
    assert not same(labels, a[0], c[0])


def test_unify_needs_equal_lengths() -> None:
    labels = ChannelUnionFind()
    with pytest.raises(ValueError, match="2 positions are not the same channels as 3"):
        labels.unify(labels.new(2), labels.new(3))


def test_the_first_reason_is_kept() -> None:
    labels = ChannelUnionFind()
    nodes = labels.new(3)
    labels.freeze(nodes[:2], WHY)
    labels.freeze(nodes[1:], Reason(kind=ROLLED))
    assert [labels.reason(int(node)) for node in nodes] == [WHY, WHY, Reason(kind=ROLLED)]


@pytest.mark.parametrize("frozen_side", [0, 1])
@pytest.mark.parametrize("freeze_first", [True, False])
def test_freezing_reaches_everything_unified(frozen_side: int, freeze_first: bool) -> None:
    labels = ChannelUnionFind()
    sides = labels.new(2), labels.new(2)
    if freeze_first:
        labels.freeze(sides[frozen_side][:1], WHY)
    labels.unify(*sides)
    if not freeze_first:
        labels.freeze(sides[frozen_side][:1], WHY)
    for side in sides:
        assert [labels.reason(int(node)) for node in side] == [WHY, None]


def test_a_product_goes_when_either_factor_goes() -> None:
    labels = ChannelUnionFind()
    rows, columns = labels.new(2), labels.new(3)
    grid = labels.product(rows, columns)
    assert len(grid) == 6
    assert labels.atoms(int(grid[4])) == {int(rows[1]), int(columns[1])}, (
        "position 4 of a 2 x 3 grid is row 1, column 1"
    )


def test_freezing_a_product_freezes_both_factors() -> None:
    labels = ChannelUnionFind()
    rows, columns = labels.new(2), labels.new(2)
    labels.freeze(labels.product(rows, columns)[:1], WHY)
    assert [labels.reason(int(node)) for node in (*rows, *columns)] == [WHY, None, WHY, None]


def test_a_frozen_axis_that_is_split_has_frozen_factors() -> None:
    labels = ChannelUnionFind()
    nodes = labels.new(6)
    labels.freeze(nodes[:1], WHY)
    rows, columns = labels.split(nodes, 2, 3)
    assert [labels.reason(int(node)) for node in rows] == [WHY, None]
    assert [labels.reason(int(node)) for node in columns] == [WHY, None, None]


def test_splitting_twice_gives_the_same_nodes() -> None:
    labels = ChannelUnionFind()
    nodes = labels.new(6)
    first, second = labels.split(nodes, 2, 3), labels.split(nodes, 2, 3)
    for left, right in zip(first, second, strict=True):
        assert all(same(labels, a, b) for a, b in zip(left, right, strict=True))


def test_splitting_a_product_gives_back_its_factors() -> None:
    labels = ChannelUnionFind()
    rows, columns = labels.new(2), labels.new(3)
    again = labels.split(labels.product(rows, columns), 2, 3)
    assert all(same(labels, a, b) for a, b in zip((*rows, *columns), (*again[0], *again[1]), strict=True))


def test_rows_and_columns_are_of_different_families() -> None:
    labels = ChannelUnionFind()
    rows, columns = labels.split(labels.new(4), 2, 2)
    assert labels.family(int(rows[0])) == labels.family(int(rows[1])) != ""
    assert labels.family(int(columns[0])) not in ("", labels.family(int(rows[0])))


def test_two_products_that_are_the_same_have_the_same_factors() -> None:
    labels = ChannelUnionFind()
    factors = [labels.new(2) for _ in range(4)]
    left, right = labels.product(factors[0], factors[1]), labels.product(factors[2], factors[3])
    labels.unify(left, right)
    for a, b in ((0, 2), (1, 3)):
        assert all(same(labels, x, y) for x, y in zip(factors[a], factors[b], strict=True))
    assert not same(labels, factors[0][0], factors[0][1])


def test_nothing_depends_on_what_memory_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprune.trace.union_find.np.empty", lambda shape, dtype: np.full(shape, 10**6, dtype))
    labels = ChannelUnionFind()
    grids = [labels.product(labels.new(2), labels.new(2)) for _ in range(2)]
    plain = labels.new(2)
    labels.unify(np.append(grids[0], plain[:1]), np.append(grids[1], plain[1:]))
    assert all(same(labels, a, b) for a, b in zip(grids[0], grids[1], strict=True))
    assert same(labels, plain[0], plain[1])


@pytest.mark.parametrize("side", [0, 1])
def test_a_product_that_is_its_own_factor_goes_with_it_and_the_other_factor_stays(side: int) -> None:
    labels = ChannelUnionFind()
    sides = labels.new(2), labels.new(3)
    grid = labels.product(*sides).reshape(2, 3)
    labels.unify(grid.reshape(-1), np.repeat(sides[0], 3) if side == 0 else np.tile(sides[1], 2))
    for row, column in np.ndindex(2, 3):
        assert labels.atoms(int(grid[row, column])) == {labels.find(int(sides[side][(row, column)[side]]))}
    assert len({labels.find(int(node)) for node in sides[side]}) == len(sides[side])
    assert not any(labels.reason(int(node)) for node in sides[side])
    assert all(labels.reason(int(node)) for node in sides[1 - side]), "only more is coupled, never less"


def test_a_product_of_a_product_that_is_one_of_its_factors_becomes_one_channel() -> None:
    labels = ChannelUnionFind()
    x, y, z = labels.new(1), labels.new(1), labels.new(1)
    outer = labels.product(labels.product(x, y), z)
    labels.unify(outer, x)
    assert {labels.find(int(node)) for node in (*x, *y, *z, *outer)} == {labels.find(int(x[0]))}


def test_giving_up_a_product_keeps_what_was_frozen() -> None:
    labels = ChannelUnionFind()
    rows, columns = labels.new(2), labels.new(2)
    grid = labels.product(rows, columns)
    labels.freeze(rows[:1], WHY)
    labels.unify(grid[:1], rows[:1])
    assert labels.reason(int(grid[0])) == labels.reason(int(rows[0])) == WHY
    assert labels.reason(int(columns[0])) is not None


def test_a_product_of_a_product_that_is_unified_with_its_factor_ends() -> None:
    """Factors that become equal to the product above them must not make it its own factor for ever."""
    labels = ChannelUnionFind()
    x, y, z = labels.new(2), labels.new(2), labels.new(2)
    inner = labels.product(x, y)
    outer = labels.product(z, inner)
    labels.unify(outer[:4], inner)
    assert all(labels.atoms(int(a)) == labels.atoms(int(b)) for a, b in zip(outer[:4], inner, strict=True))


@st.composite
def _steps(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    return draw(
        st.lists(
            st.tuples(
                st.sampled_from(["new", "unify", "unify", "product", "split", "freeze"]),
                st.integers(0, 30),
                st.integers(0, 30),
            ),
            min_size=1,
            max_size=14,
        )
    )


class History:
    """What was done to labels, to be checked at the end."""

    def __init__(self) -> None:
        self.union_find = ChannelUnionFind()
        self.axes = [self.union_find.new(4), self.union_find.new(2), self.union_find.new(2)]
        self.unified: list[tuple[int, int]] = []
        self.frozen: list[int] = []
        self.products: list[tuple[int, int, int]] = []

    def new(self, left: Axis, right: Axis) -> None:
        self.axes.append(self.union_find.new(len(left)))

    def unify(self, left: Axis, right: Axis) -> None:
        if len(left) == len(right):
            self.union_find.unify(left, right)
            self.unified += zip(left.tolist(), right.tolist(), strict=True)

    def product(self, left: Axis, right: Axis) -> None:
        if len(left) * len(right) <= 8:
            grid = self.union_find.product(left, right)
            self.axes.append(grid)
            self._note(grid, left, right)

    def split(self, left: Axis, right: Axis) -> None:
        if len(left) >= 4:
            rows, columns = self.union_find.split(left, 2, len(left) // 2)
            self.axes += [rows, columns]
            self._note(left, rows, columns)

    def freeze(self, left: Axis, right: Axis) -> None:
        self.union_find.freeze(left[:1], WHY)
        self.frozen.append(int(left[0]))

    def _note(self, grid: Axis, rows: Axis, columns: Axis) -> None:
        for position, node in enumerate(grid.tolist()):
            row, column = divmod(position, len(columns))
            self.products.append((node, int(rows[row]), int(columns[column])))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(_steps())
def test_whatever_is_done_stays_done(steps: list[tuple[str, int, int]]) -> None:
    history = History()
    labels = history.union_find
    for kind, first, second in steps:
        axes = history.axes
        getattr(history, kind)(axes[first % len(axes)], axes[second % len(axes)])
    assert all(same(labels, a, b) for a, b in history.unified)
    assert all(labels.reason(atom) for node in history.frozen for atom in labels.atoms(node))
    for node, row, column in history.products:
        free = [{atom for atom in labels.atoms(n) if labels.reason(atom) is None} for n in (node, row, column)]
        assert free[0] == free[1] | free[2]


def classes(labels: ChannelUnionFind, axis: Axis) -> set[frozenset[int]]:
    """Positions that go together."""
    roots = labels.roots(axis).tolist()
    return {frozenset(p for p, root in enumerate(roots) if root == one) for one in roots}


def test_rows_of_channels_of_their_own_lose_the_same_positions() -> None:
    labels = ChannelUnionFind()
    axis = labels.new(6)
    labels.balance(axis.reshape(3, 2))
    assert classes(labels, axis) == {frozenset((0, 2, 4)), frozenset((1, 3, 5))}


def test_rows_whose_channels_go_together_lose_equally_many() -> None:
    labels = ChannelUnionFind()
    axis = np.repeat(labels.new(5), 2)
    labels.balance(axis.reshape(2, 5))
    assert classes(labels, axis) == {frozenset((0, 1, 6, 7)), frozenset((2, 3, 8, 9)), frozenset((4, 5))}, (
        "the middle pair lies in both rows as it is"
    )


def test_several_channels_make_up_for_one_that_lies_at_several_positions() -> None:
    labels = ChannelUnionFind()
    single, pairs = labels.new(4), labels.new(2)
    axis = np.concatenate([single, np.repeat(pairs, 2)])
    labels.balance(axis.reshape(2, 4))
    assert classes(labels, axis) == {frozenset((0, 1, 4, 5)), frozenset((2, 3, 6, 7))}
    threes, fours = labels.new(4), labels.new(3)
    axis = np.concatenate([np.repeat(threes, 3), np.repeat(fours, 4)])
    labels.balance(axis.reshape(2, 12))
    assert classes(labels, axis) == {frozenset(range(24))}


def test_channels_that_stay_anyway_need_none_to_make_up_for_them() -> None:
    labels = ChannelUnionFind()
    fixed, single, pairs = labels.new(1), labels.new(3), labels.new(2)
    labels.freeze(fixed.tolist(), WHY)
    axis = np.concatenate([fixed, single, np.repeat(pairs, 2)])
    unmatched = labels.balance(axis.reshape(2, 4))
    assert classes(labels, axis) == {frozenset((0,)), frozenset((1, 2, 4, 5)), frozenset((3,)), frozenset((6, 7))}
    assert set(unmatched.tolist()) == {single[2], pairs[1]}


@given(rows=st.integers(2, 4), columns=st.integers(1, 8), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_sets_leave_balanced_rows_equally_long(rows: int, columns: int, data: st.DataObject) -> None:
    labels = ChannelUnionFind()
    nodes = labels.new(rows * columns)
    picked = data.draw(st.lists(st.sampled_from(nodes.tolist()), min_size=len(nodes), max_size=len(nodes)))
    table = np.array(picked, dtype=np.int64).reshape(rows, columns)
    fixed = data.draw(st.lists(st.sampled_from(nodes.tolist()), max_size=3))
    labels.freeze(fixed, WHY)
    labels.freeze(labels.balance(table).tolist(), WHY)
    roots = labels.roots(table.reshape(-1)).reshape(rows, columns)
    for root in (root for root in np.unique(roots) if labels.reason(int(root)) is None):
        assert len(set((roots == root).sum(1).tolist())) == 1


def test_a_grid_without_rows_goes_by_its_columns() -> None:
    labels = ChannelUnionFind()
    axis = labels.new(6)
    rows, columns = labels.split(axis, 2, 3)
    assert labels.without_rows(rows, columns)
    assert classes(labels, axis) == {frozenset((0, 3)), frozenset((1, 4)), frozenset((2, 5))}
    assert labels.atoms(int(axis[4])) == {labels.find(int(columns[1]))}
    assert not labels.without_rows(columns, rows), "no such grid"
