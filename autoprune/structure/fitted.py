"""Structures of a cost function: the products of widths whose sum it is, found by calling it at chosen widths."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from autoprune.display import LARGEST_INTEGER, shorten
from autoprune.errors import ConfigurationError, error_message
from autoprune.structure.cost import STRUCTURE_COSTS
from autoprune.structure.products import Product, TensorInfo
from autoprune.structure.stored import Structure
from autoprune.structure.written import Group, check_names, stored_block, stored_groups

#: (width of every group, dropped blocks) -> "multiply_adds", "parameters" and, if it wants, "size_bytes".
CostFunction = Callable[[Mapping[str, int], tuple[str, ...]], Mapping[str, float]]
#: Numbers of the groups whose widths are multiplied.
Term = tuple[int, ...]
#: Difference, as a share of the dense cost, that counts as none.
_NONE = 1e-9
#: Points at which a finished table is compared with the function.
_CHECKS = 40
#: Bytes of a parameter where the function does not say.
_ITEM_BYTES = 4


def structure_of_costs(groups: Sequence[Group], costs: CostFunction, blocks: Sequence[str] = ()) -> Structure:
    """Work out the structure of a model from a function that counts its costs.

    The costs of a network are a sum of products of widths. The function is called about groups^2 / 2 times to find
    these products, and compared with their sum at other widths; write the layers down where it is slow.

    Args:
        groups: Groups of channels, in the order of the forward.
        costs: Function of the width of every group and the names of the dropped blocks. It returns "multiply_adds" and
            "parameters", and "size_bytes" where a parameter has other than 4 bytes; all of them counts.
        blocks: Names of the blocks that can be dropped, each of which has layers of its own.

    Returns:
        The structure, whose costs are the function's.

    Raises:
        ConfigurationError: The function is no such sum, as where it rounds widths.

    Example:
        >>> def costs(widths, dropped):
        ...     weights = 9 * 3 * widths["a"] + 9 * widths["a"] * widths["b"] + 10 * widths["b"]
        ...     return {"multiply_adds": 64 * weights, "parameters": weights}
        >>> structure = structure_of_costs([Group(name="a", channels=8), Group(name="b", channels=16)], costs)
        >>> len(structure.products)
        3
    """
    check_names("groups", (group.name for group in groups))
    check_names("blocks", blocks)
    return _Fit(groups, costs, tuple(blocks)).structure()


class _Fit:
    """A search for the products of one function."""

    def __init__(self, groups: Sequence[Group], costs: CostFunction, blocks: tuple[str, ...]) -> None:
        self.groups, self.costs, self.blocks = groups, costs, blocks
        self.dense = np.array([group.channels for group in groups], dtype=np.int64)
        self.least = np.array([group.least for group in groups], dtype=np.int64)
        self.low = np.maximum(self.least, self.dense // 3)
        self.random = np.random.default_rng(0)
        self.whole = self.at(self.dense, ())

    def at(self, widths: np.ndarray, dropped: tuple[str, ...]) -> np.ndarray:
        """Call the function, float [costs]."""
        names = (group.name for group in self.groups)
        found = self.costs(dict(zip(names, widths.tolist(), strict=True)), dropped)
        if not isinstance(found, Mapping) or not {"multiply_adds", "parameters"} <= found.keys():
            wants = "return multiply_adds and parameters, by name"
            raise ConfigurationError(error_message("a cost function", wants, shorten(repr(found))))
        given = {"size_bytes": _ITEM_BYTES * found["parameters"], **found}
        costs = np.array([given[name] for name in STRUCTURE_COSTS], dtype=np.float64)
        if not (np.abs(costs) < LARGEST_INTEGER).all():
            got = shorten(repr(dict(found)))
            raise ConfigurationError(error_message("a cost function", "return numbers below 2^63", got))
        return costs

    def lowered(self, *groups: int) -> np.ndarray:
        """Return the function where some groups are narrow and all others are whole."""
        widths = self.dense.copy()
        widths[list(groups)] = self.low[list(groups)]
        return self.at(widths, ())

    def terms(self) -> Iterator[Term]:
        """Yield the products that may occur: of single groups, and of groups that change what the others save."""
        free = np.flatnonzero(self.low < self.dense).tolist()
        single = {one: self.lowered(one) for one in free}
        yield ()
        for one in free:
            yield (one,)
            if self.is_curved(one, single[one]):
                yield (one, one)
        pairs = {}
        for one, other in itertools.combinations(free, 2):
            both = self.lowered(one, other)
            if self.differ(self.whole + both, single[one] + single[other]):
                pairs[one, other] = both
                yield (one, other)
        for one, other, third in itertools.combinations(free, 3):
            if {(one, other), (one, third), (other, third)} <= pairs.keys():
                even = self.whole + pairs[one, other] + pairs[one, third] + pairs[other, third]
                if self.differ(even, single[one] + single[other] + single[third] + self.lowered(one, other, third)):
                    yield (one, other, third)

    def is_curved(self, group: int, narrow: np.ndarray) -> bool:
        """Tell whether the cost grows with the square of a group."""
        widths = self.dense.copy()
        middle = int(self.dense[group] + self.low[group]) // 2
        if middle in (self.low[group], self.dense[group]):
            return False
        widths[group] = middle
        share = (middle - self.low[group]) / (self.dense[group] - self.low[group])
        return self.differ(self.at(widths, ()), narrow + share * (self.whole - narrow))

    def differ(self, one: np.ndarray, other: np.ndarray) -> bool:
        """Tell whether costs differ by more than the precision of numbers."""
        return bool((np.abs(one - other) > _NONE * np.maximum(np.abs(self.whole), 1.0)).any())

    def structure(self) -> Structure:
        """Find the factor of each product, for the blocks and for the rest, and check them."""
        terms = [*self.terms()]
        points = self.points(len(terms) + 10)
        matrix = self.products(points, terms, scaled=True)
        whole = np.array([self.at(point, ()) for point in points])
        bare = np.array([self.at(point, self.blocks) for point in points]) if self.blocks else whole
        parts = [bare, *(whole - np.array([self.at(point, (block,)) for point in points]) for block in self.blocks)]
        size = np.array([float(np.prod(self.dense[list(term)], dtype=np.float64)) for term in terms])
        factors = [np.round(np.linalg.lstsq(matrix, part, rcond=None)[0] / size[:, None]) for part in parts]
        self.check(terms, factors)
        used = {one for term, price in zip(terms, np.sum(factors, axis=0), strict=True) if price.any() for one in term}
        for number, group in enumerate(self.groups):
            if number not in used and self.low[number] < self.dense[number]:
                got = "one that changes none"
                raise ConfigurationError(error_message(f"group {group.name!r}", "change some cost", got))
        return self.written(terms, factors)

    def points(self, count: int) -> np.ndarray:
        """Draw widths, int [count, groups]; the dense model first."""
        drawn = self.random.integers(self.least, self.dense + 1, size=(count, len(self.dense)))
        drawn[0] = self.dense
        return np.asarray(drawn)

    def products(self, points: np.ndarray, terms: Sequence[Term], *, scaled: bool) -> np.ndarray:
        """Multiply the widths of each product, float [points, terms]; as shares of dense where scaled."""
        widths = points / self.dense if scaled else points.astype(np.float64)
        return np.stack([widths[:, list(term)].prod(axis=1) for term in terms], axis=1)

    def check(self, terms: Sequence[Term], factors: Sequence[np.ndarray]) -> None:
        """Compare the sum with the function where it was not called before."""
        for point in self.points(_CHECKS):
            stays = self.random.random(len(self.blocks)) < 0.5
            dropped = tuple(block for block, kept in zip(self.blocks, stays, strict=True) if not kept)
            row = self.products(point[None], terms, scaled=False)[0]
            kept = [factors[0], *(one for one, stay in zip(factors[1:], stays, strict=True) if stay)]
            if min(float(one.min()) for one in factors) < 0 or self.differ(self.at(point, dropped), row @ sum(kept)):
                widths = {group.name: int(width) for group, width in zip(self.groups, point, strict=True)}
                raise ConfigurationError(
                    error_message(
                        "a cost function",
                        "be a sum of products of widths with whole factors, and of blocks that are apart",
                        f"another one (at widths {widths}{f' without {dropped}' if dropped else ''})",
                        "Write the layers down in structure_of_layers, and tell the costs that you measure.",
                    )
                )

    def written(self, terms: Sequence[Term], factors: Sequence[np.ndarray]) -> Structure:
        """Write each product as tensors of the right sizes."""
        tensors: dict[str, TensorInfo] = {}
        axes: dict[str, list[str]] = {}
        products: list[Product] = []
        blocks: dict[str, list[str]] = {block: [] for block in self.blocks}
        for owner, part in zip(("", *self.blocks), factors, strict=True):
            for term, prices in zip(terms, part.astype(int).tolist(), strict=True):
                named = [self.groups[one].name for one in term]
                widths = tuple(self.groups[one].channels for one in term)
                for number, (length, item, parameter, positions) in enumerate(_tensors(*prices)):
                    name = f"{owner or 'model'}: {' x '.join(named) or 'the rest'} ({number})"
                    tensors[name] = TensorInfo(shape=(*widths, length), item_bytes=item, is_parameter=parameter)
                    axes[name] = named
                    products += [Product(weight=name, positions=positions)] if positions else []
                    if owner:
                        blocks[owner].append(name)
        return Structure(
            tensors=tensors,
            groups=stored_groups(self.groups, axes),
            blocks=tuple(stored_block(name, inside) for name, inside in blocks.items()),
            products=tuple(products),
        )


def _tensors(multiply_adds: int, parameters: int, size_bytes: int) -> Iterator[tuple[int, int, bool, int]]:
    """Yield tensors of given costs: (length of the last axis, bytes of an element, is a parameter, positions)."""
    item, left = divmod(size_bytes, parameters) if parameters else (0, size_bytes)
    positions, more = divmod(multiply_adds, parameters) if parameters else (0, multiply_adds)
    if parameters:
        yield parameters, 0 if left else item, True, 0 if more else positions
    if left:
        yield size_bytes, 1, False, 0
    if more:
        yield multiply_adds, 0, False, 1
