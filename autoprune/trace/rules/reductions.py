"""Follow channels through operators that combine the positions of an axis: means, norms of vectors, softmax."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from autoprune.structure.reasons import ACCUMULATED, RANKED
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.observations import Axes
from autoprune.trace.rules.rule import Args, Kwargs, OperatorRule
from autoprune.trace.values import tensors_in


def reduction(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Note a mean, sum, amax ... over axes; a cut model takes it over the channels that stay."""
    source = args[0]
    assert isinstance(source, Tensor)
    reduced = reduced_axes(args, kwargs, source.ndim)
    axes = graph.axes(source)
    for axis in reduced:
        graph.note_reduced(axes[axis])
    _put_reduced(graph, out, axes, reduced)


def power_norm(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Note the norm of a vector: a reduction whose order comes before its axes."""
    reduction(graph, args[:1] + args[2:], kwargs, out)


def index_reduction(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze the axes of argmax, any ...: the result depends on every channel."""
    source = args[0]
    assert isinstance(source, Tensor)
    axes = graph.axes(source)
    reduced = reduced_axes(args, kwargs, source.ndim)
    for axis in reduced:
        graph.freeze(axes[axis], RANKED)
    _put_reduced(graph, out, axes, reduced)


def _put_reduced(graph: ChannelGraph, out: object, axes: Axes, reduced: set[int]) -> None:
    """Set the axes of a result that keeps the reduced axes with size 1, or lacks them."""
    for result in tensors_in(out):
        if result.ndim == len(axes):
            graph.put(result, [None if axis in reduced else nodes for axis, nodes in enumerate(axes)])
        elif result.ndim == len(axes) - len(reduced):
            graph.put(result, [nodes for axis, nodes in enumerate(axes) if axis not in reduced])


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


def softmax(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Note a softmax over channels; a cut model takes it over the channels that stay."""
    source, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else -1)
    assert isinstance(source, Tensor) and isinstance(dim, int)
    axes = graph.axes(source)
    graph.note_reduced(axes[dim])
    for result in tensors_in(out):
        graph.put(result, axes)


def cumulative(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze an axis that is accumulated: every position depends on those before it."""
    source, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else -1)
    assert isinstance(source, Tensor) and isinstance(dim, int)
    axes = graph.axes(source)
    graph.freeze(axes[dim], ACCUMULATED)
    for result in tensors_in(out):
        graph.put(result, axes)


#: Reductions that a mask takes over the channels that stay; of `POWERS` the order comes before the axes.
REDUCTIONS = ("mean", "sum", "amax", "amin", "var", "std", "var_mean", "std_mean", "logsumexp", "max", "min", "prod")
POWERS = ("norm", "linalg_vector_norm")

REDUCTION_RULES: Mapping[str, OperatorRule] = {
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(POWERS, power_norm),
    **dict.fromkeys(("argmax", "argmin", "any", "all"), index_reduction),
    **dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax"), softmax),
    **dict.fromkeys(("cumsum", "cumprod"), cumulative),
}
