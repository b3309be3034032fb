"""Follow channels through operators that work element by element."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from autoprune.structure.reasons import ALONG_PLACES, UNMADE
from autoprune.trace.biases import add_bias
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.observations import Axes
from autoprune.trace.rules.rule import Args, Kwargs, OperatorRule
from autoprune.trace.scales import note_scale
from autoprune.trace.union_find import AxisNodes
from autoprune.trace.values import tensors_in


def pointwise(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
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
                axes[axis] = _join(graph, varying or present)
        graph.put(result, axes)
        # A weight computed from one parameter (weight normalisation, say) still represents it in a product.
        weights = [tensor for tensor in operands if tensor.shape == result.shape and graph.origin(tensor)]
        if len(weights) == 1 and result is not weights[0]:
            graph.derive(result, weights[0], range(result.ndim))
    _elementwise_roles(graph, operands)


def division(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow a division; a weight in the divisor is zero where it is silenced, which the mask has to handle."""
    pointwise(graph, args, kwargs, out)
    divisor = args[-1]
    note_scale(graph, args[0], divisor)
    if isinstance(divisor, Tensor) and graph.origin(divisor) is not None:
        for nodes in graph.axes(divisor):
            graph.note_reduced(nodes)


def multiplication(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow a multiplication; a plain number may be a scale that the module computes from a width."""
    pointwise(graph, args, kwargs, out)
    note_scale(graph, args[0], args[1])


def addition(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow an addition; a vector that is added to the output of a weight is its bias."""
    pointwise(graph, args, kwargs, out)
    for vector, other in (args[:2], args[1::-1]):
        if isinstance(vector, Tensor) and isinstance(other, Tensor) and vector.ndim <= other.ndim:
            places = [axis - vector.ndim for axis, size in enumerate(vector.shape) if size > 1]
            if len(places) == 1 and vector.shape[places[0]] == other.shape[places[0]]:
                add_bias(graph, vector, graph.axes(other)[places[0]])


def _join(graph: ChannelGraph, present: list[tuple[Tensor, int]]) -> AxisNodes:
    first, position = present[0]
    nodes = graph.axes(first)[position]
    absent = [tensor for tensor, axis in present if graph.axes(tensor)[axis] is None]
    # A tensor with channels on another axis has positions on this one.
    along = any(nodes is not None for tensor in absent for nodes in graph.axes(tensor))
    for tensor, axis in present[1:]:
        nodes = graph.unify(nodes, graph.axes(tensor)[axis], ALONG_PLACES if along else UNMADE)
    # Positions stay positions if a table of the model is added to them: position embeddings, a mask for each window.
    labelled = [graph.origin(tensor) for tensor, axis in present if graph.axes(tensor)[axis] is not None]
    return None if len(labelled) < len(present) and all(labelled) else nodes


def _elementwise_roles(graph: ChannelGraph, operands: list[Tensor]) -> None:
    for tensor in operands:
        for axis in range(tensor.ndim):
            if tensor.ndim == len(graph.owned.get(graph.origin(tensor) or "", [])):
                graph.role(tensor, axis, "other")


_POINTWISE = """
abs addcdiv addcmul alias atan bitwise_and bitwise_not bitwise_or celu ceil clamp clamp_ clamp_max clamp_min clone
copy_ cos detach dropout elu elu_ eq erf exp expm1 fill_ floor floor_divide ge gelu gelu_ gt hardsigmoid hardsigmoid_
hardswish hardswish_ hardtanh hardtanh_ isnan le leaky_relu leaky_relu_ lift_fresh log log1p log_sigmoid_forward
logical_and logical_not logical_or lt masked_fill masked_fill_ maximum minimum mish mish_ native_dropout ne neg pow
relu relu6 relu_ remainder round rsub sigmoid sigmoid_ sign silu silu_ sin softplus sqrt square sub sub_ tanh tanh_
threshold threshold_ trunc where _prelu_kernel _to_copy hardshrink softshrink acos asin atan2 cosh deg2rad erfinv fmod
frac isfinite isinf lerp log10 log2 logit nan_to_num nextafter sinc sinh special_expit sgn tan xlogy logical_xor
logaddexp exp_ pow_ sin_ cos_ logical_not_ where_ zero_ rsqrt_ sqrt_ neg_ clamp_min_ clamp_max_ exp2 bernoulli
"""

ELEMENTWISE_RULES: Mapping[str, OperatorRule] = {
    **dict.fromkeys(_POINTWISE.split(), pointwise),
    **dict.fromkeys(("div", "div_", "reciprocal", "rsqrt"), division),
    **dict.fromkeys(("mul", "mul_"), multiplication),
    **dict.fromkeys(("add", "add_"), addition),
}
