"""Residual blocks: modules whose output is their input plus something, and branches that are added to something."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from autoprune.trace.blocks import DroppableBlock, Gap
from autoprune.trace.branches import find_branches
from autoprune.trace.flow import Flow, ModuleCall

if TYPE_CHECKING:
    from autoprune.trace.tracer import Tracer

#: Operators whose result still holds what was added up before, and of how many of the values that they read; what
#: they do to it is left to the proof.
CARRYING: Mapping[str, int | None] = {
    **dict.fromkeys(("add", "add_", "sub", "sub_")),
    **dict.fromkeys(("relu", "relu_", "clone", "alias", "detach", "_to_copy"), 1),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "permute", "transpose"), 1),
}


def find_blocks(tracer: Tracer, model: nn.Module, owners: Owners) -> tuple[DroppableBlock, ...]:
    """Everything that may be dropped whole without a trace, nested ones as well, in the order of the modules.

    Of several that mean the same a module that adds to its input comes before the branch inside of it, the innermost
    first; the others are what to try otherwise.
    """
    adding = sorted(_adding(tracer.flow, model, owners), key=lambda block: -len(block.name))
    found: dict[frozenset[str], list[DroppableBlock]] = {}
    for block in (*adding, *find_branches(tracer, model, owners, {block.name for block in adding})):
        found.setdefault(block.needed, []).append(block)
    first = {ways[0].name: _chained(ways) for ways in found.values()}
    return tuple(first[path] for path, _ in model.named_modules() if path in first)


def _chained(ways: Sequence[DroppableBlock]) -> DroppableBlock:
    """The first, with the others behind it."""
    if len(ways) == 1:
        return ways[0]
    return replace(ways[0], otherwise=_chained(ways[1:]))


class Owners:
    """Which tensors go with modules: those that nothing else uses, as weights may be tied.

    numbers: name of a tensor that the forward reads -> its value.
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
        """First names of the tensors of these modules; None where one of them is in use elsewhere."""
        found = []
        for first, names in self._names.items():
            inside = {any(name.startswith(f"{module}.") for module in modules) for name in names}
            if len(inside) > 1:
                return None
            if True in inside:
                found.append(first)
        return tuple(found)

    def read(self, tensors: Container[str], serving: Container[int]) -> tuple[str, ...]:
        """Names of what is computed with: those of some tensors that the forward reads, and others that serve alone."""
        return tuple(name for name, number in self.numbers.items() if number in serving or name in tensors)

    def read_by(self, calls: Sequence[ModuleCall], gap: Gap, tensors: Container[str]) -> tuple[str, ...]:
        """The same for a module that hands on its input; tensors: its own."""
        given = {passed.value for call in calls for passed in call.took if passed.place == gap.source}
        taken = {passed.value for call in calls for passed in call.took}
        gave = {passed.value for call in calls for passed in call.gave}
        return self.read(tensors, self._flow.serving(gave - taken, without=given))


def _adding(flow: Flow, model: nn.Module, owners: Owners) -> Iterator[DroppableBlock]:
    """Modules with parameters that add to their input."""
    calls = flow.by_module()
    for path, module in model.named_modules():
        if not path or path not in calls or next(module.parameters(), None) is None:
            continue
        # A module that is used more than once has to add to its input in the same way every time.
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
    """How a call's output holds an input, None when it does not."""
    for gave in call.gave:
        for took in call.took:
            if took.value == gave.value or took.shape != gave.shape:
                continue
            if took.value in flow.carriers(gave.value, CARRYING, down_to=took.value):
                return call.gap(took.place, gave)
    return None
