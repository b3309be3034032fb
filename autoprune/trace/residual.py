"""Residual blocks: modules whose output is their input plus something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from autoprune.trace.topology import Block

if TYPE_CHECKING:
    from autoprune.trace.tracer import Tracer

#: Operators whose result still holds what was added up before; what they do to it is left to the proof.
_CARRYING = frozenset(
    (
        *("add", "add_", "sub", "sub_", "relu", "relu_"),
        *("clone", "alias", "detach", "_to_copy", "view", "_unsafe_view", "reshape", "permute", "transpose"),
    )
)


class Addition(NamedTuple):
    """How a module's output holds its input: which argument, and which of how many outputs."""

    source: int | str
    position: int | None
    outputs: int


class Carried:
    """Which earlier values every tensor holds as a term of a sum.

    Values are numbered, as tensors come and go and operators in place change them.
    """

    def __init__(self) -> None:
        self._terms = WeakIdKeyDictionary()
        self._count = 0

    def terms(self, operator: str, args: tuple[object, ...]) -> frozenset[int]:
        """Values that the operator's result will hold; to be asked before it runs."""
        if operator not in _CARRYING:
            return frozenset()
        return frozenset(number for value in args if isinstance(value, Tensor) for number in self._of(value))

    def note(self, out: object, terms: frozenset[int]) -> None:
        """The result is a new value that holds these."""
        if isinstance(out, Tensor):
            self._count += 1
            self._terms[out] = terms | {self._count}

    def addition(self, args: tuple[object, ...], kwargs: Mapping[str, object], output: object) -> Addition | None:
        """How a module that was called so holds an input, None when it does not."""
        outputs = output if isinstance(output, tuple | list) else (output,)
        for position, value in enumerate(outputs):
            if not isinstance(value, Tensor):
                continue
            for source, given in _named(args, kwargs):
                if given is value or given.shape != value.shape or not self._of(given) <= self._of(value):
                    continue
                return Addition(source, None if output is value else position, len(outputs))
        return None

    def _of(self, tensor: Tensor) -> frozenset[int]:
        known: frozenset[int] | None = self._terms.get(tensor)
        if known is None:
            self._count += 1
            known = self._terms[tensor] = frozenset((self._count,))
        return known


def _named(args: tuple[object, ...], kwargs: Mapping[str, object]) -> Iterator[tuple[int | str, Tensor]]:
    for position, value in enumerate(args):
        if isinstance(value, Tensor):
            yield position, value
    for name, value in kwargs.items():
        if isinstance(value, Tensor):
            yield name, value


def blocks(tracer: Tracer, model: nn.Module) -> tuple[Block, ...]:
    """Modules with parameters that add to their input; nested ones as well, outer before inner."""
    names = _all_names(model)
    found = []
    for path, module in model.named_modules():
        added = tracer.additions.get(path)
        if not path or added is None or next(module.parameters(), None) is None:
            continue
        inside = {first: {name.startswith(f"{path}.") for name in every} for first, every in names.items()}
        if any(len(places) > 1 for places in inside.values()):
            continue  # a weight of it is in use elsewhere
        tensors = tuple(first for first, places in inside.items() if True in places)
        found.append(
            Block(name=path, source=added.source, position=added.position, outputs=added.outputs, tensors=tensors)
        )
    return tuple(found)


def _all_names(model: nn.Module) -> dict[str, list[str]]:
    """First name of every parameter and buffer -> all its names, as weights may be tied."""
    first: dict[int, str] = {}
    names: dict[str, list[str]] = {}
    for own in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
        for name, tensor in own:
            names.setdefault(first.setdefault(id(tensor), name), []).append(name)
    return names
