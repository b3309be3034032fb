"""Follow channels through operators that give axes another shape or order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from autoprune.structure.reasons import COUPLED, EMPTY, LARGE, STRIDED
from autoprune.trace.coupling import balance, tie
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.observations import Axes, Grid
from autoprune.trace.rules.rule import Args, Kwargs, OperatorRule
from autoprune.trace.union_find import AxisNodes
from autoprune.trace.values import tensors_in

#: Largest grid of two channel axes that is followed when they are flattened into one.
MAX_GRID = 1 << 20


def reshape(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow view, reshape, flatten, unflatten, squeeze and unsqueeze: axes are matched by their products."""
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    graph.derive(result, source)
    axes = graph.axes(source)
    if source.numel() == 0:
        graph.freeze_all(source, EMPTY)
        return
    new: Axes = [None] * result.ndim
    for before, after in _segments(source.shape, result.shape):
        nodes = _flatten(graph, [(axes[axis], source.shape[axis]) for axis in before])
        for axis, part in zip(after, _unflatten(graph, nodes, [result.shape[axis] for axis in after]), strict=True):
            new[axis] = part
            graph.note_length(part)
            graph.note_reshape(part)
            if len(before) == len(after) == 1:
                tie(graph, part)
    graph.put(result, new)


def _segments(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return runs of axes with equal products; axes of size 1 hold no channels and are left out."""
    left = [axis for axis, size in enumerate(before) if size != 1]
    right = [axis for axis, size in enumerate(after) if size != 1]
    segments = []
    while left and right:
        a, b = [left.pop(0)], [right.pop(0)]
        size_a, size_b = before[a[0]], after[b[0]]
        while size_a != size_b:
            if size_a < size_b:
                a.append(left.pop(0))
                size_a *= before[a[-1]]
            else:
                b.append(right.pop(0))
                size_b *= after[b[-1]]
        segments.append((a, b))
    return segments


def _flatten(graph: ChannelGraph, parts: Sequence[tuple[AxisNodes, int]]) -> AxisNodes:
    nodes, size = parts[0]
    for other, count in parts[1:]:
        if nodes is not None and other is not None:
            if len(nodes) * len(other) > MAX_GRID:
                for side in (nodes, other):
                    graph.freeze(side, LARGE)
                return None
            if graph.union_find.without_rows(other, nodes):
                # A shuffle reads rows and writes columns: the number of rows is fixed.
                nodes = np.repeat(nodes, count)
            else:
                graph.grids.append(Grid(graph.module, nodes, other))
                nodes = graph.union_find.product(nodes, other)
        elif nodes is not None:
            nodes = np.repeat(nodes, count)
        elif other is not None:
            nodes = np.tile(other, size)
        size *= count
    return nodes


def _unflatten(graph: ChannelGraph, nodes: AxisNodes, sizes: Sequence[int]) -> Axes:
    if nodes is None or len(sizes) == 1:
        return [nodes, *([None] * (len(sizes) - 1))] if nodes is not None else [None] * len(sizes)
    rows, columns = sizes[0], len(nodes) // sizes[0]
    grid = graph.union_find.roots(nodes).reshape(rows, columns)
    if (grid == grid[:, :1]).all():
        return [nodes.reshape(rows, columns)[:, 0], *([None] * (len(sizes) - 1))]
    if (grid == grid[:1]).all():
        return [None, *_unflatten(graph, nodes[:columns], sizes[1:])]
    apart = tie(graph, nodes, split=True)
    row_nodes, column_nodes = graph.union_find.split(nodes, rows, columns)
    if apart is not None and graph.union_find.without_rows(row_nodes, column_nodes):
        # Columns, equally many in every row, make up for sets of the input's channels.
        graph.freeze(row_nodes, COUPLED)
        balance(graph, np.stack([nodes, apart]))
    graph.grids.append(Grid(graph.module, row_nodes, column_nodes))
    return [row_nodes, *_unflatten(graph, column_nodes, sizes[1:])]


def permute(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow permute(dims)."""
    source, dims = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(dims, list | tuple)
    axes = graph.axes(source)
    result = tensors_in(out)[0]
    graph.derive(result, source, [dim % source.ndim for dim in dims])
    graph.put(result, [axes[dim] for dim in dims])


def transpose(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow t() and transpose(a, b)."""
    source = args[0]
    assert isinstance(source, Tensor)
    axes = graph.axes(source)
    first, second = (args[1], args[2]) if len(args) > 2 else (0, source.ndim - 1)
    assert isinstance(first, int) and isinstance(second, int)
    axes[first], axes[second] = axes[second], axes[first]
    order = list(range(source.ndim))
    order[first], order[second] = order[second], order[first]
    result = tensors_in(out)[0]
    graph.derive(result, source, order)
    graph.put(result, axes)


def expand(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow expand: new leading axes and axes of size 1 hold copies, not channels."""
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    axes = graph.axes(source)
    lead = result.ndim - source.ndim
    none: Axes = [None] * lead
    graph.put(
        result,
        none + [nodes if source.shape[i] == result.shape[lead + i] else None for i, nodes in enumerate(axes)],
    )


def as_strided(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow as_strided if it only changes the memory format; otherwise freeze the source."""
    source, size, result = args[0], args[1], tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(size, list | tuple)
    axes = graph.axes(source)
    same = len(axes) == len(size) and all(
        nodes is None or len(nodes) == length for nodes, length in zip(axes, size, strict=True)
    )
    if not same or source.shape != result.shape:
        graph.freeze_all(source, STRIDED)
        axes = [None] * result.ndim
    graph.put(result, axes)


RESHAPE_RULES: Mapping[str, OperatorRule] = {
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias", "unflatten"), reshape
    ),
    "permute": permute,
    **dict.fromkeys(("t", "t_", "transpose", "transpose_"), transpose),
    "expand": expand,
    **dict.fromkeys(("as_strided", "as_strided_"), as_strided),
}
