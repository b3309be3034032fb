"""Follow channels through operators that reshape, move, slice and join axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from autoprune.structure.reasons import COUPLED, CROPPED, EMPTY, LARGE, PADDED, PICKED, STRIDED, UNEQUAL, UNMADE
from autoprune.trace.modules import balance, tie
from autoprune.trace.observations import Axes, Grid
from autoprune.trace.tracer import OperatorRule, Tracer
from autoprune.trace.union_find import AxisNodes, Nodes
from autoprune.trace.values import tensors_in

Args = tuple[object, ...]
#: Largest grid of two channel axes that is followed when they are flattened into one.
MAX_GRID = 1 << 20
Kwargs = Mapping[str, object]


def reshape(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow view, reshape, flatten, unflatten, squeeze and unsqueeze: axes are matched by their products."""
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    tracer.derive(result, source)
    axes = tracer.axes(source)
    if source.numel() == 0:
        tracer.freeze_all(source, EMPTY)
        return
    new: Axes = [None] * result.ndim
    for before, after in _segments(source.shape, result.shape):
        nodes = _flatten(tracer, [(axes[axis], source.shape[axis]) for axis in before])
        for axis, part in zip(after, _unflatten(tracer, nodes, [result.shape[axis] for axis in after]), strict=True):
            new[axis] = part
            tracer.note_length(part)
            tracer.note_reshape(part)
            if len(before) == len(after) == 1:
                tie(tracer, part)
    tracer.put(result, new)


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


def _flatten(tracer: Tracer, parts: Sequence[tuple[AxisNodes, int]]) -> AxisNodes:
    nodes, size = parts[0]
    for other, count in parts[1:]:
        if nodes is not None and other is not None:
            if len(nodes) * len(other) > MAX_GRID:
                for side in (nodes, other):
                    tracer.freeze(side, LARGE)
                return None
            if tracer.union_find.without_rows(other, nodes):
                # A shuffle reads rows and writes columns: the number of rows is fixed.
                nodes = np.repeat(nodes, count)
            else:
                tracer.grids.append(Grid(tracer.module, nodes, other))
                nodes = tracer.union_find.product(nodes, other)
        elif nodes is not None:
            nodes = np.repeat(nodes, count)
        elif other is not None:
            nodes = np.tile(other, size)
        size *= count
    return nodes


def _unflatten(tracer: Tracer, nodes: AxisNodes, sizes: Sequence[int]) -> Axes:
    if nodes is None or len(sizes) == 1:
        return [nodes, *([None] * (len(sizes) - 1))] if nodes is not None else [None] * len(sizes)
    rows, columns = sizes[0], len(nodes) // sizes[0]
    grid = tracer.union_find.roots(nodes).reshape(rows, columns)
    if (grid == grid[:, :1]).all():
        return [nodes.reshape(rows, columns)[:, 0], *([None] * (len(sizes) - 1))]
    if (grid == grid[:1]).all():
        return [None, *_unflatten(tracer, nodes[:columns], sizes[1:])]
    apart = tie(tracer, nodes, split=True)
    row_nodes, column_nodes = tracer.union_find.split(nodes, rows, columns)
    if apart is not None and tracer.union_find.without_rows(row_nodes, column_nodes):
        # Columns, equally many in every row, make up for sets of the input's channels.
        tracer.freeze(row_nodes, COUPLED)
        balance(tracer, np.stack([nodes, apart]))
    tracer.grids.append(Grid(tracer.module, row_nodes, column_nodes))
    return [row_nodes, *_unflatten(tracer, column_nodes, sizes[1:])]


