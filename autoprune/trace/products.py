"""Follow channels through convolutions, matrix products and attention, and count their multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from autoprune.structure.reasons import GROUPED, PICKED, PLACES, UNMADE
from autoprune.trace.modules import balance
from autoprune.trace.observations import Axes
from autoprune.trace.scales import is_kept
from autoprune.trace.tracer import OperatorRule, Tracer
from autoprune.trace.union_find import AxisNodes
from autoprune.trace.values import tensors_in

Args = tuple[object, ...]
Kwargs = Mapping[str, object]
#: Rows of a grouped product start at multiples of 16 bytes: this many channels in half precision.
_ALIGNED = 8


def convolution(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow weight [out, in / groups, ...] (transposed: [in, out / groups, ...]) over input [N, in, ...]."""
    source, weight, bias = args[0], args[1], args[2]
    transposed, groups = bool(args[6]), int(str(args[8]))
    result = tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(weight, Tensor)
    out_axis, in_axis = (1, 0) if transposed else (0, 1)
    read = tracer.axes(source)[1]
    w_axes = tracer.axes(weight)
    if groups == 1:
        tracer.unify(w_axes[in_axis], read, UNMADE)
        made = w_axes[out_axis]
    elif transposed:
        made = _grouped_transposed(tracer, read, w_axes[0], w_axes[1], groups)
    else:
        made = _grouped(tracer, read, w_axes[0], w_axes[1], groups)
    depthwise = transposed and w_axes[1] is None and groups > 1
    tracer.role(weight, 0 if depthwise else out_axis, "out")
    tracer.role(weight, in_axis, "in")
    if isinstance(bias, Tensor):
        made = tracer.unify(made, tracer.axes(bias)[0], UNMADE)
        tracer.biases.add(bias, made)
    places = _places(tracer, args, result)
    counted = source if transposed else result
    if tracer.is_whole(weight) and all(nodes is None for nodes in places):
        tracer.product(weight, _positions(counted))
    else:  # a computed weight, or channels along the axes of samples or positions
        tracer.contract([*places, *w_axes], [len(counted), *counted.shape[2:], *weight.shape])
    tracer.put(result, [places[0], made, *places[1:]])


def _places(tracer: Tracer, args: Args, result: Tensor) -> Axes:
    """Return the nodes along samples and positions; over channels along a position axis a convolution slides as they
    stay.
    """
    source, weight, stride = args[0], args[1], args[3]
    assert isinstance(source, Tensor) and isinstance(weight, Tensor) and isinstance(stride, list | tuple)
    found = [tracer.axes(source)[0]]
    for axis in range(2, result.ndim):
        nodes = tracer.axes(source)[axis]
        if stride[axis - 2] != 1 or source.shape[axis] != result.shape[axis] or args[6]:
            tracer.freeze(nodes, PLACES)
            nodes = None
        elif weight.shape[axis] > 1:
            tracer.note_reduced(nodes)
        found.append(nodes)
    return found


