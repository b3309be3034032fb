"""The values of one forward: what each was computed from, what reads it, and which modules took and gave it."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from autoprune.trace.blocks import Gap, Lane
from autoprune.trace.values import tensors_in

#: Operators that look at nothing of what they read but its shape.
_OF_SHAPE = (
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
    *("new_zeros", "new_ones", "new_empty", "new_full"),
)


class Operator(NamedTuple):
    """One operator that ran: which in turn, its name, and the numbers of the values that it read and made."""

    turn: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class PassedTensor(NamedTuple):
    """A tensor that a module took or gave.

    place: which argument, by position or keyword, or which of the outputs. value: its number.
    axes: the nodes along each axis.
    """

    place: int | str
    value: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    axes: Sequence[npt.NDArray[np.int64] | None]


@dataclass(slots=True)
class ModuleCall:
    """One call of a module.

    took, gave: tensors among its arguments and outputs. outputs: how many outputs there are; 0 for a bare tensor.
    plain: the outputs are a tensor, or a tuple or list of tensors and None. began, ended: operators that had run by
    then.
    """

    module: str
    took: tuple[PassedTensor, ...]
    gave: tuple[PassedTensor, ...] = ()
    outputs: int = 0
    plain: bool = False
    began: int = 0
    ended: int = 0

    def gap(
        self,
        source: int | str,
        gave: PassedTensor,
        *,
        single: tuple[int, ...] | None = None,
        lanes: tuple[Lane, ...] = (),
    ) -> Gap:
        """The gap that the module leaves, with something of the argument `source` in the place of what it gave."""
        position = None if self.outputs == 0 else int(gave.place)
        outputs = max(self.outputs, 1)
        passes = tuple((int(one.place), self.handed[one.value]) for one in self.gave if one.value in self.handed)
        return Gap(
            module=self.module,
            source=source,
            position=position,
            outputs=outputs,
            passes=tuple(one for one in passes if one[0] != position),
            single=single,
            lanes=lanes,
        )

    @property
    def handed(self) -> Mapping[int, int | str]:
        """Value of each argument -> where it was given."""
        return {passed.value: passed.place for passed in reversed(self.took)}


@dataclass(slots=True)
class Flow:
    """Values are numbered as they are made, since tensors come and go and operators in place change them.

    calls: of modules, in the order in which they end. results: values that the model gives out.
    """

    operators: list[Operator] = field(default_factory=list)
    calls: list[ModuleCall] = field(default_factory=list)
    results: set[int] = field(default_factory=set)
    maker: dict[int, Operator] = field(default_factory=dict)
    readers: dict[int, list[Operator]] = field(default_factory=dict)
    _numbers: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary)
    _written: dict[int, int] = field(default_factory=dict)
    _count: int = 0

    def by_module(self) -> dict[str, list[ModuleCall]]:
        """The calls of each module."""
        found: dict[str, list[ModuleCall]] = {}
        for call in self.calls:
            found.setdefault(call.module, []).append(call)
        return found

    def number(self, tensor: Tensor) -> int:
        """The value that a tensor holds now."""
        known: int | None = self._numbers.get(tensor)
        return self._new(tensor) if known is None else known

    def _new(self, tensor: Tensor) -> int:
        self._count += 1
        self._numbers[tensor] = self._count
        return self._count

    def note(self, name: str, func: torch._ops.OpOverload, values: object, out: object) -> None:
        """An operator ran. values: its arguments."""
        given = tensors_in(values)
        reads = tuple(dict.fromkeys(number for tensor in given for number in self._read(tensor)))
        if func._schema.is_mutable:
            # The first argument is what such an operator writes into; views of it see that as well.
            changed = given[:1]
            makes = tuple(self._new(tensor) for tensor in changed)
            for tensor, number in zip(changed, makes, strict=True):
                self._written[_storage(tensor)] = number
        else:
            makes = tuple(self._new(tensor) for tensor in tensors_in(out))
        operator = Operator(len(self.operators), name, reads, makes)
        self.operators.append(operator)
        self.maker.update(dict.fromkeys(makes, operator))
        for number in reads:
            self.readers.setdefault(number, []).append(operator)

    def _read(self, tensor: Tensor) -> tuple[int, ...]:
        """The value of a tensor, and what was written later into the memory that it lies in."""
        own = self.number(tensor)
        later = self._written.get(_storage(tensor), 0) if self._written else 0
        return (own, later) if later > own else (own,)

    def ancestors(self, value: int, down_to: int) -> set[int]:
        """Values that one was computed from, those numbered from `down_to` on, and itself."""
        found, left = {value}, [value]
        while left:
            operator = self.maker.get(left.pop())
            for number in () if operator is None else operator.inputs:
                if number >= down_to and number not in found:
                    found.add(number)
                    left.append(number)
        return found

    def carriers(self, value: int, carrying: Mapping[str, int | None], *, down_to: int = 0) -> list[int]:
        """Values that one holds through operators that carry on what they read, the nearest first, and itself.

        carrying: operator -> how many of the values that it reads it carries on; None for all. down_to: the first
        number that is looked for.
        """
        found = {value: None}  # in the order in which they are found
        left = deque(found)
        while left:
            operator = self.maker.get(left.popleft())
            if operator is None or operator.name not in carrying:
                continue
            for number in operator.inputs[: carrying[operator.name]]:
                if number >= down_to and number not in found:
                    found[number] = None
                    left.append(number)
        return list(found)

    def serving(self, values: Iterable[int], without: Container[int] = ()) -> set[int]:
        """Values that the model needs for these alone, and themselves: every way on from them leads through one.

        without: values that are left out, with all that they were computed from.
        """
        found = set(values)
        left = [-number for value in found for number in self._reads_of(value)]
        heapify(left)
        while left:  # from the latest on, so that all that reads a value is settled before it
            value = -heappop(left)
            if value in found or value in self.results or value in without:
                continue
            if all(self._serves(operator, found) for operator in self.readers.get(value, ())):
                found.add(value)
                for number in self._reads_of(value):
                    heappush(left, -number)
        return found

    def _serves(self, operator: Operator, found: set[int]) -> bool:
        return all(value in found or self.is_dead(value) for value in operator.outputs)

    def is_dead(self, value: int) -> bool:
        """Nothing reads the value."""
        return value not in self.readers and value not in self.results

    def is_unread(self, value: int) -> bool:
        """Nothing reads more of the value than its shape."""
        names = (operator.name for operator in self.readers.get(value, ()))
        return value not in self.results and all(name in _OF_SHAPE for name in names)

    def leaving(self, call: ModuleCall) -> list[PassedTensor]:
        """Those of the tensors that a module made and gave which anything reads once its call has ended."""
        handed = call.handed
        return [one for one in call.gave if one.value not in handed and self._leaves(one.value, call)]

    def following(self, values: Iterable[int], until: Container[int]) -> Iterator[Operator]:
        """Operators that compute with some values, and with what is made of these; until: values to stop at."""
        left = [value for value in values if value not in until]
        seen = {*left}
        while left:
            for operator in self.readers.get(left.pop(), ()):
                yield operator
                new = [value for value in operator.outputs if value not in seen and value not in until]
                seen.update(new)
                left += new

    def _leaves(self, value: int, call: ModuleCall) -> bool:
        return value in self.results or any(one.turn >= call.ended for one in self.readers.get(value, ()))

    def _reads_of(self, value: int) -> tuple[int, ...]:
        operator = self.maker.get(value)
        return () if operator is None else operator.inputs


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else -id(tensor)
