"""Vectors that are added to what a weight makes: its bias, or several that are joined into one."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from autoprune.trace.union_find import AxisNodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoprune.trace.tracer import Tracer


class Biases:
    """What the biases of a model are added to.

    beside: bias -> the weight to whose channels it is added, and the position of the first of these.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.beside: dict[str, tuple[str, int]] = {}
        # The tracer holds this: a cycle would keep the copy of the model that it traced.
        self._tracer: Tracer = weakref.proxy(tracer)
        self._parts = WeakIdKeyDictionary()
        self._owners: dict[int, tuple[str, int]] = {}

    def join(self, result: Tensor, parts: Sequence[Tensor]) -> None:
        """`result` is these vectors, one after the other."""
        self._parts[result] = tuple(parts)

    def add(self, vector: Tensor, made: AxisNodes) -> None:
        """A vector is added to these channels; of a joined one, every part to its own."""
        weight, start = self._maker(made), 0
        for part in self._parts.get(vector, (vector,)):
            name = self._tracer.origin(part)
            if name is not None and self._tracer.named[name].ndim == 1:
                self._tracer.role(part, 0, "shift")
                if weight is not None:
                    self.beside.setdefault(name, (weight, start))
            start += part.numel()

    def _maker(self, nodes: AxisNodes) -> str | None:
        """The weight on whose axis these nodes are, if it makes them."""
        if nodes is None:
            return None
        if not self._owners:
            owned = self._tracer.owned.items()
            self._owners |= {
                int(own[0]): (name, axis)
                for name, axes in owned
                for axis, own in enumerate(axes)
                if own is not None and len(own)
            }
        name, axis = self._owners.get(int(nodes[0]), ("", 0))
        own = self._tracer.owned[name][axis] if self._tracer.roles.get((name, axis)) == "out" else None
        return name if own is not None and np.array_equal(nodes, own) else None
