"""Find the numbers in modules, such as num_heads, that follow the width of a group or the shape of a weight."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from torch import nn

from autoprune.structure.groups import Attribute, PositionSpan
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.numbers import nearby_modules, numbers_in
from autoprune.trace.observations import Grid, ModuleNumber

#: Where a grid has as many rows as columns, numbers with these parts in their name count the columns.
_WIDTH_WORDS = ("dim", "size", "width", "channel", "d_k", "d_v", "kv_proj")
#: Names of numbers that never are the size of a grid or of its sides, whatever their value.
_OTHER_WORDS = ("num_buckets", "max_", "_length", "position", "vocab", "layer", "value_groups", "n_rep")
#: Parts of names that count or measure positions in space or time, not channels.
_PLACES = ("img_size", "image_size", "grid_size", "patch_size", "patches", "resolution", "reduction", "window")
#: Parts of names of the length of a weight's output axis, and of its input axis.
_OUT_WORDS, _IN_WORDS = ("out", "nf", "num_output"), ("in", "nx", "num_input")


_T = TypeVar("_T")


class _Claim(NamedTuple):
    """A number of a module that may be the length of an axis, or of a grid of `nodes` times `others`.

    side: "rows" or "columns" of a grid, if it is one. unsure: it may be the other side. lent: the grid belongs to a
    module near this one.
    """

    module: str
    name: str
    value: int
    nodes: npt.NDArray[np.int64]
    others: npt.NDArray[np.int64]
    whole: bool
    certain: bool = False
    of_weight: bool = False
    side: str = ""
    unsure: bool = False
    lent: bool = False


_NONE = np.empty(0, dtype=np.int64)
#: Modules whose numbers follow from the shapes of their weights.
_SELF_REPAIRED = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.Embedding)


class Attributes:
    """Numbers of modules that follow groups, found once the trace is complete.

    Candidates are whole numbers of modules that reshape or split channels, equal to the length of a grid's side, of the
    whole grid, of a part, or of an axis of a weight. If one number is the length of several sides (the head width of
    query, key and value), these sides become the same channels. The proof decides which guesses are needed.

    Args:
        graph: The channels of a finished trace. Its union-find may couple more channels.
        model: The model that was traced.
    """

    def __init__(self, graph: ChannelGraph, model: nn.Module) -> None:
        self._graph, self._model = graph, model
        self._claims = list(_decided([claim for grid in graph.grids for claim in _claims(graph, grid)]))
        sides = {(claim.module, claim.name) for claim in self._claims if not claim.lent}
        lengths = _in_order(graph, [claim for length in graph.axis_lengths for claim in _lengths(graph, length)])
        lengths += _of_weights(graph, model)
        self._claims = [claim for claim in self._claims if not _frozen(graph, claim.nodes)]
        self._couple()
        # A number known as the side of a grid is no length, even if a length is equal to it.
        self._claims += [claim for claim in lengths if (claim.module, claim.name) not in sides]
        self._views = [(view, _atoms(graph, view.nodes)) for view in graph.reshaped_axes]
        self._claims += [claim for follower in graph.named_numbers for claim in _named(model, follower)]

    def by_group(self, owner: Mapping[int, str]) -> dict[str, tuple[Attribute, ...]]:
        """Return the numbers that follow each group.

        Args:
            owner: Class of channels -> name of its group.

        Returns:
            Group name -> attributes.
        """
        found: dict[tuple[str, str], Attribute] = {}
        for claim in sorted(self._claims, key=_last):
            key = (claim.module, claim.name)
            spans = _spans(self._graph, owner, claim) if key not in found else ()
            if any(
                span.groups for span in spans
            ):  # a number equal to a kernel size, say, may be the width of a group as well
                found[key] = Attribute(
                    module=claim.module, name=claim.name, value=claim.value, spans=spans, certain=claim.certain
                )
        groups: dict[str, list[Attribute]] = defaultdict(list)
        for attribute in found.values():
            for name in {name for span in attribute.spans for name in span.groups}:
                groups[name].append(attribute)
        return {name: tuple(attributes) for name, attributes in groups.items()}

    def reshaped(self, atoms: Sequence[int]) -> tuple[str, ...]:
        """Return the modules that reshape axes of a group, without modules of torch that update themselves.

        Args:
            atoms: Classes of the group.

        Returns:
            Names of modules.
        """
        members = {self._graph.union_find.find(atom) for atom in atoms}
        found = dict.fromkeys(view.module for view, own in self._views if members & own)
        return tuple(name for name in found if not isinstance(self._graph.modules[name], _SELF_REPAIRED))

    def scaling(self, atoms: Sequence[int]) -> tuple[str, ...]:
        """Return the modules that compute a scale from the width of a group.

        Args:
            atoms: Classes of the group.

        Returns:
            Names of modules.
        """
        members = {self._graph.union_find.find(atom) for atom in atoms}
        found = (scaled.module for scaled in self._graph.scale_widths if members & _atoms(self._graph, scaled.nodes))
        return tuple(dict.fromkeys(found))

    def _couple(self) -> None:
        """Couple the sides that share a number. Two sides of one grid stay apart: each has its own number."""
        union_find = self._graph.union_find
        sides: dict[tuple[str, str], list[_Claim]] = defaultdict(list)
        for claim in self._claims:
            if not claim.whole:
                sides[claim.module, claim.name].append(claim)
        for claims in sides.values():
            for claim in claims[1:]:
                if len(claim.nodes) == len(claims[0].nodes) and not self._cross(claims[0], claim):
                    union_find.unify(claims[0].nodes, claim.nodes)

    def _cross(self, first: _Claim, second: _Claim) -> bool:
        """Tell whether two claims are for different sides of a grid, such as heads and equally many points."""
        one, other = (_atoms(self._graph, claim.nodes) for claim in (first, second))
        grids = [grid for grid in self._graph.grids if grid.module == first.module and one != other]
        sides = [(_atoms(self._graph, grid.rows), _atoms(self._graph, grid.columns)) for grid in grids]
        return any((one & a and other & b) or (other & a and one & b) for a, b in sides)


def _last(claim: _Claim) -> tuple[bool, ...]:
    """Return the sort key of claims for one number: the likeliest first."""
    return not claim.certain, not claim.of_weight, claim.lent, claim.whole


def spans_of(graph: ChannelGraph, owner: Mapping[int, str], *sides: npt.NDArray[np.int64]) -> tuple[PositionSpan, ...]:
    """Count positions by the groups that they are removed with.

    Args:
        graph: The channels.
        owner: Class of channels -> name of its group.
        sides: Nodes of an axis, or of both sides of a grid, row by row.

    Returns:
        One span for each combination of groups.
    """
    counted: Counter[tuple[str, ...]] = Counter()
    for parts in itertools.product(*(_owners(graph, owner, nodes).items() for nodes in sides)):
        names = frozenset[str]().union(*(groups for groups, _ in parts))
        counted[tuple(sorted(names))] += math.prod(count for _, count in parts)
    return tuple(PositionSpan(positions=count, groups=names) for names, count in counted.items())


def _owners(graph: ChannelGraph, owner: Mapping[int, str], nodes: npt.NDArray[np.int64]) -> Counter[frozenset[str]]:
    """Count the positions of an axis by the groups that they are removed with."""
    union_find, counted = graph.union_find, Counter[frozenset[str]]()
    for node, count in Counter(union_find.alike(union_find.roots(nodes)).tolist()).items():
        counted[frozenset(owner[atom] for atom in union_find.atoms(node) if atom in owner)] += count
    return counted


def _spans(graph: ChannelGraph, owner: Mapping[int, str], claim: _Claim) -> tuple[PositionSpan, ...]:
    return spans_of(graph, owner, *((claim.nodes, claim.others) if claim.whole else (claim.nodes,)))


def _frozen(graph: ChannelGraph, nodes: npt.NDArray[np.int64]) -> bool:
    return any(graph.union_find.reason(atom) for atom in _atoms(graph, nodes))


def _lengths(graph: ChannelGraph, length: ModuleNumber) -> Iterator[_Claim]:
    """Yield the numbers of a module equal to an axis that it splits off or reshapes; else those of nearby modules."""
    if isinstance(graph.modules[length.module], _SELF_REPAIRED):
        return
    found = [
        [
            _Claim(path, name, value, length.nodes, _NONE, whole=False)
            for name, value in numbers_in(graph.modules[path]).items()
            if value == length.value and not any(word in name for word in _PLACES)
        ]
        for path in (length.module, *nearby_modules(graph.modules, length.module))
    ]
    yield from found[0] or itertools.chain(*found)


def _in_order(graph: ChannelGraph, claims: Sequence[_Claim]) -> list[_Claim]:
    """Drop claims of a list's numbers for each other's parts: equal numbers are lengths of parts in order."""
    names: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    parts: dict[tuple[str, str, int], list[tuple[int, ...]]] = defaultdict(list)
    places = []
    for claim in claims:
        key = claim.module, claim.name.rpartition("[")[0], claim.value
        part = tuple(graph.union_find.roots(claim.nodes).tolist())
        places.append((key, _place(names[key], claim.name), _place(parts[key], part)))
    return [
        claim
        for claim, (key, name, part) in zip(claims, places, strict=True)
        if name == part or not key[1] or len(names[key]) != len(parts[key])
    ]


def _place(known: list[_T], item: _T) -> int:
    if item not in known:
        known.append(item)
    return known.index(item)


def _atoms(graph: ChannelGraph, nodes: npt.NDArray[np.int64]) -> set[int]:
    return set(graph.union_find.atoms_of(nodes).tolist())


def _claims(graph: ChannelGraph, grid: Grid) -> Iterator[_Claim]:
    """Yield the numbers of a module equal to a side of its grid, or to the grid.

    Numbers of nearby modules are added where the module has no number for a size.
    """
    if isinstance(graph.modules[grid.module], _SELF_REPAIRED):
        return
    own = list(_counting(graph, grid, grid.module))
    yield from own
    counted = {(len(claim.nodes), len(claim.others)) for claim in own}
    for path in nearby_modules(graph.modules, grid.module):
        yield from (
            claim._replace(lent=True)
            for claim in _counting(graph, grid, path)
            if (len(claim.nodes), len(claim.others)) not in counted
        )


def _decided(claims: Sequence[_Claim]) -> Iterator[_Claim]:
    """Drop one of two claims for either side of a grid: other grids with unequal sides decide, else rows win."""
    told: dict[tuple[str, str], set[str]] = defaultdict(set)
    for claim in claims:
        if claim.side and not claim.unsure:
            told[claim.module, claim.name].add(claim.side)
    for claim in claims:
        sides = told.get((claim.module, claim.name), {"rows"})
        if not claim.unsure or claim.side == ("columns" if sides == {"columns"} else "rows"):
            yield claim


def _counting(graph: ChannelGraph, grid: Grid, path: str) -> Iterator[_Claim]:
    """Yield the numbers of one module that count a grid.

    Rows that are heads times batch, or columns times a window, count every class once.
    """
    module = graph.modules[path]
    certain = type(module) is nn.MultiheadAttention  # its cut form keeps the names of its numbers
    rows, columns = ({len(side): side for side in _sides(graph, nodes)} for nodes in grid[1:])
    numbers = {
        name: value
        for name, value in numbers_in(module).items()
        if not any(word in name for word in (*_OTHER_WORDS, *_PLACES))
    }
    # A width may be the number of rows only where nothing else counts them.
    counted = any(value in rows and not _is_width(name) for name, value in numbers.items())
    for name, value in numbers.items():
        row = value in rows and not (_is_width(name) and (counted or value in columns))
        column = value in columns and not _is_count(name)
        for side, sides in (("rows", rows if row else {}), ("columns", columns if column else {})):
            if value in sides:
                claim = _Claim(path, name, value, sides[value], _NONE, whole=False, certain=certain, side=side)
                yield claim._replace(unsure=row and column)
        for row_side, column_side in itertools.product(rows.values(), columns.values()):
            if value == len(row_side) * len(column_side):
                yield _Claim(path, name, value, row_side, column_side, whole=True)


def _is_width(name: str) -> bool:
    return any(word in name for word in _WIDTH_WORDS)


def _is_count(name: str) -> bool:
    """Tell whether a name is that of a number of heads or groups, which are rows."""
    name = name.rpartition(".")[2]
    return not _is_width(name) and (name.startswith(("num_", "n_")) or name.endswith(("heads", "groups")))


def _sides(graph: ChannelGraph, nodes: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return _distinct(graph, nodes), nodes


def _distinct(graph: ChannelGraph, nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return one node of each class, in order: rows that are heads times batch count each head once."""
    first = {graph.union_find.find(node): node for node in reversed(nodes.tolist())}
    return np.array(list(reversed(first.values())), dtype=np.int64)


