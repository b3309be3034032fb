"""Record the values of one forward: their inputs, the operators that read them, and the modules around them."""

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

from autoprune.structure.blocks import Gap, Lane
from autoprune.trace.values import tensors_in

#: Operators that read only the shape of their argument.
_OF_SHAPE = (
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
    *("new_zeros", "new_ones", "new_empty", "new_full"),
)


class Operator(NamedTuple):
    """One operator that ran.

    Attributes:
        turn: Number of operators that ran before it.
        name: Its name.
        inputs: Numbers of the values that it read.
        outputs: Numbers of the values that it made.
    """

    turn: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class PassedTensor(NamedTuple):
    """A tensor that a module took as an argument or gave as an output.

    Attributes:
        place: Which argument, by position or keyword, or which output.
        value: Number of its value.
        shape: Its shape.
        dtype: Its dtype.
        axes: The nodes along each axis; None for an axis without channels.
    """

    place: int | str
    value: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    axes: Sequence[npt.NDArray[np.int64] | None]


@dataclass(slots=True)
class ModuleCall:
    """One call of a module.

    Attributes:
        module: Name of the module.
        took: Tensors among its arguments.
        gave: Tensors among its outputs.
        outputs: Number of outputs; 0 for a bare tensor.
        plain: Whether the outputs are a tensor, or a tuple or list of tensors and None.
        began: Number of operators that ran before the call.
        ended: Number of operators that ran before its end.
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
        """Return the gap that the module leaves if an argument replaces its output.

        Args:
            source: The argument.
            gave: The output that is replaced.
            single: Axes of length 1 if zeros replace it; None to pass the argument on.
            lanes: Axes along which input and output may lose different channels.

        Returns:
            The gap.
        """
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
        """Number of each argument's value -> its place among the arguments."""
        return {passed.value: passed.place for passed in reversed(self.took)}


@dataclass(slots=True)
class Flow:
    """The values of one forward, numbered in the order in which they are made: tensors are freed and changed in place.

    Attributes:
        operators: All operators, in order.
        calls: Calls of modules, in the order in which they end.
        results: Numbers of the model's outputs.
        maker: Value -> operator that made it.
        readers: Value -> operators that read it.
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
        """Group the calls by module.

        Returns:
            Name of a module -> its calls, in order.
        """
        found: dict[str, list[ModuleCall]] = {}
        for call in self.calls:
            found.setdefault(call.module, []).append(call)
        return found

    def number(self, tensor: Tensor) -> int:
        """Return the number of the value that a tensor holds now.

        Args:
            tensor: A tensor of the forward.

        Returns:
            The number; a new one for an unknown tensor.
        """
        known: int | None = self._numbers.get(tensor)
        return self._new(tensor) if known is None else known

    def _new(self, tensor: Tensor) -> int:
        self._count += 1
        self._numbers[tensor] = self._count
        return self._count

    def note(self, name: str, func: torch._ops.OpOverload, values: object, out: object) -> None:
        """Record an operator that ran.

        Args:
            name: Its name.
            func: The operator.
            values: Its arguments, nested.
            out: Its result, nested.
        """
        given = tensors_in(values)
        reads = tuple(dict.fromkeys(number for tensor in given for number in self._read(tensor)))
        if func._schema.is_mutable:
            # Such an operator writes into its first argument; views of that argument change as well.
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
        """Return the value of a tensor, and the value written later into its memory if there is one."""
        own = self.number(tensor)
        later = self._written.get(_storage(tensor), 0) if self._written else 0
        return (own, later) if later > own else (own,)

    def ancestors(self, value: int, down_to: int) -> set[int]:
        """Return the values that a value was computed from.

        Args:
            value: The value.
            down_to: Smallest number that is followed.

        Returns:
            Their numbers, and `value` itself.
        """
        found, left = {value}, [value]
        while left:
            operator = self.maker.get(left.pop())
            for number in () if operator is None else operator.inputs:
                if number >= down_to and number not in found:
                    found.add(number)
                    left.append(number)
        return found

    def carriers(self, value: int, carrying: Mapping[str, int | None], *, down_to: int = 0) -> list[int]:
        """Return the values that a value still contains, through operators that pass on their inputs.

        Args:
            value: The value.
            carrying: Operator -> number of leading inputs that it passes on; None for all.
            down_to: Smallest number that is followed.

        Returns:
            Their numbers, the nearest first, beginning with `value`.
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
        """Return the values that the model needs for some values alone: every path from them to the outputs leads
        through these.

        Args:
            values: The values.
            without: Values to leave out, with all that they were computed from.

        Returns:
            Their numbers, and the values themselves.
        """
        found = set(values)
        left = [-number for value in found for number in self._reads_of(value)]
        heapify(left)
        while left:  # from the latest on, so that all readers of a value are decided before it
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
        """Tell whether nothing reads a value.

        Args:
            value: Its number.

        Returns:
            True where no operator and no output of the model reads it.
        """
        return value not in self.readers and value not in self.results

    def is_unread(self, value: int) -> bool:
        """Tell whether nothing reads more of a value than its shape.

        Args:
            value: Its number.

        Returns:
            True where all its readers look at the shape alone.
        """
        names = (operator.name for operator in self.readers.get(value, ()))
        return value not in self.results and all(name in _OF_SHAPE for name in names)

    def leaving(self, call: ModuleCall) -> list[PassedTensor]:
        """Return the tensors that a module made and that are read after its call.

        Args:
            call: The call.

        Returns:
            These among its outputs, without its arguments.
        """
        handed = call.handed
        return [one for one in call.gave if one.value not in handed and self._leaves(one.value, call)]

    def following(self, values: Iterable[int], until: Container[int]) -> Iterator[Operator]:
        """Yield the operators that compute with some values, or with results of such operators.

        Args:
            values: The values to begin with.
            until: Values at which to stop.

        Yields:
            Operators; one may come twice.
        """
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
