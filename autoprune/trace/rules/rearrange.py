"""Follow channels through operators that repeat positions of an axis or change their order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from autoprune.structure.reasons import PLACES, ROLLED, TRIANGULAR
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.observations import Axes
from autoprune.trace.rules.rule import Args, Kwargs, OperatorRule, source_and_dim
from autoprune.trace.values import tensors_in


def glu(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Couple the two halves of an axis: the second gates the first."""
    source, dim = source_and_dim(args, kwargs, -1)
    axes = graph.axes(source)
    nodes = axes[dim]
    if nodes is not None:
        first, second = np.split(nodes, 2)
        graph.union_find.unify(first, second)
        axes[dim] = first
    graph.put(tensors_in(out)[0], axes)


def channel_shuffle(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow [N, g * k, ...] read as g rows and written column by column; every row loses the same positions."""
    source, groups = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(groups, int)
    axes = graph.axes(source)
    nodes = axes[1]
    if nodes is not None:
        table = nodes.reshape(groups, -1)
        graph.union_find.unify_rows(table)
        axes[1] = table.T.reshape(-1)
    graph.put(tensors_in(out)[0], axes)


def repeat(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow repeat(times per axis): copies of the whole axis, one after the other."""
    source, times, result = args[0], args[1], tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(times, list | tuple)
    lead = result.ndim - source.ndim
    axes: Axes = [None] * lead
    for nodes, count in zip(graph.axes(source), times[lead:], strict=True):
        axes.append(None if nodes is None else np.tile(nodes, int(count)))
    graph.put(result, axes)


def flip(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow flip(dims): the same positions in reverse order."""
    source, dims = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(dims, list | tuple)
    axes = graph.axes(source)
    for dim in dims:
        nodes = axes[int(dim)]
        axes[int(dim)] = None if nodes is None else nodes[::-1].copy()
    graph.put(tensors_in(out)[0], axes)


def roll(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze rolled channels: positions move by a fixed count."""
    source = args[0]
    assert isinstance(source, Tensor)
    dims = args[2] if len(args) > 2 else list(range(source.ndim))
    assert isinstance(dims, list | tuple)
    axes = graph.axes(source)
    for dim in dims:
        graph.freeze(axes[int(dim)], ROLLED)
    graph.put(tensors_in(out)[0], axes)


def pack_sequence(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow _pack_padded_sequence, [time, batch, C] to [entries, C], and its inverse; channels stay the last axis."""
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    axes = graph.axes(source)
    kept = source.ndim - (2 if result.ndim < source.ndim else 1)
    for nodes in axes[: source.ndim - kept]:
        graph.freeze(nodes, PLACES)
    graph.put(result, [*([None] * (result.ndim - kept)), *axes[source.ndim - kept :]])


def triangular(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze both axes of triu and tril: the number of a position decides whether it stays."""
    source = args[0]
    assert isinstance(source, Tensor)
    axes = graph.axes(source)
    for nodes in axes[-2:]:
        graph.freeze(nodes, TRIANGULAR)
    graph.put(tensors_in(out)[0], axes)


REARRANGE_RULES: Mapping[str, OperatorRule] = {
    "glu": glu,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
    "repeat": repeat,
    "flip": flip,
    "roll": roll,
    **dict.fromkeys(("_pack_padded_sequence", "_pad_packed_sequence"), pack_sequence),
    **dict.fromkeys(("triu", "tril"), triangular),
}
