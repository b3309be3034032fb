"""Follow operators that make new values."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from autoprune.trace.graph import ChannelGraph
from autoprune.trace.observations import Axes
from autoprune.trace.rules.rule import Args, Kwargs, OperatorRule
from autoprune.trace.values import tensors_in


def shaped_like(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow zeros_like and its kind: the result has the lengths of the source, not its values."""
    assert isinstance(args[0], Tensor)
    graph.put(tensors_in(out)[0], graph.axes(args[0]))


def new_tensor(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow zeros, ones and full: an axis follows a number of the running module if it is as long as that.

    So the first state of a recurrent layer gets as wide as its hidden units, and an empty bias gets as many heads.
    """
    numbers = graph.numbers()
    for result in tensors_in(out):
        axes: Axes = [graph.union_find.new(size) if size in numbers else None for size in result.shape]
        for nodes, size in zip(axes, result.shape, strict=True):
            if nodes is not None:
                graph.note_number(numbers[size], nodes, size)
        graph.put(result, axes)


def no_channels(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Make new values without channels."""
    del graph, args, kwargs, out


#: Operators that make new values in the shape of their argument.
_LIKE = "full_like ones_like zeros_like empty_like rand_like randn_like"
_NOTHING = """
arange rand randn randint item _local_scalar_dense
sym_size is_same_size linspace eye tril_indices triu_indices randperm scalar_tensor
"""

CREATION_RULES: Mapping[str, OperatorRule] = {
    **dict.fromkeys(_LIKE.split(), shaped_like),
    **dict.fromkeys(("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"), new_tensor),
    **dict.fromkeys(_NOTHING.split(), no_channels),
}
