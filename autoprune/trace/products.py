"""Rules for convolutions, matrix products and attention: what is made, what is read, what it costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from autoprune.trace.labels import AxisNodes
from autoprune.trace.tracer import Rule, Tracer, tensors_in

Args = tuple[object, ...]
Kwargs = Mapping[str, object]
_INPUT = "reads values that no layer makes"


def convolution(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Weight [out, in / groups, ...] (transposed: [in, out / groups, ...]) over input [N, in, ...]."""
    source, weight, bias = args[0], args[1], args[2]
    transposed, groups = bool(args[6]), int(str(args[8]))
    result = tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(weight, Tensor)
    out_axis, in_axis = (1, 0) if transposed else (0, 1)
    read = tracer.axes(source)[-result.ndim + 1] if source.ndim == result.ndim else None
    w_axes = tracer.axes(weight)
    if groups == 1:
        tracer.unify(w_axes[in_axis], read, _INPUT)
        made = w_axes[out_axis]
    elif transposed:
        made = _grouped_transposed(tracer, (w_axes[0], w_axes[1], read), result.shape[1])
    else:
        made = _grouped(tracer, read, w_axes[0], w_axes[1], groups)
    tracer.role(weight, out_axis, "out")
    tracer.role(weight, in_axis, "in")
    if isinstance(bias, Tensor):
        made = tracer.unify(made, tracer.axes(bias)[0], _INPUT)
        tracer.role(bias, 0, "shift")
    tracer.product(weight, _positions(source if transposed else result))
    tracer.put(result, [None, made, *([None] * (result.ndim - 2))])


