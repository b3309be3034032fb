"""Find the tensors that belong to modules alone."""

from __future__ import annotations

from collections.abc import Container, Sequence

from torch import nn

from autoprune.structure.blocks import Gap
from autoprune.trace.flow import ModuleCall
from autoprune.trace.graph import ChannelGraph


class Owners:
    """Tensors that belong to modules alone: weights may be tied.

    Attributes:
        numbers: Name of a tensor that the forward reads -> number of its value.
    """

    def __init__(self, graph: ChannelGraph, model: nn.Module) -> None:
        self._flow = graph.flow
        numbers = {name: graph.flow.number(tensor) for name, tensor in graph.named.items()}
        self.numbers = {name: number for name, number in numbers.items() if not graph.flow.is_dead(number)}
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
