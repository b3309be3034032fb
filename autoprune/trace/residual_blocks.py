"""Find residual blocks: modules that add to their input, and branches that are added to an earlier value."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from autoprune.structure.blocks import DroppableBlock, Gap
from autoprune.trace.branches import find_branches
from autoprune.trace.flow import Flow, ModuleCall

if TYPE_CHECKING:
    from autoprune.trace.tracer import Tracer

#: Operators whose result still contains their leading inputs -> how many of these; None for all. The proof decides
#: whether they change them.
CARRYING: Mapping[str, int | None] = {
    **dict.fromkeys(("add", "add_", "sub", "sub_")),
    **dict.fromkeys(("relu", "relu_", "clone", "alias", "detach", "_to_copy"), 1),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "permute", "transpose"), 1),
}


def find_blocks(tracer: Tracer, model: nn.Module, owners: Owners) -> tuple[DroppableBlock, ...]:
    """Find all candidates for blocks, nested ones as well.

    Of equivalent candidates, a module that adds to its input comes before the branch inside it, the innermost first;
    the others become its alternatives.

    Args:
        tracer: A finished trace.
        model: The model that was traced.
        owners: Tensors that belong to its modules.

    Returns:
        The blocks in the order of the modules.
    """
    adding = sorted(_adding(tracer.flow, model, owners), key=lambda block: -len(block.name))
    found: dict[frozenset[str], list[DroppableBlock]] = {}
    for block in (*adding, *find_branches(tracer, model, owners, {block.name for block in adding})):
        found.setdefault(block.needed, []).append(block)
    first = {ways[0].name: _chained(ways) for ways in found.values()}
    return tuple(first[path] for path, _ in model.named_modules() if path in first)


def _chained(ways: Sequence[DroppableBlock]) -> DroppableBlock:
    """Return the first block, with the others as its alternatives."""
    if len(ways) == 1:
        return ways[0]
    return replace(ways[0], otherwise=_chained(ways[1:]))


class Owners:
    """Tensors that belong to modules alone: weights may be tied.

    Attributes:
        numbers: Name of a tensor that the forward reads -> number of its value.
    """

    def __init__(self, tracer: Tracer, model: nn.Module) -> None:
        self._flow = tracer.flow
        numbers = {name: tracer.flow.number(tensor) for name, tensor in tracer.named.items()}
        self.numbers = {name: number for name, number in numbers.items() if not tracer.flow.is_dead(number)}
        first: dict[int, str] = {}
        self._names: dict[str, list[str]] = {}
        for own in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
            for name, tensor in own:
                self._names.setdefault(first.setdefault(id(tensor), name), []).append(name)

    def tensors(self, modules: Sequence[str]) -> tuple[str, ...] | None:
        """Return the tensors of some modules.

        Args:
            modules: Names of the modules.

        Returns:
            First names of the tensors; None if one of them is used elsewhere.
        """
        found = []
        for first, names in self._names.items():
            inside = {any(name.startswith(f"{module}.") for module in modules) for name in names}
            if len(inside) > 1:
                return None
            if True in inside:
                found.append(first)
        return tuple(found)

    def read(self, tensors: Container[str], serving: Container[int]) -> tuple[str, ...]:
        """Return the tensors that a block computes with.

        Args:
            tensors: Names of its tensors.
            serving: Values that serve it alone.

        Returns:
            Names of its tensors that the forward reads, and of other tensors that serve it alone.
        """
        return tuple(name for name, number in self.numbers.items() if number in serving or name in tensors)

    def read_by(self, calls: Sequence[ModuleCall], gap: Gap, tensors: Container[str]) -> tuple[str, ...]:
        """Return the tensors that a module computes with if it passes its input on.

        Args:
            calls: Calls of the module.
            gap: The gap that it leaves.
            tensors: Names of its tensors.

        Returns:
            Names, as in `read`.
        """
        given = {passed.value for call in calls for passed in call.took if passed.place == gap.source}
        taken = {passed.value for call in calls for passed in call.took}
        gave = {passed.value for call in calls for passed in call.gave}
        return self.read(tensors, self._flow.serving(gave - taken, without=given))


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
