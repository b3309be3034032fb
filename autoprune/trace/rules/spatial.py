"""Follow channels through operators over space: pooling, interpolation, windows and pixel shuffles."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

from autoprune.structure.reasons import PLACES
from autoprune.trace.coupling import with_copies
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.rules.rule import Args, Kwargs, OperatorRule
from autoprune.trace.values import tensors_in

#: Nodes of an axis.
Table = npt.NDArray[np.int64]


def spatial(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow pooling, interpolation and the like: axes 0 and 1 are kept, the others are space."""
    source = args[0]
    assert isinstance(source, Tensor)
    axes = graph.axes(source)
    kept = source.ndim - _spatial_rank(source)
    for nodes in axes[kept:]:
        graph.freeze(nodes, PLACES)
    for result in tensors_in(out):
        graph.put(result, [*axes[:kept], *([None] * (result.ndim - kept))])


def grid_sample(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow grid_sampler: values of [N, C, H, W] at the positions [N, H', W', 2], which a head may compute."""
    source, places = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(places, Tensor)
    axes, where = graph.axes(source), graph.axes(places)
    for nodes in (*axes[2:], where[-1]):
        graph.freeze(nodes, PLACES)
    graph.put(tensors_in(out)[0], [with_copies(graph, axes[0], where[0]), axes[1], *where[1:-1]])


def _spatial_rank(tensor: Tensor) -> int:
    return max(tensor.ndim - 2, 1)


def pixel_shuffle(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow [..., C * r * r, H, W] to [..., C, H * r, W * r]: positions of a channel are removed together."""
    _interleave(graph, args, out, lambda nodes, channels: _tied_rows(graph, nodes, channels))


def pixel_unshuffle(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow [..., C, H * r, W * r] to [..., C * r * r, H, W]: a channel lies at r * r positions."""
    _interleave(graph, args, out, lambda nodes, channels: np.repeat(nodes, channels // len(nodes)))


def _interleave(graph: ChannelGraph, args: Args, out: object, change: Callable[[Table, int], Table]) -> None:
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    axes = graph.axes(source)
    for nodes in axes[-2:]:
        graph.freeze(nodes, PLACES)
    channels = axes[-3]
    axes[-3:] = [None if channels is None else change(channels, result.shape[-3]), None, None]
    graph.put(result, axes)


def _tied_rows(graph: ChannelGraph, nodes: Table, rows: int) -> Table:
    """Couple the positions of each row of a flattened grid, and return one node of each row."""
    table = nodes.reshape(rows, -1)
    graph.union_find.unify_rows(table.T)
    return table[:, 0].copy()


def im2col(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow [N, C, H, W] to [N, C * window, L]."""
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    nodes = graph.axes(source)[-3]
    made = None if nodes is None else np.repeat(nodes, result.shape[-2] // len(nodes))
    graph.put(result, [*([None] * (result.ndim - 2)), made, None])


def col2im(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow [N, C * window, L] to [N, C, H, W]."""
    source, result = args[0], tensors_in(out)[0]
    assert isinstance(source, Tensor)
    nodes = graph.axes(source)[-2]
    made = None if nodes is None else _tied_rows(graph, nodes, result.shape[-3])
    graph.put(result, [*([None] * (result.ndim - 3)), made, None, None])


_SPATIAL = """
max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d adaptive_max_pool2d adaptive_max_pool3d
_adaptive_avg_pool2d _adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d
upsample_linear1d upsample_trilinear3d upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa
max_pool1d avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d _upsample_nearest_exact1d _upsample_nearest_exact3d
reflection_pad3d
reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d replication_pad3d
"""

SPATIAL_RULES: Mapping[str, OperatorRule] = {
    **dict.fromkeys(_SPATIAL.split(), spatial),
    **dict.fromkeys(("grid_sampler_2d", "grid_sampler_3d", "cudnn_grid_sampler"), grid_sample),
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "im2col": im2col,
    "col2im": col2im,
}
