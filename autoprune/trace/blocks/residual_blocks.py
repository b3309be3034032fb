"""Find residual blocks: modules that add to their input, and branches that are added to an earlier value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import nn

from autoprune.structure.blocks import DroppableBlock, Gap
from autoprune.trace.blocks.branches import find_branches
from autoprune.trace.blocks.owners import Owners
from autoprune.trace.flow import Flow, ModuleCall
from autoprune.trace.graph import ChannelGraph

#: Operators whose result still contains their leading inputs -> how many of these; None for all. The proof decides
#: whether they change them.
CARRYING: Mapping[str, int | None] = {
    **dict.fromkeys(("add", "add_", "sub", "sub_")),
    **dict.fromkeys(("relu", "relu_", "clone", "alias", "detach", "_to_copy"), 1),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "permute", "transpose"), 1),
}


def find_blocks(graph: ChannelGraph, model: nn.Module, owners: Owners) -> tuple[DroppableBlock, ...]:
    """Find all candidates for blocks, nested ones as well.

    Of equivalent candidates, a module that adds to its input comes before the branch inside it, the innermost first;
    the others become its alternatives.

    Args:
        graph: The channels of a finished trace.
        model: The model that was traced.
        owners: Tensors that belong to its modules.

    Returns:
        The blocks in the order of the modules.
    """
    adding = sorted(_adding(graph.flow, model, owners), key=lambda block: -len(block.name))
    found: dict[frozenset[str], list[DroppableBlock]] = {}
    for block in (*adding, *find_branches(graph, model, owners, {block.name for block in adding})):
        found.setdefault(block.needed, []).append(block)
    first = {ways[0].name: _chained(ways) for ways in found.values()}
    return tuple(first[path] for path, _ in model.named_modules() if path in first)


def _chained(ways: Sequence[DroppableBlock]) -> DroppableBlock:
    """Return the first block, with the others as its alternatives."""
    if len(ways) == 1:
        return ways[0]
    return replace(ways[0], otherwise=_chained(ways[1:]))


def _adding(flow: Flow, model: nn.Module, owners: Owners) -> Iterator[DroppableBlock]:
    """Yield modules with parameters that add to their input."""
    calls = flow.by_module()
    for path, module in model.named_modules():
        if not path or path not in calls or next(module.parameters(), None) is None:
            continue
        # A module that is called several times has to add to its input in the same way every time.
        ways = {_addition(flow, call) for call in calls[path]}
        way = ways.pop()
        tensors = owners.tensors((path,)) if way is not None and not ways else None
        if way is None or tensors is None:
            continue
        reads = owners.read_by(calls[path], way, tensors)
        if reads:
            withholds = any(len(flow.leaving(call)) > 1 for call in calls[path])
            yield DroppableBlock(name=path, gaps=(way,), tensors=tensors, used_tensors=reads, withholds=withholds)


def _addition(flow: Flow, call: ModuleCall) -> Gap | None:
    """Return the gap of a call whose output contains an input, None if it contains none."""
    for gave in call.gave:
        for took in call.took:
            if took.value == gave.value or took.shape != gave.shape:
                continue
            if took.value in flow.carriers(gave.value, CARRYING, down_to=took.value):
                return call.gap(took.place, gave)
    return None
