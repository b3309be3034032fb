"""Define what a rule is, and read the arguments of operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from autoprune.trace.graph import ChannelGraph

#: Positional arguments of an operator.
Args = tuple[object, ...]
#: Keyword arguments of an operator.
Kwargs = Mapping[str, object]
#: Follows channels through one operator: rule(graph, args, kwargs, out), with the arguments and the result of the
#: operator. It sets the nodes of the result and freezes what cannot be removed.
OperatorRule = Callable[[ChannelGraph, Args, Kwargs, object], None]


def dim_of(args: Args, kwargs: Kwargs, position: int, default: int) -> int:
    """Return the axis that an operator works along.

    Args:
        args: Positional arguments of the operator.
        kwargs: Its keyword arguments.
        position: Position of `dim` among the arguments.
        default: The axis if the arguments name none.

    Returns:
        The axis, as it was given.
    """
    value = kwargs.get("dim", args[position] if len(args) > position else default)
    assert isinstance(value, int)
    return value


def source_and_dim(args: Args, kwargs: Kwargs, default: int) -> tuple[Tensor, int]:
    """Return the first argument of an operator and the axis that its second one names.

    Args:
        args: Positional arguments of the operator.
        kwargs: Its keyword arguments.
        default: The axis if the arguments name none.

    Returns:
        The tensor, and the axis counted from the front.
    """
    source, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else default)
    assert isinstance(source, Tensor)
    return source, (dim if isinstance(dim, int) else default) % max(source.ndim, 1)
