"""Follow channels through operators that read or write positions of an axis by number or by rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from autoprune.structure.reasons import PICKED, RANKED, UNMADE, ReasonKind
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.observations import Axes
from autoprune.trace.rules.rule import Args, Kwargs, OperatorRule, source_and_dim
from autoprune.trace.values import tensors_in


def embedding(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow rows of a table, whose columns are the channels."""
    weight = args[0]
    assert isinstance(weight, Tensor)
    graph.role(weight, 1, "out")
    graph.embedding_rows.append(graph.axes(weight)[0])
    result = tensors_in(out)[0]
    graph.put(result, [*([None] * (result.ndim - 1)), graph.axes(weight)[1]])


def index(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow x[i, :, j]: freeze the axes that are picked from, and keep the others.

    If positions are counted from the end of an axis, those before the first picked one stay free.
    """
    source, indices, result = args[0], args[1], tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(indices, list | tuple)
    items = dict(_items(indices))
    picked = list(items)
    axes = graph.axes(source)
    for axis, item in items.items():
        nodes = axes[axis]
        from_end = nodes is not None and item.dtype == torch.int64 and item.numel() and int(item.max()) < 0
        graph.freeze(nodes[int(item.min()) :] if nodes is not None and from_end else nodes, PICKED)
    kept: Axes = [nodes for axis, nodes in enumerate(axes) if axis not in picked]
    made: Axes = [None] * (result.ndim - len(kept))
    first = _first_made(picked)
    if len(made) == len(picked):
        own = [axis for axis in range(source.ndim) if axis not in picked]
        graph.derive(result, source, [*own[:first], *picked, *own[first:]])
    graph.put(result, [*kept[:first], *made, *kept[first:]])


def _first_made(picked: Sequence[int]) -> int:
    """Return the place of picked axes in the result: torch moves separated picks to the front.

    Args:
        picked: Axes that are picked from, sorted.

    Returns:
        The first axis that replaces them.
    """
    adjacent = bool(picked) and picked[-1] - picked[0] == len(picked) - 1
    return picked[0] if adjacent else 0


def _picked_axes(indices: Sequence[object]) -> list[int]:
    """Return the axes that indices pick positions from.

    Args:
        indices: Arguments of an index: None, or tensors of whole numbers or bool.

    Returns:
        The axes, sorted.
    """
    return [axis for axis, _ in _items(indices)]


def _items(indices: Sequence[object]) -> Iterator[tuple[int, Tensor]]:
    """Yield the axes that indices pick from, each with its index."""
    axis = 0
    for item in indices:
        width = 1
        if isinstance(item, Tensor):
            # A mask replaces as many axes as it has.
            width = max(item.ndim, 1) if item.dtype == torch.bool else 1
            yield from ((axis + number, item) for number in range(width))
        axis += width


def index_select(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze an axis whose positions are picked or windowed."""
    _along_one(graph, args, kwargs, out, PICKED)


def sort(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze an axis whose positions are picked by their values."""
    _along_one(graph, args, kwargs, out, RANKED)


def _along_one(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object, kind: ReasonKind) -> None:
    source, dim = source_and_dim(args, kwargs, -1)
    axes = graph.axes(source)
    graph.freeze(axes[dim], kind)
    for result in tensors_in(out):
        after = [None if axis == dim else nodes for axis, nodes in enumerate(axes)]
        after += [None] * (result.ndim - len(after))
        for nodes, size in zip(after, result.shape, strict=False):
            if nodes is not None and len(nodes) != size:
                graph.freeze_all(source, kind)
                after = [None] * result.ndim
                break
        graph.put(result, after[: result.ndim])


def topk(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze the axis of topk(k, dim), where all values decide which positions stay; keep the others."""
    source = args[0]
    dim = kwargs.get("dim", args[2] if len(args) > 2 else -1)
    assert isinstance(source, Tensor) and isinstance(dim, int)
    axes = graph.axes(source)
    graph.freeze(axes[dim], RANKED)
    axes[dim] = None
    for result in tensors_in(out):
        graph.put(result, axes)


def index_write(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow index_add and index_copy(dim, index, source): freeze the written axis, and couple the others."""
    _written_along(graph, args, args[3], out)


def scatter(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow scatter and scatter_add(dim, index, source) like `index_write`, if they cover the other axes."""
    places, source = args[2], args[3] if len(args) > 3 else None
    target = args[0]
    assert isinstance(target, Tensor) and isinstance(places, Tensor)
    dim = _dim(args, target)
    if any(axis != dim and size != target.shape[axis] for axis, size in enumerate(places.shape)):
        raise ValueError("a part of the other axes")
    _written_along(graph, args, source, out)


def _written_along(graph: ChannelGraph, args: Args, source: object, out: object) -> None:
    target = args[0]
    assert isinstance(target, Tensor)
    dim, axes = _dim(args, target), graph.axes(target)
    graph.freeze(axes[dim], PICKED)
    if isinstance(source, Tensor) and source.ndim:
        given = graph.axes(source)
        graph.freeze(given[dim], PICKED)
        axes = [
            axes[axis] if axis == dim else graph.unify(axes[axis], given[axis], UNMADE) for axis in range(len(axes))
        ]
    for result in tensors_in(out):
        graph.put(result, axes)


def index_put(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow x[i, :, j] = y: freeze the axes written to by number; the others hold the channels of y."""
    target, indices, values = args[0], args[1], args[2]
    assert isinstance(target, Tensor) and isinstance(indices, list | tuple) and isinstance(values, Tensor)
    picked, axes = _picked_axes(indices), graph.axes(target)
    for axis in picked:
        graph.freeze(axes[axis], PICKED)
    own = [axis for axis in range(target.ndim) if axis not in picked]
    first = _first_made(picked)
    places: list[int | None] = [*own[:first], *([None] * _made(indices)), *own[first:]]
    given: Axes = graph.axes(values)
    for position, nodes in enumerate(reversed(given)):
        place = places[-1 - position]
        if place is None:
            graph.freeze(nodes, PICKED)
        elif values.shape[-1 - position] == target.shape[place]:
            axes[place] = graph.unify(axes[place], nodes, UNMADE)
    for result in tensors_in(out):
        graph.put(result, axes)


def _made(indices: Sequence[object]) -> int:
    """Return the number of axes by which a value replaces the indexed axes."""
    return max((1 if str(i.dtype) == "torch.bool" else i.ndim for i in indices if isinstance(i, Tensor)), default=0)


def _dim(args: Args, target: Tensor) -> int:
    assert isinstance(args[1], int)
    return args[1] % target.ndim


INDEXING_RULES: Mapping[str, OperatorRule] = {
    **dict.fromkeys(("embedding", "_embedding_bag"), embedding),
    **dict.fromkeys(("index", "_unsafe_index"), index),
    **dict.fromkeys(("gather", "index_select", "unfold"), index_select),
    **dict.fromkeys(("sort", "argsort"), sort),
    "topk": topk,
    **dict.fromkeys(("index_add", "index_add_", "index_copy", "index_copy_"), index_write),
    **dict.fromkeys(("scatter", "scatter_", "scatter_add", "scatter_add_"), scatter),
    **dict.fromkeys(("index_put", "index_put_", "_unsafe_index_put"), index_put),
}
