"""Match biases to the weights whose channels they are added to."""

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
    """Biases of a model, matched to weights during a trace.

    Attributes:
        beside: Bias -> (weight to whose channels it is added, position of the first of them).
    """

    def __init__(self, tracer: Tracer) -> None:
        self.beside: dict[str, tuple[str, int]] = {}
        # The tracer holds this: a cycle would keep the copy of the model that it traced.
        self._tracer: Tracer = weakref.proxy(tracer)
        self._parts = WeakIdKeyDictionary()
        self._owners: dict[int, tuple[str, int]] = {}

    def join(self, result: Tensor, parts: Sequence[Tensor]) -> None:
        """Note that a vector is the concatenation of others.

        Args:
            result: The concatenation.
            parts: The vectors, in order.
        """
        self._parts[result] = tuple(parts)

    def add(self, vector: Tensor, made: AxisNodes) -> None:
        """Note that a vector is added to channels; each part of a concatenation belongs to the channels beside it.

        Args:
            vector: The vector, or a concatenation known from `join`.
            made: Nodes of the channels.
        """
        weight, start = self._maker(made), 0
        for part in self._parts.get(vector, (vector,)):
            name = self._tracer.origin(part)
            if name is not None and self._tracer.named[name].ndim == 1:
                self._tracer.role(part, 0, "shift")
                if weight is not None:
                    self.beside.setdefault(name, (weight, start))
            start += part.numel()

    def _maker(self, nodes: AxisNodes) -> str | None:
        """Return the weight that makes these nodes along one of its axes, None if no single weight does."""
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