def permute(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow permute(dims)."""
    source, dims = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(dims, list | tuple)
    axes = tracer.axes(source)
    result = tensors_in(out)[0]
    tracer.derive(result, source, [dim % source.ndim for dim in dims])
    tracer.put(result, [axes[dim] for dim in dims])


def transpose(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow t() and transpose(a, b)."""
    source = args[0]
    assert isinstance(source, Tensor)
    axes = tracer.axes(source)
    first, second = (args[1], args[2]) if len(args) > 2 else (0, source.ndim - 1)
    assert isinstance(first, int) and isinstance(second, int)
    axes[first], axes[second] = axes[second], axes[first]
    order = list(range(source.ndim))
    order[first], order[second] = order[second], order[first]
    result = tensors_in(out)[0]
    tracer.derive(result, source, order)
    tracer.put(result, axes)


def expand(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow expand: new leading axes and axes of size 1 hold copies, not channels."""
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    axes = tracer.axes(source)
    lead = result.ndim - source.ndim
    none: Axes = [None] * lead
    tracer.put(
        result,
        none + [nodes if source.shape[i] == result.shape[lead + i] else None for i, nodes in enumerate(axes)],
    )


def concatenate(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow cat: channels side by side along one axis, the same channels along the others."""
    parts, result = tensors_in(args[0]), tensors_in(out)[0]
    dim = _dim(args, kwargs, 1, 0) % result.ndim
    parts = [part for part in parts if part.ndim == result.ndim]
    axes: Axes = [None] * result.ndim
    for axis in range(result.ndim):
        columns = [tracer.axes(part)[axis] for part in parts]
        if axis == dim:
            axes[axis] = _side_by_side(tracer, columns, [part.shape[dim] for part in parts])
        else:
            axes[axis] = columns[0]
            for nodes in columns[1:]:
                axes[axis] = tracer.unify(axes[axis], nodes, UNMADE)
    tracer.put(result, axes)
    if result.ndim == 1:
        tracer.biases.join(result, parts)


def _side_by_side(tracer: Tracer, columns: Sequence[AxisNodes], sizes: Sequence[int]) -> AxisNodes:
    if all(nodes is None for nodes in columns):
        return None
    parts = []
    for nodes, size in zip(columns, sizes, strict=True):
        if nodes is None:
            nodes = tracer.union_find.new(size)
            tracer.freeze(nodes, UNMADE)
        parts.append(nodes)
    return np.concatenate(parts)


def stack(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow stack: a new axis without channels, the same channels along the others."""
    parts, result = tensors_in(args[0]), tensors_in(out)[0]
    dim = _dim(args, kwargs, 1, 0) % result.ndim
    axes = tracer.axes(parts[0])
    for part in parts[1:]:
        axes = [tracer.unify(a, b, UNMADE) for a, b in zip(axes, tracer.axes(part), strict=True)]
    tracer.put(result, [*axes[:dim], None, *axes[dim:]])


def split(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow split and chunk: equal parts stay equally wide, and a shorter last part stays as much shorter."""
    source, pieces = args[0], tensors_in(out)
    assert isinstance(source, Tensor)
    dim = _dim(args, kwargs, 2, 0) % source.ndim
    axes = tracer.axes(source)
    whole = axes[dim]
    tracer.note_length(whole)
    sizes = [piece.shape[dim] for piece in pieces]
    parts = [None] * len(pieces) if whole is None else np.split(whole, np.cumsum(sizes)[:-1])
    known = [part for part in parts if part is not None]
    if isinstance(args[1], int):
        _chunked(tracer, known)
    else:
        _parts(tracer, known)
    for piece, part in zip(pieces, parts, strict=True):
        tracer.note_length(part)
        tracer.derive(piece, source, range(source.ndim))
        tracer.put(piece, [*axes[:dim], part, *axes[dim + 1 :]])


def _chunked(tracer: Tracer, parts: Sequence[Nodes]) -> None:
    """Balance parts of one length; the positions that a shorter last part lacks are frozen."""
    shortest = min(map(len, parts), default=0)
    for part in parts:
        tracer.freeze(part[shortest:], UNEQUAL)
    if shortest:
        balance(tracer, np.stack([part[:shortest] for part in parts]))


def _parts(tracer: Tracer, parts: Sequence[Nodes]) -> None:
    """Balance the equal ones of parts with a length each. Unequal parts shrink if their length is a number of the
    module.
    """
    packed = isinstance(tracer.modules.get(tracer.module), nn.MultiheadAttention)  # cut to one that splits anew
    if len({len(part) for part in parts}) > 1 and not packed:
        for part in parts:
            if not _is_kept(tracer, len(part)):
                tracer.freeze(part, UNEQUAL)
    equal = [part for part in parts if len(part) == len(parts[0])]
    if equal:
        balance(tracer, np.stack(equal))


def _is_kept(tracer: Tracer, size: int) -> bool:
    """Tell whether a size is a number of the running module, or the product of two."""
    numbers = tracer.sizes()
    return size in numbers or any(size % number == 0 and size // number in numbers for number in numbers)


def slice_view(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow slice(dim, start, end, step): a view of some positions."""
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    dim = _dim(args, kwargs, 1, 0) % source.ndim
    start, end = _index(args, 2, 0), _index(args, 3, source.shape[dim])
    step = _index(args, 4, 1)
    axes = tracer.axes(source)
    if axes[dim] is not None:
        axes[dim] = axes[dim][start:end:step]  # type: ignore[index]
        if result.shape[dim] < source.shape[dim]:
            tracer.note_length(axes[dim])
    tracer.derive(result, source, range(source.ndim))
    tracer.put(result, axes)


def select(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow select(dim, index): freeze the axis if the rest of the model reads the picked position.

    If the position is counted from the end, those before it stay free.
    """
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    dim, position = _dim(args, kwargs, 1, 0) % source.ndim, _index(args, 2, 0)
    axes = tracer.axes(source)
    nodes = axes[dim]
    nodes = nodes[position:] if nodes is not None and position < 0 else nodes
    tracer.picked.append((nodes, tracer.reason(PICKED), tracer.flow.number(result)))
    tracer.derive(result, source, [axis for axis in range(source.ndim) if axis != dim])
    tracer.put(result, [*axes[:dim], *axes[dim + 1 :]])


def unbind(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze the axis, like `select` for every position."""
    source = args[0]
    assert isinstance(source, Tensor)
    dim = _dim(args, kwargs, 1, 0) % source.ndim
    axes = tracer.axes(source)
    tracer.freeze(axes[dim], PICKED)
    for piece in tensors_in(out):
        tracer.derive(piece, source, [axis for axis in range(source.ndim) if axis != dim])
        tracer.put(piece, [*axes[:dim], *axes[dim + 1 :]])


def pad(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow constant_pad_nd: padded channels are constant, so they are frozen."""
    source, widths = args[0], args[1]
    result = tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(widths, list | tuple)
    axes = tracer.axes(source)
    for number in range(len(widths) // 2):
        axis, before, after = source.ndim - 1 - number, int(widths[2 * number]), int(widths[2 * number + 1])
        nodes = axes[axis]
        if nodes is not None and (before or after):
            if min(before, after) < 0:
                tracer.freeze(nodes, CROPPED)
            axes[axis] = _padded(tracer, nodes, max(before, 0), max(after, 0))
    if any(nodes is not None and len(nodes) != size for nodes, size in zip(axes, result.shape, strict=True)):
        axes = [None] * result.ndim
    tracer.put(result, axes)


def as_strided(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow as_strided if it only changes the memory format; otherwise freeze the source."""
    source, size, result = args[0], args[1], tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(size, list | tuple)
    axes = tracer.axes(source)
    same = len(axes) == len(size) and all(
        nodes is None or len(nodes) == length for nodes, length in zip(axes, size, strict=True)
    )
    if not same or source.shape != result.shape:
        tracer.freeze_all(source, STRIDED)
        axes = [None] * result.ndim
    tracer.put(result, axes)


def _padded(tracer: Tracer, nodes: AxisNodes, before: int, after: int) -> AxisNodes:
    assert nodes is not None
    left, right = tracer.union_find.new(before), tracer.union_find.new(after)
    tracer.freeze(left, PADDED)
    tracer.freeze(right, PADDED)
    return np.concatenate([left, nodes, right])


def _dim(args: Args, kwargs: Kwargs, position: int, default: int) -> int:
    value = kwargs.get("dim", args[position] if len(args) > position else default)
    assert isinstance(value, int)
    return value


def _index(args: Args, position: int, default: int) -> int:
    value = args[position] if len(args) > position else None
    return value if isinstance(value, int) else default


SHAPE_RULES: Mapping[str, OperatorRule] = {
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias", "unflatten"), reshape
    ),
    "permute": permute,
    "t": transpose,
    "transpose": transpose,
    "transpose_": transpose,
    "t_": transpose,
    "expand": expand,
    "cat": concatenate,
    "stack": stack,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk"), split),
    "slice": slice_view,
    "select": select,
    "unbind": unbind,
    "constant_pad_nd": pad,
    "as_strided": as_strided,
    "as_strided_": as_strided,
}
