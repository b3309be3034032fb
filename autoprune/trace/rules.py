"""Map each operator to the rule that follows channels through it.

An operator without a rule freezes the channels of all its arguments: an unknown operator costs coverage, never
correctness.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from autoprune.structure.reasons import ACCUMULATED, ALONG_PLACES, PLACES, RANKED, UNMADE
from autoprune.trace.norms import NORM_RULES
from autoprune.trace.observations import Axes
from autoprune.trace.products import PRODUCT_RULES, with_copies
from autoprune.trace.rearrange import REARRANGE_RULES
from autoprune.trace.scales import note_scale
from autoprune.trace.shapes import SHAPE_RULES
from autoprune.trace.tracer import OperatorRule, Tracer
from autoprune.trace.union_find import AxisNodes
from autoprune.trace.values import tensors_in
from autoprune.trace.written import WRITTEN_RULES

Args = tuple[object, ...]
Kwargs = Mapping[str, object]


def pointwise(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow broadcasting element by element: axes of equal size hold the same channels."""
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
            # An expanded axis holds one value and follows the length of the others.
            varying = [(tensor, place) for tensor, place in present if tensor.stride(place)]
            if present and result.shape[axis] > 1:
                axes[axis] = _join(tracer, varying or present)
        tracer.put(result, axes)
        # A weight computed from one parameter (weight normalisation, say) still represents it in a product.
        weights = [tensor for tensor in operands if tensor.shape == result.shape and tracer.origin(tensor)]
        if len(weights) == 1 and result is not weights[0]:
            tracer.derive(result, weights[0], range(result.ndim))
    _elementwise_roles(tracer, operands)