def _grouped(tracer: Tracer, read: AxisNodes, out_nodes: AxisNodes, in_nodes: AxisNodes, groups: int) -> AxisNodes:
    """Every group of a grouped convolution loses the same positions, so that all stay equally wide.

    With one input channel a group (depthwise), an input channel goes with the outputs made from it.
    """
    if out_nodes is None or read is None:
        tracer.freeze(out_nodes, _INPUT)
        tracer.freeze(read, "is read by a grouped convolution with one output")
        return out_nodes
    if len(read) == groups:
        tracer.labels.unify(out_nodes, np.repeat(read, len(out_nodes) // groups))
        tracer.follow("groups", read, groups)
        return out_nodes
    for nodes in (read, out_nodes):
        lanes = nodes.reshape(groups, -1)
        for lane in lanes[1:]:
            tracer.labels.unify(lanes[0], lane)
    tracer.unify(in_nodes, read.reshape(groups, -1)[0], _INPUT)
    if len(out_nodes) == groups:
        tracer.freeze(out_nodes, "is the only output of its group of a convolution")
    return out_nodes


def _grouped_transposed(tracer: Tracer, coupled: tuple[AxisNodes, ...], channels: int) -> AxisNodes:
    """Grouped transposed convolutions stay as they are: weight [in, out / groups] has no axis for all outputs."""
    made = tracer.labels.new(channels) if channels > 1 else None
    for nodes in (*coupled, made):
        tracer.freeze(nodes, "belongs to a grouped transposed convolution")
    return made


def matrix_product(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """mm: [R, K] @ [K, C]."""
    left, right = args[0], args[1]
    result = tensors_in(out)[0]
    assert isinstance(left, Tensor) and isinstance(right, Tensor)
    left_axes, right_axes = tracer.axes(left), tracer.axes(right)
    tracer.unify(left_axes[1], right_axes[0], _INPUT)
    for weight, contracted, positions in ((right, 0, left.shape[0]), (left, 1, right.shape[1])):
        name = tracer.origin(weight)
        if name is not None:
            tracer.product(weight, positions)
            _weight_roles(tracer, weight, contracted)
            break
    else:
        tracer.other_multiply_adds += left.numel() * right.shape[1]
    tracer.put(result, [left_axes[0], right_axes[1]])


def _weight_roles(tracer: Tracer, weight: Tensor, contracted: int) -> None:
    """Roles of a 2-D weight that may be transposed."""
    order = tracer.order_of(weight)
    if order is not None and len(order) == 2:
        for position, axis in enumerate(order):
            tracer.role(weight, axis, "in" if position == contracted else "out")


def addmm(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Bias + mm."""
    matrix_product(tracer, args[1:], kwargs, out)
    bias, result = args[0], tensors_in(out)[0]
    assert isinstance(bias, Tensor)
    axes = tracer.axes(result)
    for axis, nodes in enumerate(reversed(tracer.axes(bias))):
        if bias.shape[-1 - axis] == result.shape[-1 - axis]:
            axes[-1 - axis] = tracer.unify(axes[-1 - axis], nodes, _INPUT)
    if bias.ndim == 1:
        tracer.role(bias, 0, "shift")
    tracer.put(result, axes)


def batched_product(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """bmm: [B, R, K] @ [B, K, C]."""
    left, right = args[0], args[1]
    result = tensors_in(out)[0]
    assert isinstance(left, Tensor) and isinstance(right, Tensor)
    left_axes, right_axes = tracer.axes(left), tracer.axes(right)
    tracer.unify(left_axes[2], right_axes[1], _INPUT)
    batch = tracer.unify(left_axes[0], right_axes[0], _INPUT)
    multiply_adds = left.numel() * right.shape[2]
    for weight in (right, left):
        if tracer.origin(weight) is not None:
            tracer.product(weight, multiply_adds // weight.numel())
            break
    else:
        tracer.other_multiply_adds += multiply_adds
    tracer.put(result, [batch, left_axes[1], right_axes[2]])


def attention(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Scaled dot products [B, H, S, D]: heads go together in query, key and value."""
    query, key, value = args[0], args[1], args[2]
    assert isinstance(query, Tensor) and isinstance(key, Tensor) and isinstance(value, Tensor)
    q, k, v = tracer.axes(query), tracer.axes(key), tracer.axes(value)
    heads = tracer.unify(tracer.unify(q[1], k[1], _INPUT), v[1], _INPUT)
    tracer.unify(q[-1], k[-1], _INPUT)
    tracer.freeze(q[-1], "sets the scale of the attention logits")
    result = tensors_in(out)[0]
    # Query times key, and their product times value.
    tracer.other_multiply_adds += query.numel() // query.shape[-1] * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    tracer.put(result, [None, heads, *([None] * (result.ndim - 3)), v[-1]])


def _positions(tensor: Tensor) -> int:
    """Batch times space of [N, C, ...]."""
    return tensor.numel() // max(tensor.shape[1], 1)


def linear(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """X [..., K] with weight [C, K] where the dispatcher does not decompose it."""
    source, weight = args[0], args[1]
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    result = tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(weight, Tensor)
    axes, w_axes = tracer.axes(source), tracer.axes(weight)
    tracer.unify(w_axes[1], axes[-1], _INPUT)
    tracer.role(weight, 0, "out")
    tracer.role(weight, 1, "in")
    made = w_axes[0]
    if isinstance(bias, Tensor):
        made = tracer.unify(made, tracer.axes(bias)[0], _INPUT)
        tracer.role(bias, 0, "shift")
    tracer.product(weight, source.numel() // max(source.shape[-1], 1))
    tracer.put(result, [*axes[:-1], made])


PRODUCT_RULES: Mapping[str, Rule] = {
    "convolution": convolution,
    "mm": matrix_product,
    "addmm": addmm,
    "bmm": batched_product,
    "linear": linear,
    "_scaled_dot_product_flash_attention_for_cpu": attention,
    "_scaled_dot_product_flash_attention": attention,
    "_scaled_dot_product_efficient_attention": attention,
    "_scaled_dot_product_cudnn_attention": attention,
    "scaled_dot_product_attention": attention,
}