def _grouped(tracer: Tracer, read: AxisNodes, out_nodes: AxisNodes, in_nodes: AxisNodes, groups: int) -> AxisNodes:
    """Let every group of a grouped convolution lose the same positions, so that all stay equally wide.

    With one input channel a group (depthwise), an input channel is coupled to the outputs made from it.
    """
    if out_nodes is None or read is None:
        tracer.freeze(out_nodes, UNMADE)
        tracer.freeze(read, GROUPED)
        return out_nodes
    if len(read) == groups:
        tracer.union_find.unify(out_nodes, np.repeat(read, len(out_nodes) // groups))
        tracer.note_number("groups", read, groups)
        return out_nodes
    for nodes in (read, out_nodes):
        tracer.union_find.unify_rows(nodes.reshape(groups, -1))
    tracer.unify(in_nodes, read.reshape(groups, -1)[0], UNMADE)
    if len(out_nodes) == groups:
        tracer.freeze(out_nodes, GROUPED)
    return out_nodes


def _grouped_transposed(
    tracer: Tracer, read: AxisNodes, in_nodes: AxisNodes, out_nodes: AxisNodes, groups: int
) -> AxisNodes:
    """Follow weight [in, out / groups]: every group makes the same positions from an equal share of the inputs."""
    assert in_nodes is not None
    read = tracer.unify(in_nodes, read, UNMADE)
    assert read is not None
    if out_nodes is None:
        if len(read) != groups:
            tracer.freeze(read, GROUPED)
            return np.repeat(read.reshape(groups, -1)[:, 0], 1)
        tracer.note_number("groups", read, groups)
        return read
    balance(tracer, read.reshape(groups, -1))
    if len(read) == groups:
        tracer.freeze(read, GROUPED)
    return np.tile(out_nodes, groups)


def matrix_product(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow mm: [R, K] @ [K, C]."""
    left, right = args[0], args[1]
    result = tensors_in(out)[0]
    assert isinstance(left, Tensor) and isinstance(right, Tensor)
    left_axes, right_axes = tracer.axes(left), tracer.axes(right)
    inner = tracer.unify(left_axes[1], right_axes[0], UNMADE)
    for weight, contracted, rows, positions in (
        (right, 0, left_axes[0], left.shape[0]),
        (left, 1, right_axes[1], right.shape[1]),
    ):
        if tracer.origin(weight) is not None:
            _weight_roles(tracer, weight, contracted)
            if rows is None and tracer.is_whole(weight):
                tracer.product(weight, positions)
                break
    else:
        tracer.contract([left_axes[0], inner, right_axes[1]], [*left.shape, right.shape[1]])
    tracer.put(result, [left_axes[0], right_axes[1]])


def _weight_roles(tracer: Tracer, weight: Tensor, contracted: int) -> None:
    """Set the roles of a 2-D weight, which may be transposed or a parameter in another shape."""
    for position in range(2):
        for axis in _along(tracer, weight, position):
            tracer.role(weight, axis, "in" if position == contracted else "out")


def _along(tracer: Tracer, weight: Tensor, position: int) -> list[int]:
    """Return the axes of a parameter along an axis of a tensor made from it, alone or flattened with others."""
    order, name = tracer.order_of(weight), tracer.origin(weight)
    if order is not None and len(order) == weight.ndim:
        return [order[position]]
    nodes = tracer.axes(weight)[position]
    if name is None or nodes is None:
        return []
    union_find = tracer.union_find
    here = {atom for node in nodes.tolist() for atom in union_find.atoms(node)}
    owned = enumerate(tracer.owned[name])
    return [axis for axis, own in owned if own is not None and not here.isdisjoint(union_find.atoms(int(own[0])))]


def addmm(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow bias + mm."""
    matrix_product(tracer, args[1:], kwargs, out)
    _add(tracer, args[0], tensors_in(out)[0])


def _add(tracer: Tracer, added: object, result: Tensor) -> None:
    """Couple an added tensor to the channels of a product, aligned at the last axis."""
    assert isinstance(added, Tensor)
    axes = tracer.axes(result)
    for axis, nodes in enumerate(reversed(tracer.axes(added))):
        if added.shape[-1 - axis] == result.shape[-1 - axis]:
            axes[-1 - axis] = tracer.unify(axes[-1 - axis], nodes, UNMADE)
    if added.ndim == 1:
        tracer.biases.add(added, axes[-1])
    tracer.put(result, axes)


def batched_product(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow bmm: [B, R, K] @ [B, K, C]."""
    left, right = args[0], args[1]
    result = tensors_in(out)[0]
    assert isinstance(left, Tensor) and isinstance(right, Tensor)
    left_axes, right_axes = tracer.axes(left), tracer.axes(right)
    inner = tracer.unify(left_axes[2], right_axes[1], UNMADE)
    batch = with_copies(tracer, left_axes[0], right_axes[0])
    for weight, contracted in ((right, 1), (left, 2)):
        _batched_roles(tracer, weight, contracted)
    tracer.contract([batch, left_axes[1], inner, right_axes[2]], [*left.shape, right.shape[2]], batch=batch)
    tracer.put(result, [batch, left_axes[1], right_axes[2]])


def with_copies(tracer: Tracer, nodes: AxisNodes, others: AxisNodes) -> AxisNodes:
    """Couple the channels along which products are independent, if both sides have channels.

    Args:
        tracer: The trace.
        nodes: Channels of one side; None where it holds copies, whose number follows the other side.
        others: Channels of the other side.

    Returns:
        The channels of the result.
    """
    if nodes is None or others is None:
        return others if nodes is None else nodes
    tracer.union_find.unify(nodes, others)
    return nodes


def _batched_roles(tracer: Tracer, weight: Tensor, contracted: int) -> None:
    """Set the roles of a parameter in a batched product, its axes in any order."""
    for axis in _along(tracer, weight, contracted):
        tracer.role(weight, axis, "in")
    for axis in _along(tracer, weight, 3 - contracted):
        tracer.role(weight, axis, "out")


def batched_sum(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow baddbmm: added values + bmm."""
    batched_product(tracer, args[1:], kwargs, out)
    _add(tracer, args[0], tensors_in(out)[0])


def grouped_product(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow _grouped_mm: tokens [S, K] sorted by expert @ experts [E, K, C]; every token meets one expert.

    The kernel only takes rows whose length is a multiple of 16 bytes, so that many channels are removed together.
    """
    left, right = args[0], args[1]
    result = tensors_in(out)[0]
    assert isinstance(left, Tensor) and isinstance(right, Tensor)
    if (left.ndim, right.ndim) != (2, 3):
        raise ValueError("a product of groups of other axes")
    left_axes, right_axes = tracer.axes(left), tracer.axes(right)
    tracer.freeze(right_axes[0], PICKED)
    inner = tracer.unify(left_axes[1], right_axes[1], UNMADE)
    _batched_roles(tracer, right, 1)
    for nodes in (inner, right_axes[2] if right.stride(2) == 1 else None):
        if nodes is not None:
            tracer.union_find.unify_rows(nodes.reshape(-1, math.gcd(len(nodes), _ALIGNED)).T)
    tracer.contract([left_axes[0], inner, right_axes[2]], [*left.shape, right.shape[2]])
    tracer.put(result, [left_axes[0], right_axes[2]])


def attention(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow scaled dot products [B, H, S, D]: heads of query, key and value are removed together."""
    query, key, value = args[0], args[1], args[2]
    assert isinstance(query, Tensor) and isinstance(key, Tensor) and isinstance(value, Tensor)
    q, k, v = tracer.axes(query), tracer.axes(key), tracer.axes(value)
    heads = q[-3]
    for nodes, count in ((k[-3], key.shape[-3]), (v[-3], value.shape[-3])):
        # Grouped queries: several query heads read one key and value head.
        repeated = nodes if nodes is None or count == query.shape[-3] else np.repeat(nodes, query.shape[-3] // count)
        heads = with_copies(tracer, heads, repeated)
    for bias in tensors_in([*args[3:], *kwargs.values()]):
        if bias.ndim > 2 and bias.shape[-3] == query.shape[-3] > 1:
            own = tracer.axes(bias)[-3]
            heads = (
                heads if own is None else tracer.unify(heads, own, UNMADE)
            )  # zeros for each head follow a number of the module
    width = tracer.unify(q[-1], k[-1], UNMADE)
    scale = kwargs.get("scale")
    if scale is None or not is_kept(tracer, scale):
        tracer.note_scale_width(width)
    result = tensors_in(out)[0]
    rows = [*query.shape[:-3], query.shape[-3], query.shape[-2], key.shape[-2]]
    for nodes, last in ((width, query.shape[-1]), (v[-1], value.shape[-1])):
        tracer.contract([*([None] * (query.ndim - 3)), heads, None, None, nodes], [*rows, last], batch=heads)
    tracer.put(result, [*([None] * (result.ndim - 3)), heads, None, v[-1]])


def _positions(tensor: Tensor) -> int:
    """Return batch times space of [N, C, ...]."""
    return tensor.numel() // max(tensor.shape[1], 1)


def linear(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow x [..., K] with weight [C, K], where the dispatcher does not decompose it."""
    source, weight = args[0], args[1]
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    result = tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(weight, Tensor)
    axes, w_axes = tracer.axes(source), tracer.axes(weight)
    tracer.unify(w_axes[1], axes[-1], UNMADE)
    tracer.role(weight, 0, "out")
    tracer.role(weight, 1, "in")
    made = w_axes[0]
    if isinstance(bias, Tensor):
        made = tracer.unify(made, tracer.axes(bias)[0], UNMADE)
        tracer.biases.add(bias, made)
    tracer.product(weight, source.numel() // max(source.shape[-1], 1))
    tracer.put(result, [*axes[:-1], made])


def trilinear(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow _trilinear, the product in nn.Bilinear: three tensors, each with axes added, summed over some axes."""
    factors, added = args[:3], args[3:6]
    summed, result = args[6], tensors_in(out)[0]
    assert isinstance(summed, list | tuple)
    columns: list[Axes] = []
    shapes: list[list[int]] = []
    for factor, places in zip(factors, added, strict=True):
        assert isinstance(factor, Tensor) and isinstance(places, list | tuple)
        axes, shape = tracer.axes(factor), list(factor.shape)
        own = [axis for axis in range(len(axes) + len(places)) if axis not in places]
        for axis, position in zip(own, range(len(axes)), strict=True):
            tracer.role(factor, position, "in" if axis in summed else "out")
        for place in sorted(int(place) for place in places):
            axes.insert(place, None)
            shape.insert(place, 1)
        columns.append(axes)
        shapes.append(shape)
    joined: Axes = []
    for axis in range(len(columns[0])):
        present = [axes[axis] for axes, shape in zip(columns, shapes, strict=True) if shape[axis] > 1]
        nodes = present[0] if present else None
        for other in present[1:]:
            nodes = tracer.unify(nodes, other, UNMADE)
        joined.append(nodes)
    tracer.contract(joined, [max(shape[axis] for shape in shapes) for axis in range(len(joined))])
    tracer.put(result, [nodes for axis, nodes in enumerate(joined) if axis not in summed])


PRODUCT_RULES: Mapping[str, OperatorRule] = {
    "convolution": convolution,
    "mm": matrix_product,
    "addmm": addmm,
    "bmm": batched_product,
    "baddbmm": batched_sum,
    "_grouped_mm": grouped_product,
    "linear": linear,
    "_trilinear": trilinear,
    "_scaled_dot_product_flash_attention_for_cpu": attention,
    "_scaled_dot_product_flash_attention": attention,
    "_scaled_dot_product_efficient_attention": attention,
    "_scaled_dot_product_cudnn_attention": attention,
    "scaled_dot_product_attention": attention,
}
