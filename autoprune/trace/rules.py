"""What each operator does to channels: operator name -> rule.

An operator without a rule freezes whatever it touches, so that an unknown operator costs coverage, never
correctness.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from autoprune.trace.labels import AxisNodes
from autoprune.trace.products import PRODUCT_RULES
from autoprune.trace.shapes import SHAPE_RULES
from autoprune.trace.tracer import Axes, Rule, Tracer, tensors_in

Args = tuple[object, ...]
Kwargs = Mapping[str, object]


def pointwise(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Broadcasting element by element: axes of equal size hold the same channels."""
    operands = [tensor for tensor in tensors_in((args, list(kwargs.values()))) if tensor.ndim > 0]
    for result in tensors_in(out):
        axes: Axes = [None] * result.ndim
        for axis in range(result.ndim):
            present = [
                (tensor, axis - result.ndim + tensor.ndim)
                for tensor in operands
                if axis - result.ndim + tensor.ndim >= 0
                and tensor.shape[axis - result.ndim + tensor.ndim] == result.shape[axis]
            ]
            if present and result.shape[axis] > 1:
                axes[axis] = _join(tracer, present)
        tracer.put(result, axes)
    _elementwise_roles(tracer, operands)


def _join(tracer: Tracer, present: list[tuple[Tensor, int]]) -> AxisNodes:
    first, position = present[0]
    nodes = tracer.axes(first)[position]
    for tensor, axis in present[1:]:
        nodes = tracer.unify(nodes, tracer.axes(tensor)[axis], "is combined with values that no layer makes")
    return nodes


def _elementwise_roles(tracer: Tracer, operands: list[Tensor]) -> None:
    for tensor in operands:
        for axis in range(tensor.ndim):
            if tensor.ndim == len(tracer.owned.get(tracer.origin(tensor) or "", [])):
                tracer.role(tensor, axis, "other")


def spatial(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Pooling, padding by interpolation and the like: axes 0 and 1 stay, the rest is space."""
    source = args[0]
    assert isinstance(source, Tensor)
    axes = tracer.axes(source)
    kept = source.ndim - _spatial_rank(source)
    for nodes in axes[kept:]:
        tracer.freeze(nodes, "is an axis that is resampled")
    for result in tensors_in(out):
        tracer.put(result, [*axes[:kept], *([None] * (result.ndim - kept))])


def _spatial_rank(tensor: Tensor) -> int:
    return max(tensor.ndim - 2, 1)


def reduction(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """mean, sum, amax ... over axes: a channel axis that is reduced can not shrink without other numbers."""
    source = args[0]
    assert isinstance(source, Tensor)
    dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if isinstance(dims, int):
        dims = [dims]
    reduced = (
        {dim % source.ndim for dim in dims} if isinstance(dims, list | tuple) and dims else set(range(source.ndim))
    )
    axes = tracer.axes(source)
    for axis in reduced:
        tracer.freeze(axes[axis], "is reduced over its channels")
    for result in tensors_in(out):
        if result.ndim == source.ndim:
            tracer.put(result, [None if axis in reduced else nodes for axis, nodes in enumerate(axes)])
        else:
            tracer.put(result, [nodes for axis, nodes in enumerate(axes) if axis not in reduced])


def along(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """softmax, cumsum ...: positions along one axis depend on each other, so that axis can not shrink."""
    source, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else -1)
    assert isinstance(source, Tensor) and isinstance(dim, int)
    axes = tracer.axes(source)
    tracer.freeze(axes[dim], "is normalised across its channels")
    for result in tensors_in(out):
        tracer.put(result, axes)


def batch_norm(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Statistics per channel: scale, shift, mean and variance go with axis 1."""
    source = args[0]
    assert isinstance(source, Tensor)
    axes = tracer.axes(source)
    for tensor, role in zip(args[1:5], ("scale", "shift", "statistic", "statistic"), strict=True):
        if isinstance(tensor, Tensor):
            axes[1] = tracer.unify(axes[1], tracer.axes(tensor)[0], "is normalised per channel of the model's input")
            tracer.role(tensor, 0, role)
    result = tensors_in(out)[0]
    tracer.put(result, axes)


def layer_norm(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Statistics over the channels themselves: removing one changes the others' numbers."""
    source, shape = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(shape, list | tuple)
    axes = tracer.axes(source)
    for nodes in axes[-len(shape) :]:
        tracer.freeze(nodes, "is normalised across its channels")
    tracer.freeze_all(args[2:4], "is normalised across its channels")
    tracer.put(tensors_in(out)[0], axes)


def group_norm(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Statistics over groups of channels: as for layer_norm."""
    source = args[0]
    assert isinstance(source, Tensor)
    axes = tracer.axes(source)
    tracer.freeze(axes[1], "is normalised across its channels")
    tracer.freeze_all(args[1:3], "is normalised across its channels")
    tracer.put(tensors_in(out)[0], axes)


def embedding(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Rows of a table: its columns are the channels."""
    weight = args[0]
    assert isinstance(weight, Tensor)
    tracer.role(weight, 1, "out")
    result = tensors_in(out)[0]
    tracer.put(result, [*([None] * (result.ndim - 1)), tracer.axes(weight)[1]])


def nothing(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Makes fresh values that no channel runs along."""
    del tracer, args, kwargs, out


_POINTWISE = """
abs add add_ addcdiv addcmul alias atan bitwise_and bitwise_not bitwise_or celu ceil clamp clamp_ clamp_max clamp_min
clone copy_ cos detach div div_ dropout elu elu_ eq erf exp expm1 fill_ floor floor_divide full_like ge gelu gelu_ gt
hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ isnan le leaky_relu leaky_relu_ lift_fresh log log1p
log_sigmoid_forward logical_and logical_not logical_or lt masked_fill masked_fill_ maximum minimum mish mish_ mul mul_
native_dropout ne neg ones_like pow reciprocal relu relu6 relu_ remainder round rsqrt rsub scalar_tensor sigmoid
sigmoid_ sign silu silu_ sin softplus sqrt square sub sub_ tanh tanh_ threshold threshold_ trunc where zeros_like
_prelu_kernel _to_copy empty_like hardshrink softshrink
"""
_SPATIAL = """
max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d adaptive_max_pool2d adaptive_max_pool3d
_adaptive_avg_pool2d _adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d
upsample_linear1d upsample_trilinear3d upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa
reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d replication_pad3d
"""
_REDUCTION = "mean sum amax amin max min var std var_mean prod norm linalg_vector_norm argmax argmin any all logsumexp"
_ALONG = "_softmax _log_softmax softmax log_softmax cumsum"
_NOTHING = """
arange empty zeros ones full rand randn randint new_zeros new_ones new_full new_empty item _local_scalar_dense
sym_size is_same_size linspace eye tril_indices scalar_tensor
"""

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_POINTWISE.split(), pointwise),
    **dict.fromkeys(_SPATIAL.split(), spatial),
    **dict.fromkeys(_REDUCTION.split(), reduction),
    **dict.fromkeys(_ALONG.split(), along),
    **dict.fromkeys(_NOTHING.split(), nothing),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
        batch_norm,
    ),
    "native_layer_norm": layer_norm,
    "native_group_norm": group_norm,
    "embedding": embedding,
    **SHAPE_RULES,
    **PRODUCT_RULES,
}
