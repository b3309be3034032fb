"""Follow channels through normalisations."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from autoprune.structure.reasons import SEVERAL_AXES, UNMADE
from autoprune.trace.modules import balance
from autoprune.trace.tracer import OperatorRule, Tracer
from autoprune.trace.union_find import AxisNodes
from autoprune.trace.values import tensors_in

Args = tuple[object, ...]
Kwargs = Mapping[str, object]


def batch_norm(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Couple scale, shift, mean and variance to axis 1.

    Statistics of the values themselves (instance norm, or a standardised weight) run over the other axes.
    """
    source = args[0]
    assert isinstance(source, Tensor)
    axes = tracer.axes(source)
    for tensor, role in zip(args[1:5], ("scale", "shift", "statistic", "statistic"), strict=True):
        if isinstance(tensor, Tensor):
            axes[1] = tracer.unify(axes[1], tracer.axes(tensor)[0], UNMADE)
            tracer.role(tensor, 0, role)
    if any(value is True for value in args[3:6]):  # `training`, whatever the overload
        for axis, nodes in enumerate(axes):
            if axis != 1:
                tracer.note_reduced(nodes)
    result = tensors_in(out)[0]
    tracer.derive(result, source)
    tracer.put(result, axes)


def layer_norm(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Note statistics over the last axis, taken over the channels that stay; several axes are frozen."""
    _over_last(tracer, args, args[2:4], out)


def rms_norm(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Do the same as `layer_norm`, without mean and shift."""
    _over_last(tracer, args, args[2:3], out)


def _over_last(tracer: Tracer, args: Args, affine: Args, out: object) -> None:
    source, shape = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(shape, list | tuple)
    axes = tracer.axes(source)
    if len(shape) > 1:
        for nodes in axes[-len(shape) :]:
            tracer.freeze(nodes, SEVERAL_AXES)
        tracer.freeze_all(affine, SEVERAL_AXES)
    else:
        axes[-1] = _scaled(tracer, axes[-1], affine)
        if affine[0] is None:
            tracer.note_number("normalized_shape", axes[-1], source.shape[-1])
    tracer.put(tensors_in(out)[0], axes)


def group_norm(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Note statistics over groups of channels, and keep the groups equally wide."""
    source, groups = args[0], args[6]
    assert isinstance(source, Tensor) and isinstance(groups, int)
    axes = tracer.axes(source)
    axes[1] = _scaled(tracer, axes[1], args[1:3])
    nodes = axes[1]
    if nodes is not None and args[1] is None:
        tracer.note_number("num_channels", nodes, len(nodes))
    if nodes is not None and groups == len(nodes):
        tracer.note_number("num_groups", nodes, groups)
    elif nodes is not None:
        balance(tracer, nodes.reshape(groups, -1))
    tracer.put(tensors_in(out)[0], axes)


def _scaled(tracer: Tracer, nodes: AxisNodes, affine: Args) -> AxisNodes:
    """Couple channels to their scale and shift, and note that they are normalised together."""
    for tensor, role in zip(affine, ("scale", "shift"), strict=False):
        if isinstance(tensor, Tensor):
            nodes = tracer.unify(nodes, tracer.axes(tensor)[0], UNMADE)
            tracer.role(tensor, 0, role)
    tracer.note_reduced(nodes)
    return nodes


def weight_norm(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow a weight given as direction v and length g along one axis (Salimans and Kingma, 2016)."""
    direction, length = args[0], args[1]
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    assert isinstance(direction, Tensor) and isinstance(length, Tensor) and isinstance(dim, int)
    axes = tracer.axes(direction)
    axes[dim] = tracer.unify(axes[dim], tracer.axes(length)[dim], UNMADE)
    tracer.role(length, dim, "scale")
    result = tensors_in(out)[0]
    tracer.derive(result, direction, range(direction.ndim))
    tracer.put(result, axes)
    # A direction of length zero is undefined; the mask has to handle that.
    tracer.note_reduced(axes[dim])


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
