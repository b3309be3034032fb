"""Couple channels, as several rules do: in rows of equal width, across a product, and to the input of their module."""

from __future__ import annotations

import numpy as np

from autoprune.structure.reasons import UNEQUAL
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.union_find import AxisNodes, Nodes


def balance(graph: ChannelGraph, table: Nodes) -> None:
    """Let rows of channels lose equally many; freeze channels for which that is impossible.

    Args:
        graph: The channels.
        table: Nodes, [rows, positions].
    """
    graph.freeze(graph.union_find.balance(table), UNEQUAL)


def with_copies(graph: ChannelGraph, nodes: AxisNodes, others: AxisNodes) -> AxisNodes:
    """Couple the channels along which products are independent, if both sides have channels.

    Args:
        graph: The channels.
        nodes: Channels of one side; None where it holds copies, whose number follows the other side.
        others: Channels of the other side.

    Returns:
        The channels of the result.
    """
    if nodes is None or others is None:
        return others if nodes is None else nodes
    graph.union_find.unify(nodes, others)
    return nodes


def tie(graph: ChannelGraph, nodes: AxisNodes, *, split: bool = False) -> AxisNodes:
    """Couple the channels that a module reshapes to equally many channels of its input, if the module is one of
    `tied_modules`.

    Attention in the forward of the model itself has an input without channels; the outputs of its parts are used there.

    Args:
        graph: The channels.
        nodes: The reshaped channels.
        split: Whether they are about to become a grid. Input channels that are partly coupled already are then returned
            instead of coupled, as they would be coupled along both sides of the grid.

    Returns:
        Those input channels, None if there are none.
    """
    if nodes is None or graph.module not in graph.tied_modules or not graph.inputs:
        return None
    # In order of their first position: a window repeats every channel.
    nodes = np.array(list({graph.union_find.find(node): node for node in nodes.tolist()}.values()))
    if graph.buffer_nodes.issuperset(nodes.tolist()):
        return None  # positions, not channels: a mask for each window, say
    known = graph.channels_in(graph.inputs[-1]) or [*graph.made[-1]]
    sides = {len(side) for grid in graph.grids if grid.module == graph.module for side in grid[1:]}
    if len(nodes) not in sides:  # heads are no width, even if they are equally many
        known.append(graph.lengths_of_tied.setdefault((graph.module, len(nodes)), nodes))
    apart = None
    for own in known:
        if len(own) == len(nodes):
            if split and len(np.unique(graph.union_find.roots(own))) < len(own):
                apart = own
            else:
                graph.union_find.unify(nodes, own)
    return apart
