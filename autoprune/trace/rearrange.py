"""Follow channels through operators that repeat, reorder, pick or interleave positions of an axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autoprune.structure.reasons import PICKED, PLACES, RANKED, ROLLED, TRIANGULAR, ReasonKind
from autoprune.trace.observations import Axes
from autoprune.trace.tracer import OperatorRule, Tracer
from autoprune.trace.values import tensors_in

Args = tuple[object, ...]
Kwargs = Mapping[str, object]
#: Nodes of an axis.
Table = npt.NDArray[np.int64]


def glu(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Couple the two halves of an axis: the second gates the first."""
    source, dim = _source_and_dim(args, kwargs, -1)
    axes = tracer.axes(source)
    nodes = axes[dim]
    if nodes is not None:
        first, second = np.split(nodes, 2)
        tracer.union_find.unify(first, second)
        axes[dim] = first
    tracer.put(tensors_in(out)[0], axes)


def _tied_rows(tracer: Tracer, nodes: Table, rows: int) -> Table:
    """Couple the positions of each row of a flattened grid, and return one node of each row."""
    table = nodes.reshape(rows, -1)
    tracer.union_find.unify_rows(table.T)
    return table[:, 0].copy()


def pixel_shuffle(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow [..., C * r * r, H, W] to [..., C, H * r, W * r]: positions of a channel are removed together."""
    _interleave(tracer, args, out, lambda nodes, channels: _tied_rows(tracer, nodes, channels))


def pixel_unshuffle(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow [..., C, H * r, W * r] to [..., C * r * r, H, W]: a channel lies at r * r positions."""
    _interleave(tracer, args, out, lambda nodes, channels: np.repeat(nodes, channels // len(nodes)))


def _interleave(tracer: Tracer, args: Args, out: object, change: Callable[[Table, int], Table]) -> None:
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    axes = tracer.axes(source)
    for nodes in axes[-2:]:
        tracer.freeze(nodes, PLACES)
    channels = axes[-3]
    axes[-3:] = [None if channels is None else change(channels, result.shape[-3]), None, None]
    tracer.put(result, axes)


def channel_shuffle(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow [N, g * k, ...] read as g rows and written column by column; every row loses the same positions."""
    source, groups = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(groups, int)
    axes = tracer.axes(source)
    nodes = axes[1]
    if nodes is not None:
        table = nodes.reshape(groups, -1)
        tracer.union_find.unify_rows(table)
        axes[1] = table.T.reshape(-1)
    tracer.put(tensors_in(out)[0], axes)


def im2col(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow [N, C, H, W] to [N, C * window, L]."""
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    nodes = tracer.axes(source)[-3]
    made = None if nodes is None else np.repeat(nodes, result.shape[-2] // len(nodes))
    tracer.put(result, [*([None] * (result.ndim - 2)), made, None])


def col2im(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow [N, C * window, L] to [N, C, H, W]."""
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    nodes = tracer.axes(source)[-2]
    made = None if nodes is None else _tied_rows(tracer, nodes, result.shape[-3])
    tracer.put(result, [*([None] * (result.ndim - 3)), made, None, None])


def repeat(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow repeat(times per axis): copies of the whole axis, one after the other."""
    source, times, result = args[0], args[1], tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(times, list | tuple)
    lead = result.ndim - source.ndim
    axes: Axes = [None] * lead
    for nodes, count in zip(tracer.axes(source), times[lead:], strict=True):
        axes.append(None if nodes is None else np.tile(nodes, int(count)))
    tracer.put(result, axes)


def flip(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow flip(dims): the same positions in reverse order."""
    source, dims = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(dims, list | tuple)
    axes = tracer.axes(source)
    for dim in dims:
        nodes = axes[int(dim)]
        axes[int(dim)] = None if nodes is None else nodes[::-1].copy()
    tracer.put(tensors_in(out)[0], axes)


def roll(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze rolled channels: positions move by a fixed count."""
    source = args[0]
    assert isinstance(source, Tensor)
    dims = args[2] if len(args) > 2 else list(range(source.ndim))
    assert isinstance(dims, list | tuple)
    axes = tracer.axes(source)
    for dim in dims:
        tracer.freeze(axes[int(dim)], ROLLED)
    tracer.put(tensors_in(out)[0], axes)


def index(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow x[i, :, j]: freeze the axes that are picked from, and keep the others.

    If positions are counted from the end of an axis, those before the first picked one stay free.
    """
    source, indices, result = args[0], args[1], tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(indices, list | tuple)
    items = dict(_items(indices))
    picked = list(items)
    axes = tracer.axes(source)
    for axis, item in items.items():
        nodes = axes[axis]
        from_end = nodes is not None and item.dtype == torch.int64 and item.numel() and int(item.max()) < 0
        tracer.freeze(nodes[int(item.min()) :] if nodes is not None and from_end else nodes, PICKED)
    kept: Axes = [nodes for axis, nodes in enumerate(axes) if axis not in picked]
    made: Axes = [None] * (result.ndim - len(kept))
    first = first_made(picked)
    if len(made) == len(picked):
        own = [axis for axis in range(source.ndim) if axis not in picked]
        tracer.derive(result, source, [*own[:first], *picked, *own[first:]])
    tracer.put(result, [*kept[:first], *made, *kept[first:]])


def first_made(picked: Sequence[int]) -> int:
    """Return the place of picked axes in the result: torch moves separated picks to the front.

    Args:
        picked: Axes that are picked from, sorted.

    Returns:
        The first axis that replaces them.
    """
    adjacent = bool(picked) and picked[-1] - picked[0] == len(picked) - 1
    return picked[0] if adjacent else 0


def picked_axes(indices: Sequence[object]) -> list[int]:
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


def index_select(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze an axis whose positions are picked or windowed."""
    _along_one(tracer, args, kwargs, out, PICKED)


def sort(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze an axis whose positions are picked by their values."""
    _along_one(tracer, args, kwargs, out, RANKED)


def _along_one(tracer: Tracer, args: Args, kwargs: Kwargs, out: object, kind: ReasonKind) -> None:
    source, dim = _source_and_dim(args, kwargs, -1)
    axes = tracer.axes(source)
    tracer.freeze(axes[dim], kind)
    for result in tensors_in(out):
        after = [None if axis == dim else nodes for axis, nodes in enumerate(axes)]
        after += [None] * (result.ndim - len(after))
        for nodes, size in zip(after, result.shape, strict=False):
            if nodes is not None and len(nodes) != size:
                tracer.freeze_all(source, kind)
                after = [None] * result.ndim
                break
        tracer.put(result, after[: result.ndim])


def pack_sequence(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow _pack_padded_sequence, [time, batch, C] to [entries, C], and its inverse; channels stay the last axis."""
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    axes = tracer.axes(source)
    kept = source.ndim - (2 if result.ndim < source.ndim else 1)
    for nodes in axes[: source.ndim - kept]:
        tracer.freeze(nodes, PLACES)
    tracer.put(result, [*([None] * (result.ndim - kept)), *axes[source.ndim - kept :]])


def triangular(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze both axes of triu and tril: the number of a position decides whether it stays."""
    source = args[0]
    assert isinstance(source, Tensor)
    axes = tracer.axes(source)
    for nodes in axes[-2:]:
        tracer.freeze(nodes, TRIANGULAR)
    tracer.put(tensors_in(out)[0], axes)


def new_tensor(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow zeros, ones and full: an axis follows a number of the running module if it is as long as that.

    So the first state of a recurrent layer gets as wide as its hidden units, and an empty bias gets as many heads.
    """
    numbers = tracer.numbers()
    for result in tensors_in(out):
        axes: Axes = [tracer.union_find.new(size) if size in numbers else None for size in result.shape]
        for nodes, size in zip(axes, result.shape, strict=True):
            if nodes is not None:
                tracer.note_number(numbers[size], nodes, size)
        tracer.put(result, axes)


def _source_and_dim(args: Args, kwargs: Kwargs, default: int) -> tuple[Tensor, int]:
    source, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else default)
    assert isinstance(source, Tensor)
    return source, (dim if isinstance(dim, int) else default) % max(source.ndim, 1)


REARRANGE_RULES: Mapping[str, OperatorRule] = {
    "glu": glu,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "channel_shuffle": channel_shuffle,
    "native_channel_shuffle": channel_shuffle,
    "im2col": im2col,
    "col2im": col2im,
    "repeat": repeat,
    "flip": flip,
    "roll": roll,
    "_pack_padded_sequence": pack_sequence,
    "_pad_packed_sequence": pack_sequence,
    "index": index,
    "_unsafe_index": index,
    **dict.fromkeys(("gather", "index_select", "unfold"), index_select),
    **dict.fromkeys(("sort", "argsort"), sort),
    **dict.fromkeys(("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"), new_tensor),
    **dict.fromkeys(("triu", "tril"), triangular),
}
