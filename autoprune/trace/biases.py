"""Match biases to the weights whose channels they are added to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from autoprune.trace.graph import ChannelGraph
from autoprune.trace.union_find import AxisNodes


def join_biases(graph: ChannelGraph, result: Tensor, parts: Sequence[Tensor]) -> None:
    """Note that a vector is the concatenation of others.

    Args:
        graph: The channels.
        result: The concatenation.
        parts: The vectors, in order.
    """
    graph.joined[result] = tuple(parts)


def add_bias(graph: ChannelGraph, vector: Tensor, made: AxisNodes) -> None:
    """Note that a vector is added to channels; each part of a concatenation belongs to the channels beside it.

    Args:
        graph: The channels.
        vector: The vector, or a concatenation known from `join_biases`.
        made: Nodes of the channels.
    """
    weight, start = _maker(graph, made), 0
    for part in graph.joined.get(vector, (vector,)):
        name = graph.origin(part)
        if name is not None and graph.named[name].ndim == 1:
            graph.role(part, 0, "shift")
            if weight is not None:
                graph.beside.setdefault(name, (weight, start))
        start += part.numel()


def _maker(graph: ChannelGraph, nodes: AxisNodes) -> str | None:
    """Return the weight that makes these nodes along one of its axes, None if no single weight does."""
    if nodes is None:
        return None
    name, axis = graph.first_nodes.get(int(nodes[0]), ("", 0))
    own = graph.owned[name][axis] if graph.roles.get((name, axis)) == "out" else None
    return name if own is not None and np.array_equal(nodes, own) else None