def _named(model: nn.Module, follower: ModuleNumber) -> Iterator[_Claim]:
    """Yield a number by its name, or equal numbers with "group" in their name if the module lacks that name."""
    numbers = vars(model.get_submodule(follower.module))
    certain = follower.name in numbers
    names = [follower.name] if certain else [name for name in numbers if "group" in name]
    for name in names:
        if numbers[name] in (follower.value, (follower.value,)) and type(numbers[name]) in (int, tuple):
            torchs = certain and type(model.get_submodule(follower.module)).__module__.startswith("torch.nn.")
            yield _Claim(follower.module, name, follower.value, follower.nodes, _NONE, whole=False, certain=torchs)


def _of_weights(graph: ChannelGraph, model: nn.Module) -> Iterator[_Claim]:
    """Yield numbers equal to an axis of a weight, in modules outside torch that hold the weight."""
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torch.nn."):
            continue
        prefix = f"{path}." if path else ""
        owned = [name for name, _ in module.named_parameters(recurse=False)]
        for name, value in vars(module).items():
            place = _axis_of(graph, [prefix + own for own in owned], name, value)
            nodes = None if place is None else graph.owned[place[0]][place[1]]
            if nodes is not None:
                yield _Claim(path, name, len(nodes), nodes, _NONE, whole=False, of_weight=True)


def _axis_of(graph: ChannelGraph, tensors: Sequence[str], name: str, value: object) -> tuple[str, int] | None:
    """Return the (weight, axis) of that length that a product makes or reads; the name decides if both kinds fit."""
    if type(value) is not int or value < 2 or name.startswith("_"):
        return None
    places = [
        (graph.roles.get((tensor, axis), ""), tensor, axis)
        for tensor in tensors
        if tensor in graph.named and graph.named[tensor].ndim > 1
        for axis, size in enumerate(graph.named[tensor].shape)
        if size == value and graph.roles.get((tensor, axis)) in ("out", "in")
    ]
    if len({role for role, _, _ in places}) > 1:
        wanted = "out" if any(word in name for word in _OUT_WORDS) else "in" if _reads(name) else ""
        places = [place for place in places if place[0] == wanted]
    return places[0][1:] if places else None


def _reads(name: str) -> bool:
    return any(word in name for word in _IN_WORDS)
