"""Follow channels through operators that slice, split, pad and join axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from autoprune.structure.reasons import CROPPED, PADDED, PICKED, UNEQUAL, UNMADE
from autoprune.trace.biases import join_biases
from autoprune.trace.coupling import balance
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.observations import Axes
from autoprune.trace.rules.rule import Args, Kwargs, OperatorRule, dim_of
from autoprune.trace.union_find import AxisNodes, Nodes
from autoprune.trace.values import tensors_in


def concatenate(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow cat: channels side by side along one axis, the same channels along the others."""
    parts, result = tensors_in(args[0]), tensors_in(out)[0]
    dim = dim_of(args, kwargs, 1, 0) % result.ndim
    parts = [part for part in parts if part.ndim == result.ndim]
    axes: Axes = [None] * result.ndim
    for axis in range(result.ndim):
        columns = [graph.axes(part)[axis] for part in parts]
        if axis == dim:
            axes[axis] = _side_by_side(graph, columns, [part.shape[dim] for part in parts])
        else:
            axes[axis] = columns[0]
            for nodes in columns[1:]:
                axes[axis] = graph.unify(axes[axis], nodes, UNMADE)
    graph.put(result, axes)
    if result.ndim == 1:
        join_biases(graph, result, parts)


def _side_by_side(graph: ChannelGraph, columns: Sequence[AxisNodes], sizes: Sequence[int]) -> AxisNodes:
    if all(nodes is None for nodes in columns):
        return None
    parts = []
    for nodes, size in zip(columns, sizes, strict=True):
        if nodes is None:
            nodes = graph.union_find.new(size)
            graph.freeze(nodes, UNMADE)
        parts.append(nodes)
    return np.concatenate(parts)


def stack(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow stack: a new axis without channels, the same channels along the others."""
    parts, result = tensors_in(args[0]), tensors_in(out)[0]
    dim = dim_of(args, kwargs, 1, 0) % result.ndim
    axes = graph.axes(parts[0])
    for part in parts[1:]:
        axes = [graph.unify(a, b, UNMADE) for a, b in zip(axes, graph.axes(part), strict=True)]
    graph.put(result, [*axes[:dim], None, *axes[dim:]])


def split(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow split and chunk: equal parts stay equally wide, and a shorter last part stays as much shorter."""
    source, pieces = args[0], tensors_in(out)
    assert isinstance(source, Tensor)
    dim = dim_of(args, kwargs, 2, 0) % source.ndim
    axes = graph.axes(source)
    whole = axes[dim]
    graph.note_length(whole)
    sizes = [piece.shape[dim] for piece in pieces]
    parts = [None] * len(pieces) if whole is None else np.split(whole, np.cumsum(sizes)[:-1])
    known = [part for part in parts if part is not None]
    if isinstance(args[1], int):
        _chunked(graph, known)
    else:
        _parts(graph, known)
    for piece, part in zip(pieces, parts, strict=True):
        graph.note_length(part)
        graph.derive(piece, source, range(source.ndim))
        graph.put(piece, [*axes[:dim], part, *axes[dim + 1 :]])


def _chunked(graph: ChannelGraph, parts: Sequence[Nodes]) -> None:
    """Balance parts of one length; the positions that a shorter last part lacks are frozen."""
    shortest = min(map(len, parts), default=0)
    for part in parts:
        graph.freeze(part[shortest:], UNEQUAL)
    if shortest:
        balance(graph, np.stack([part[:shortest] for part in parts]))


def _parts(graph: ChannelGraph, parts: Sequence[Nodes]) -> None:
    """Balance the equal ones of parts with a length each. Unequal parts shrink if their length is a number of the
    module.
    """
    packed = isinstance(graph.modules.get(graph.module), nn.MultiheadAttention)  # cut to one that splits anew
    if len({len(part) for part in parts}) > 1 and not packed:
        for part in parts:
            if not _is_kept(graph, len(part)):
                graph.freeze(part, UNEQUAL)
    equal = [part for part in parts if len(part) == len(parts[0])]
    if equal:
        balance(graph, np.stack(equal))


def _is_kept(graph: ChannelGraph, size: int) -> bool:
    """Tell whether a size is a number of the running module, or the product of two."""
    numbers = graph.sizes()
    return size in numbers or any(size % number == 0 and size // number in numbers for number in numbers)


def slice_view(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow slice(dim, start, end, step): a view of some positions."""
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    dim = dim_of(args, kwargs, 1, 0) % source.ndim
    start, end = _index(args, 2, 0), _index(args, 3, source.shape[dim])
    step = _index(args, 4, 1)
    axes = graph.axes(source)
    if axes[dim] is not None:
        axes[dim] = axes[dim][start:end:step]  # type: ignore[index]
        if result.shape[dim] < source.shape[dim]:
            graph.note_length(axes[dim])
    graph.derive(result, source, range(source.ndim))
    graph.put(result, axes)


def select(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow select(dim, index): freeze the axis if the rest of the model reads the picked position.

    If the position is counted from the end, those before it stay free.
    """
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    dim, position = dim_of(args, kwargs, 1, 0) % source.ndim, _index(args, 2, 0)
    axes = graph.axes(source)
    nodes = axes[dim]
    nodes = nodes[position:] if nodes is not None and position < 0 else nodes
    graph.picked.append((nodes, graph.reason(PICKED), graph.flow.number(result)))
    graph.derive(result, source, [axis for axis in range(source.ndim) if axis != dim])
    graph.put(result, [*axes[:dim], *axes[dim + 1 :]])


def unbind(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze the axis, like `select` for every position."""
    source = args[0]
    assert isinstance(source, Tensor)
    dim = dim_of(args, kwargs, 1, 0) % source.ndim
    axes = graph.axes(source)
    graph.freeze(axes[dim], PICKED)
    for piece in tensors_in(out):
        graph.derive(piece, source, [axis for axis in range(source.ndim) if axis != dim])
        graph.put(piece, [*axes[:dim], *axes[dim + 1 :]])


def pad(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow constant_pad_nd: padded channels are constant, so they are frozen."""
    source, widths = args[0], args[1]
    result = tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(widths, list | tuple)
    axes = graph.axes(source)
    for number in range(len(widths) // 2):
        axis, before, after = source.ndim - 1 - number, int(widths[2 * number]), int(widths[2 * number + 1])
        nodes = axes[axis]
        if nodes is not None and (before or after):
            if min(before, after) < 0:
                graph.freeze(nodes, CROPPED)
            axes[axis] = _padded(graph, nodes, max(before, 0), max(after, 0))
    if any(nodes is not None and len(nodes) != size for nodes, size in zip(axes, result.shape, strict=True)):
        axes = [None] * result.ndim
    graph.put(result, axes)


def _padded(graph: ChannelGraph, nodes: AxisNodes, before: int, after: int) -> AxisNodes:
    assert nodes is not None
    left, right = graph.union_find.new(before), graph.union_find.new(after)
    graph.freeze(left, PADDED)
    graph.freeze(right, PADDED)
    return np.concatenate([left, nodes, right])


def _index(args: Args, position: int, default: int) -> int:
    value = args[position] if len(args) > position else None
    return value if isinstance(value, int) else default


SLICE_RULES: Mapping[str, OperatorRule] = {
    "cat": concatenate,
    "stack": stack,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk"), split),
    "slice": slice_view,
    "select": select,
    "unbind": unbind,
    "constant_pad_nd": pad,
}
