"""Follow channels through normalisations."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from autoprune.structure.reasons import SEVERAL_AXES, UNMADE
from autoprune.trace.coupling import balance
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.rules.rule import Args, Kwargs, OperatorRule
from autoprune.trace.union_find import AxisNodes
from autoprune.trace.values import tensors_in


def batch_norm(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Couple scale, shift, mean and variance to axis 1.

    Statistics of the values themselves (instance norm, or a standardised weight) run over the other axes.
    """
    source = args[0]
    assert isinstance(source, Tensor)
    axes = graph.axes(source)
    for tensor, role in zip(args[1:5], ("scale", "shift", "statistic", "statistic"), strict=True):
        if isinstance(tensor, Tensor):
            axes[1] = graph.unify(axes[1], graph.axes(tensor)[0], UNMADE)
            graph.role(tensor, 0, role)
    if any(value is True for value in args[3:6]):  # `training`, whatever the overload
        for axis, nodes in enumerate(axes):
            if axis != 1:
                graph.note_reduced(nodes)
    result = tensors_in(out)[0]
    graph.derive(result, source)
    graph.put(result, axes)


def layer_norm(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Note statistics over the last axis, taken over the channels that stay; several axes are frozen."""
    _over_last(graph, args, args[2:4], out)


def rms_norm(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Do the same as `layer_norm`, without mean and shift."""
    _over_last(graph, args, args[2:3], out)


def _over_last(graph: ChannelGraph, args: Args, affine: Args, out: object) -> None:
    source, shape = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(shape, list | tuple)
    axes = graph.axes(source)
    if len(shape) > 1:
        for nodes in axes[-len(shape) :]:
            graph.freeze(nodes, SEVERAL_AXES)
        graph.freeze_all(affine, SEVERAL_AXES)
    else:
        axes[-1] = _scaled(graph, axes[-1], affine)
        if affine[0] is None:
            graph.note_number("normalized_shape", axes[-1], source.shape[-1])
    graph.put(tensors_in(out)[0], axes)


def group_norm(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Note statistics over groups of channels, and keep the groups equally wide."""
    source, groups = args[0], args[6]
    assert isinstance(source, Tensor) and isinstance(groups, int)
    axes = graph.axes(source)
    axes[1] = _scaled(graph, axes[1], args[1:3])
    nodes = axes[1]
    if nodes is not None and args[1] is None:
        graph.note_number("num_channels", nodes, len(nodes))
    if nodes is not None and groups == len(nodes):
        graph.note_number("num_groups", nodes, groups)
    elif nodes is not None:
        balance(graph, nodes.reshape(groups, -1))
    graph.put(tensors_in(out)[0], axes)


def _scaled(graph: ChannelGraph, nodes: AxisNodes, affine: Args) -> AxisNodes:
    """Couple channels to their scale and shift, and note that they are normalised together."""
    for tensor, role in zip(affine, ("scale", "shift"), strict=False):
        if isinstance(tensor, Tensor):
            nodes = graph.unify(nodes, graph.axes(tensor)[0], UNMADE)
            graph.role(tensor, 0, role)
    graph.note_reduced(nodes)
    return nodes


def weight_norm(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow a weight given as direction v and length g along one axis (Salimans and Kingma, 2016)."""
    direction, length = args[0], args[1]
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    assert isinstance(direction, Tensor) and isinstance(length, Tensor) and isinstance(dim, int)
    axes = graph.axes(direction)
    axes[dim] = graph.unify(axes[dim], graph.axes(length)[dim], UNMADE)
    graph.role(length, dim, "scale")
    result = tensors_in(out)[0]
    graph.derive(result, direction, range(direction.ndim))
    graph.put(result, axes)
    # A direction of length zero is undefined; the mask has to handle that.
    graph.note_reduced(axes[dim])


NORM_RULES: Mapping[str, OperatorRule] = {
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
        batch_norm,
    ),
    "native_layer_norm": layer_norm,
    "_fused_rms_norm": rms_norm,
    "native_group_norm": group_norm,
    "_weight_norm_interface": weight_norm,
}