def division(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow a division; a weight in the divisor is zero where it is silenced, which the mask has to handle."""
    pointwise(tracer, args, kwargs, out)
    divisor = args[-1]
    note_scale(tracer, args[0], divisor)
    if isinstance(divisor, Tensor) and tracer.origin(divisor) is not None:
        for nodes in tracer.axes(divisor):
            tracer.note_reduced(nodes)


def multiplication(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow a multiplication; a plain number may be a scale that the module computes from a width."""
    pointwise(tracer, args, kwargs, out)
    note_scale(tracer, args[0], args[1])


def addition(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow an addition; a vector that is added to the output of a weight is its bias."""
    pointwise(tracer, args, kwargs, out)
    for vector, other in (args[:2], args[1::-1]):
        if isinstance(vector, Tensor) and isinstance(other, Tensor) and vector.ndim <= other.ndim:
            places = [axis - vector.ndim for axis, size in enumerate(vector.shape) if size > 1]
            if len(places) == 1 and vector.shape[places[0]] == other.shape[places[0]]:
                tracer.biases.add(vector, tracer.axes(other)[places[0]])


def _join(tracer: Tracer, present: list[tuple[Tensor, int]]) -> AxisNodes:
    first, position = present[0]
    nodes = tracer.axes(first)[position]
    absent = [tensor for tensor, axis in present if tracer.axes(tensor)[axis] is None]
    # A tensor with channels on another axis has positions on this one.
    along = any(nodes is not None for tensor in absent for nodes in tracer.axes(tensor))
    for tensor, axis in present[1:]:
        nodes = tracer.unify(nodes, tracer.axes(tensor)[axis], ALONG_PLACES if along else UNMADE)
    # Positions stay positions if a table of the model is added to them: position embeddings, a mask for each window.
    labelled = [tracer.origin(tensor) for tensor, axis in present if tracer.axes(tensor)[axis] is not None]
    return None if len(labelled) < len(present) and all(labelled) else nodes


def _elementwise_roles(tracer: Tracer, operands: list[Tensor]) -> None:
    for tensor in operands:
        for axis in range(tensor.ndim):
            if tensor.ndim == len(tracer.owned.get(tracer.origin(tensor) or "", [])):
                tracer.role(tensor, axis, "other")


def spatial(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow pooling, interpolation and the like: axes 0 and 1 are kept, the others are space."""
    source = args[0]
    assert isinstance(source, Tensor)
    axes = tracer.axes(source)
    kept = source.ndim - _spatial_rank(source)
    for nodes in axes[kept:]:
        tracer.freeze(nodes, PLACES)
    for result in tensors_in(out):
        tracer.put(result, [*axes[:kept], *([None] * (result.ndim - kept))])


def grid_sample(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow grid_sampler: values of [N, C, H, W] at the positions [N, H', W', 2], which a head may compute."""
    source, places = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(places, Tensor)
    axes, where = tracer.axes(source), tracer.axes(places)
    for nodes in (*axes[2:], where[-1]):
        tracer.freeze(nodes, PLACES)
    tracer.put(tensors_in(out)[0], [with_copies(tracer, axes[0], where[0]), axes[1], *where[1:-1]])


def _spatial_rank(tensor: Tensor) -> int:
    return max(tensor.ndim - 2, 1)


def reduction(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Note a mean, sum, amax ... over axes; a cut model takes it over the channels that stay."""
    source = args[0]
    assert isinstance(source, Tensor)
    reduced = reduced_axes(args, kwargs, source.ndim)
    axes = tracer.axes(source)
    for axis in reduced:
        tracer.note_reduced(axes[axis])
    _put_reduced(tracer, out, axes, reduced)


def power_norm(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Note the norm of a vector: a reduction whose order comes before its axes."""
    reduction(tracer, args[:1] + args[2:], kwargs, out)


def index_reduction(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze the axes of argmax, any ...: the result depends on every channel."""
    source = args[0]
    assert isinstance(source, Tensor)
    axes = tracer.axes(source)
    reduced = reduced_axes(args, kwargs, source.ndim)
    for axis in reduced:
        tracer.freeze(axes[axis], RANKED)
    _put_reduced(tracer, out, axes, reduced)


def _put_reduced(tracer: Tracer, out: object, axes: Axes, reduced: set[int]) -> None:
    """Set the axes of a result that keeps the reduced axes with size 1, or lacks them."""
    for result in tensors_in(out):
        if result.ndim == len(axes):
            tracer.put(result, [None if axis in reduced else nodes for axis, nodes in enumerate(axes)])
        elif result.ndim == len(axes) - len(reduced):
            tracer.put(result, [nodes for axis, nodes in enumerate(axes) if axis not in reduced])


def reduced_axes(args: Args, kwargs: Kwargs, rank: int) -> set[int]:
    """Return the axes that a reduction names.

    The last list among its arguments names them, otherwise its last whole number (min, max, argmax), otherwise all axes
    are reduced.

    Args:
        args: Positional arguments of the operator.
        kwargs: Its keyword arguments.
        rank: Number of axes of its first argument.

    Returns:
        The axes, counted from the front.
    """
    named = kwargs.get("dim")
    lists = [value for value in args[1:] if isinstance(value, list | tuple)]
    if named is None and lists:
        named = lists[-1]
    if named is None and len(args) > 1 and type(args[1]) is int:
        named = args[1]
    if type(named) is int:
        named = [named]
    return {int(dim) % rank for dim in named} if isinstance(named, list | tuple) and named else set(range(rank))


def softmax(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Note a softmax over channels; a cut model takes it over the channels that stay."""
    source, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else -1)
    assert isinstance(source, Tensor) and isinstance(dim, int)
    axes = tracer.axes(source)
    tracer.note_reduced(axes[dim])
    for result in tensors_in(out):
        tracer.put(result, axes)


def cumulative(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze an axis that is accumulated: every position depends on those before it."""
    source, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else -1)
    assert isinstance(source, Tensor) and isinstance(dim, int)
    axes = tracer.axes(source)
    tracer.freeze(axes[dim], ACCUMULATED)
    for result in tensors_in(out):
        tracer.put(result, axes)


def embedding(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow rows of a table, whose columns are the channels."""
    weight = args[0]
    assert isinstance(weight, Tensor)
    tracer.role(weight, 1, "out")
    tracer.embedding_rows.append(tracer.axes(weight)[0])
    result = tensors_in(out)[0]
    tracer.put(result, [*([None] * (result.ndim - 1)), tracer.axes(weight)[1]])


def shaped_like(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow zeros_like and its kind: the result has the lengths of the source, not its values."""
    assert isinstance(args[0], Tensor)
    tracer.put(tensors_in(out)[0], tracer.axes(args[0]))


def no_channels(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Make new values without channels."""
    del tracer, args, kwargs, out


_POINTWISE = """
abs add add_ addcdiv addcmul alias atan bitwise_and bitwise_not bitwise_or celu ceil clamp clamp_ clamp_max clamp_min
clone copy_ cos detach div div_ dropout elu elu_ eq erf exp expm1 fill_ floor floor_divide ge gelu gelu_ gt
hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ isnan le leaky_relu leaky_relu_ lift_fresh log log1p
log_sigmoid_forward logical_and logical_not logical_or lt masked_fill masked_fill_ maximum minimum mish mish_ mul mul_
native_dropout ne neg pow reciprocal relu relu6 relu_ remainder round rsqrt rsub scalar_tensor sigmoid
sigmoid_ sign silu silu_ sin softplus sqrt square sub sub_ tanh tanh_ threshold threshold_ trunc where
_prelu_kernel _to_copy hardshrink softshrink acos asin atan2 cosh deg2rad erfinv fmod frac isfinite isinf
lerp log10 log2 logit nan_to_num nextafter sinc sinh special_expit sgn tan xlogy logical_xor
logaddexp exp_ pow_ sin_ cos_ logical_not_ where_ zero_ rsqrt_ sqrt_ neg_ clamp_min_ clamp_max_ exp2 bernoulli
"""
#: Operators that make new values in the shape of their argument.
_LIKE = "full_like ones_like zeros_like empty_like rand_like randn_like"
_SPATIAL = """
max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d adaptive_max_pool2d adaptive_max_pool3d
_adaptive_avg_pool2d _adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d
upsample_linear1d upsample_trilinear3d upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa
max_pool1d avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d _upsample_nearest_exact1d _upsample_nearest_exact3d
reflection_pad3d
reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d replication_pad3d
"""
#: Reductions that a mask takes over the channels that stay; of `POWERS` the order comes before the axes.
REDUCTIONS = ("mean", "sum", "amax", "amin", "var", "std", "var_mean", "std_mean", "logsumexp", "max", "min", "prod")
POWERS = ("norm", "linalg_vector_norm")
_COUNTED = "argmax argmin any all"
_ALONG = "_softmax _safe_softmax _log_softmax"
_ORDERED = "cumsum cumprod"
_NOTHING = """
arange rand randn randint item _local_scalar_dense
sym_size is_same_size linspace eye tril_indices triu_indices randperm scalar_tensor
"""

RULES: Mapping[str, OperatorRule] = {
    **dict.fromkeys(_POINTWISE.split(), pointwise),
    **dict.fromkeys(("div", "div_", "reciprocal", "rsqrt"), division),
    **dict.fromkeys(("mul", "mul_"), multiplication),
    **dict.fromkeys(("add", "add_"), addition),
    **dict.fromkeys(_LIKE.split(), shaped_like),
    **dict.fromkeys(_SPATIAL.split(), spatial),
    **dict.fromkeys(("grid_sampler_2d", "grid_sampler_3d", "cudnn_grid_sampler"), grid_sample),
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(_COUNTED.split(), index_reduction),
    **dict.fromkeys(_ALONG.split(), softmax),
    **dict.fromkeys(_ORDERED.split(), cumulative),
    **dict.fromkeys(_NOTHING.split(), no_channels),
    **dict.fromkeys(POWERS, power_norm),
    **dict.fromkeys(("embedding", "_embedding_bag"), embedding),
    **NORM_RULES,
    **SHAPE_RULES,
    **REARRANGE_RULES,
    **PRODUCT_RULES,
    **WRITTEN_RULES,
}
