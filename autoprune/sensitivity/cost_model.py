"""Cost of any widths, quick enough to ask thousands of times."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from autoprune.errors import UnknownNameError
from autoprune.trace.topology import Topology

#: Costs that follow from widths alone; latency does not.
AXES = ("multiply_adds", "parameters", "size_bytes")


class CostModel:
    """Topology.cost for one axis as arrays; gives the same numbers.

    axis: one of AXES. dense: cost of the dense model.
    """

    def __init__(self, topology: Topology, axis: str) -> None:
        if axis not in AXES:
            raise UnknownNameError("a cost of the budget", axis, AXES)
        self.axis = axis
        self.names = [group.name for group in topology.groups]
        self.channels = np.array([group.channels for group in topology.groups], dtype=np.float64)
        self._weights = _tensor_weights(topology, axis)
        tensors = [name for name, weight in self._weights.items() if weight]
        number = {name: row for row, name in enumerate(tensors)}
        self._scale = np.array([self._weights[name] for name in tensors], dtype=np.float64)
        rank = max((len(topology.tensors[name].shape) for name in tensors), default=1)
        self._sizes = np.ones((len(tensors), rank))
        for name in tensors:
            shape = topology.tensors[name].shape
            self._sizes[number[name], : len(shape)] = shape
        self._rows, self._axes, self._groups, self._per_channel = _runs(topology, number)
        self.dense = float(self.cost(self.channels))

    def cost(self, widths: np.ndarray) -> float:
        """Cost when group i keeps widths[i] channels; fractional widths are allowed."""
        sizes = self._sizes.copy()
        lost = (self.channels - widths)[self._groups] * self._per_channel
        np.subtract.at(sizes, (self._rows, self._axes), lost)
        return float((self._scale * sizes.prod(axis=1)).sum())

    def share(self, widths: np.ndarray) -> float:
        """Cost as a share of dense."""
        return self.cost(widths) / self.dense

    def as_array(self, widths: Mapping[str, int]) -> np.ndarray:
        """Widths by name as an array in the order of `names`."""
        return np.array(
            [widths.get(name, channels) for name, channels in zip(self.names, self.channels, strict=True)],
            dtype=np.float64,
        )

    @property
    def smallest(self) -> float:
        """Share of dense when every group keeps one channel."""
        return self.share(np.ones_like(self.channels))


def _tensor_weights(topology: Topology, axis: str) -> dict[str, float]:
    """How much one element of each tensor costs."""
    if axis == "multiply_adds":
        weights = dict.fromkeys(topology.tensors, 0.0)
        for product in topology.products:
            weights[product.weight] += product.positions
        return weights
    if axis == "parameters":
        return {name: float(info.is_parameter) for name, info in topology.tensors.items()}
    return {name: float(info.item_bytes) for name, info in topology.tensors.items()}


def _runs(topology: Topology, number: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rows, axes, groups, per_channel = [], [], [], []
    for position, group in enumerate(topology.groups):
        for member in group.members:
            if member.tensor in number:
                rows.append(number[member.tensor])
                axes.append(member.axis)
                groups.append(position)
                per_channel.append(member.index.shape[1])
    return (
        np.array(rows, dtype=int),
        np.array(axes, dtype=int),
        np.array(groups, dtype=int),
        np.array(per_channel, dtype=float),
    )
