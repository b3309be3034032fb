"""Follow channels through convolutions, and count their multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from autoprune.structure.reasons import GROUPED, PLACES, UNMADE
from autoprune.trace.biases import add_bias
from autoprune.trace.coupling import balance
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.observations import Axes
from autoprune.trace.rules.rule import Args, Kwargs, OperatorRule
from autoprune.trace.union_find import AxisNodes
from autoprune.trace.values import tensors_in


def convolution(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow weight [out, in / groups, ...] (transposed: [in, out / groups, ...]) over input [N, in, ...]."""
    source, weight, bias = args[0], args[1], args[2]
    transposed, groups = bool(args[6]), int(str(args[8]))
    result = tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(weight, Tensor)
    out_axis, in_axis = (1, 0) if transposed else (0, 1)
    read = graph.axes(source)[1]
    w_axes = graph.axes(weight)
    if groups == 1:
        graph.unify(w_axes[in_axis], read, UNMADE)
        made = w_axes[out_axis]
    elif transposed:
        made = _grouped_transposed(graph, read, w_axes[0], w_axes[1], groups)
    else:
        made = _grouped(graph, read, w_axes[0], w_axes[1], groups)
    depthwise = transposed and w_axes[1] is None and groups > 1
    graph.role(weight, 0 if depthwise else out_axis, "out")
    graph.role(weight, in_axis, "in")
    if isinstance(bias, Tensor):
        made = graph.unify(made, graph.axes(bias)[0], UNMADE)
        add_bias(graph, bias, made)
    places = _places(graph, args, result)
    counted = source if transposed else result
    if graph.is_whole(weight) and all(nodes is None for nodes in places):
        graph.product(weight, _positions(counted))
    else:  # a computed weight, or channels along the axes of samples or positions
        graph.contract([*places, *w_axes], [len(counted), *counted.shape[2:], *weight.shape])
    graph.put(result, [places[0], made, *places[1:]])


def _places(graph: ChannelGraph, args: Args, result: Tensor) -> Axes:
    """Return the nodes along samples and positions; over channels along a position axis a convolution slides as they
    stay.
    """
    source, weight, stride = args[0], args[1], args[3]
    assert isinstance(source, Tensor) and isinstance(weight, Tensor) and isinstance(stride, list | tuple)
    found = [graph.axes(source)[0]]
    for axis in range(2, result.ndim):
        nodes = graph.axes(source)[axis]
        if stride[axis - 2] != 1 or source.shape[axis] != result.shape[axis] or args[6]:
            graph.freeze(nodes, PLACES)
            nodes = None
        elif weight.shape[axis] > 1:
            graph.note_reduced(nodes)
        found.append(nodes)
    return found


def _grouped(graph: ChannelGraph, read: AxisNodes, out_nodes: AxisNodes, in_nodes: AxisNodes, groups: int) -> AxisNodes:
    """Let every group of a grouped convolution lose the same positions, so that all stay equally wide.

    With one input channel a group (depthwise), an input channel is coupled to the outputs made from it.
    """
    if out_nodes is None or read is None:
        graph.freeze(out_nodes, UNMADE)
        graph.freeze(read, GROUPED)
        return out_nodes
    if len(read) == groups:
        graph.union_find.unify(out_nodes, np.repeat(read, len(out_nodes) // groups))
        graph.note_number("groups", read, groups)
        return out_nodes
    for nodes in (read, out_nodes):
        graph.union_find.unify_rows(nodes.reshape(groups, -1))
    graph.unify(in_nodes, read.reshape(groups, -1)[0], UNMADE)
    if len(out_nodes) == groups:
        graph.freeze(out_nodes, GROUPED)
    return out_nodes


def _grouped_transposed(
    graph: ChannelGraph, read: AxisNodes, in_nodes: AxisNodes, out_nodes: AxisNodes, groups: int
) -> AxisNodes:
    """Follow weight [in, out / groups]: every group makes the same positions from an equal share of the inputs."""
    assert in_nodes is not None
    read = graph.unify(in_nodes, read, UNMADE)
    assert read is not None
    if out_nodes is None:
        if len(read) != groups:
            graph.freeze(read, GROUPED)
            return np.repeat(read.reshape(groups, -1)[:, 0], 1)
        graph.note_number("groups", read, groups)
        return read
    balance(graph, read.reshape(groups, -1))
    if len(read) == groups:
        graph.freeze(read, GROUPED)
    return np.tile(out_nodes, groups)


def _positions(tensor: Tensor) -> int:
    """Return batch times space of [N, C, ...]."""
    return tensor.numel() // max(tensor.shape[1], 1)


CONVOLUTION_RULES: Mapping[str, OperatorRule] = {"convolution": convolution}
