"""Follow channels through matrix products, and count their multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from autoprune.structure.reasons import PICKED, UNMADE
from autoprune.trace.biases import add_bias
from autoprune.trace.coupling import with_copies
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.observations import Axes
from autoprune.trace.rules.rule import Args, Kwargs, OperatorRule
from autoprune.trace.values import tensors_in

#: Rows of a grouped product start at multiples of 16 bytes: this many channels in half precision.
_ALIGNED = 8


def matrix_product(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow mm: [R, K] @ [K, C]."""
    left, right = args[0], args[1]
    result = tensors_in(out)[0]
    assert isinstance(left, Tensor) and isinstance(right, Tensor)
    left_axes, right_axes = graph.axes(left), graph.axes(right)
    inner = graph.unify(left_axes[1], right_axes[0], UNMADE)
    for weight, contracted, rows, positions in (
        (right, 0, left_axes[0], left.shape[0]),
        (left, 1, right_axes[1], right.shape[1]),
    ):
        if graph.origin(weight) is not None:
            _weight_roles(graph, weight, contracted)
            if rows is None and graph.is_whole(weight):
                graph.product(weight, positions)
                break
    else:
        graph.contract([left_axes[0], inner, right_axes[1]], [*left.shape, right.shape[1]])
    graph.put(result, [left_axes[0], right_axes[1]])


def _weight_roles(graph: ChannelGraph, weight: Tensor, contracted: int) -> None:
    """Set the roles of a 2-D weight, which may be transposed or a parameter in another shape."""
    for position in range(2):
        for axis in _along(graph, weight, position):
            graph.role(weight, axis, "in" if position == contracted else "out")


def _along(graph: ChannelGraph, weight: Tensor, position: int) -> list[int]:
    """Return the axes of a parameter along an axis of a tensor made from it, alone or flattened with others."""
    order, name = graph.order_of(weight), graph.origin(weight)
    if order is not None and len(order) == weight.ndim:
        return [order[position]]
    nodes = graph.axes(weight)[position]
    if name is None or nodes is None:
        return []
    union_find = graph.union_find
    here = {atom for node in nodes.tolist() for atom in union_find.atoms(node)}
    owned = enumerate(graph.owned[name])
    return [axis for axis, own in owned if own is not None and not here.isdisjoint(union_find.atoms(int(own[0])))]


def addmm(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow bias + mm."""
    matrix_product(graph, args[1:], kwargs, out)
    _add(graph, args[0], tensors_in(out)[0])


def _add(graph: ChannelGraph, added: object, result: Tensor) -> None:
    """Couple an added tensor to the channels of a product, aligned at the last axis."""
    assert isinstance(added, Tensor)
    axes = graph.axes(result)
    for axis, nodes in enumerate(reversed(graph.axes(added))):
        if added.shape[-1 - axis] == result.shape[-1 - axis]:
            axes[-1 - axis] = graph.unify(axes[-1 - axis], nodes, UNMADE)
    if added.ndim == 1:
        add_bias(graph, added, axes[-1])
    graph.put(result, axes)


def batched_product(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow bmm: [B, R, K] @ [B, K, C]."""
    left, right = args[0], args[1]
    result = tensors_in(out)[0]
    assert isinstance(left, Tensor) and isinstance(right, Tensor)
    left_axes, right_axes = graph.axes(left), graph.axes(right)
    inner = graph.unify(left_axes[2], right_axes[1], UNMADE)
    batch = with_copies(graph, left_axes[0], right_axes[0])
    for weight, contracted in ((right, 1), (left, 2)):
        _batched_roles(graph, weight, contracted)
    graph.contract([batch, left_axes[1], inner, right_axes[2]], [*left.shape, right.shape[2]], batch=batch)
    graph.put(result, [batch, left_axes[1], right_axes[2]])


def _batched_roles(graph: ChannelGraph, weight: Tensor, contracted: int) -> None:
    """Set the roles of a parameter in a batched product, its axes in any order."""
    for axis in _along(graph, weight, contracted):
        graph.role(weight, axis, "in")
    for axis in _along(graph, weight, 3 - contracted):
        graph.role(weight, axis, "out")


def batched_sum(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow baddbmm: added values + bmm."""
    batched_product(graph, args[1:], kwargs, out)
    _add(graph, args[0], tensors_in(out)[0])


def grouped_product(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow _grouped_mm: tokens [S, K] sorted by expert @ experts [E, K, C]; every token meets one expert.

    The kernel only takes rows whose length is a multiple of 16 bytes, so that many channels are removed together.
    """
    left, right = args[0], args[1]
    result = tensors_in(out)[0]
    assert isinstance(left, Tensor) and isinstance(right, Tensor)
    if (left.ndim, right.ndim) != (2, 3):
        raise ValueError("a product of groups of other axes")
    left_axes, right_axes = graph.axes(left), graph.axes(right)
    graph.freeze(right_axes[0], PICKED)
    inner = graph.unify(left_axes[1], right_axes[1], UNMADE)
    _batched_roles(graph, right, 1)
    for nodes in (inner, right_axes[2] if right.stride(2) == 1 else None):
        if nodes is not None:
            graph.union_find.unify_rows(nodes.reshape(-1, math.gcd(len(nodes), _ALIGNED)).T)
    graph.contract([left_axes[0], inner, right_axes[2]], [*left.shape, right.shape[2]])
    graph.put(result, [left_axes[0], right_axes[2]])


def linear(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow x [..., K] with weight [C, K], where the dispatcher does not decompose it."""
    source, weight = args[0], args[1]
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    result = tensors_in(out)[0]
    assert isinstance(source, Tensor) and isinstance(weight, Tensor)
    axes, w_axes = graph.axes(source), graph.axes(weight)
    graph.unify(w_axes[1], axes[-1], UNMADE)
    graph.role(weight, 0, "out")
    graph.role(weight, 1, "in")
    made = w_axes[0]
    if isinstance(bias, Tensor):
        made = graph.unify(made, graph.axes(bias)[0], UNMADE)
        add_bias(graph, bias, made)
    graph.product(weight, source.numel() // max(source.shape[-1], 1))
    graph.put(result, [*axes[:-1], made])


def trilinear(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow _trilinear, the product in nn.Bilinear: three tensors, each with axes added, summed over some axes."""
    factors, added = args[:3], args[3:6]
    summed, result = args[6], tensors_in(out)[0]
    assert isinstance(summed, list | tuple)
    columns: list[Axes] = []
    shapes: list[list[int]] = []
    for factor, places in zip(factors, added, strict=True):
        assert isinstance(factor, Tensor) and isinstance(places, list | tuple)
        axes, shape = graph.axes(factor), list(factor.shape)
        own = [axis for axis in range(len(axes) + len(places)) if axis not in places]
        for axis, position in zip(own, range(len(axes)), strict=True):
            graph.role(factor, position, "in" if axis in summed else "out")
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
            nodes = graph.unify(nodes, other, UNMADE)
        joined.append(nodes)
    graph.contract(joined, [max(shape[axis] for shape in shapes) for axis in range(len(joined))])
    graph.put(result, [nodes for axis, nodes in enumerate(joined) if axis not in summed])


PRODUCT_RULES: Mapping[str, OperatorRule] = {
    "mm": matrix_product,
    "addmm": addmm,
    "bmm": batched_product,
    "baddbmm": batched_sum,
    "_grouped_mm": grouped_product,
    "linear": linear,
    "_trilinear": trilinear,
}
