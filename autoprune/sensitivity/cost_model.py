"""Cost of any widths, quick enough to ask thousands of times."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from autoprune.errors import UnknownNameError
from autoprune.trace.topology import Block, Topology

#: Costs that follow from widths alone; latency does not.
AXES = ("multiply_adds", "parameters", "size_bytes")


class CostModel:
    """Topology.cost for one axis as arrays; gives the same numbers.

    axis: one of AXES. dropped: blocks that are gone. dense: cost of the dense model, with all of its blocks.
    """

    def __init__(self, topology: Topology, axis: str, dropped: Sequence[str] = ()) -> None:
        if axis not in AXES:
            raise UnknownNameError("a cost of the budget", axis, AXES)
        self.axis = axis
        self.names = [group.name for group in topology.groups]
        self.channels = np.array([group.channels for group in topology.groups], dtype=np.float64)
        blocks = [topology.block(name) for name in dropped]
        without = {tensor for block in blocks for tensor in block.tensors}
        self._weights = {
            name: 0.0 if name in without else weight for name, weight in _tensor_weights(topology, axis).items()
        }
        tensors = [name for name, weight in self._weights.items() if weight]
        number = {name: row for row, name in enumerate(tensors)}
        self._scale = np.array([self._weights[name] for name in tensors], dtype=np.float64)
        rank = max((len(topology.tensors[name].shape) for name in tensors), default=1)
        self._sizes = np.ones((len(tensors), rank))
        for name in tensors:
            shape = topology.tensors[name].shape
            self._sizes[number[name], : len(shape)] = shape
        self._rows, self._axes, self._groups, self._positions = _single(topology, number, self.names)
        self._grids = _grids(topology, number, self.names)
        self._contractions = _contractions(topology, self.names, blocks) if axis == "multiply_adds" else []
        self.dense = float(getattr(topology.cost({}), axis))

    def cost(self, widths: np.ndarray) -> float:
        """Cost when group i keeps widths[i] channels; fractional widths are allowed."""
        sizes = self._sizes.copy()
        shares = widths / self.channels
        np.subtract.at(sizes, (self._rows, self._axes), (1.0 - shares[self._groups]) * self._positions)
        for row, axis, positions, groups in self._grids:
            sizes[row, axis] -= positions * (1.0 - shares[groups].prod())
        total = float((self._scale * sizes.prod(axis=1)).sum())
        return total + sum(factor * float(shares[groups].prod()) for factor, groups in self._contractions)

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


def _contractions(topology: Topology, names: Sequence[str], dropped: Sequence[Block]) -> list[tuple[float, list[int]]]:
    """Products of activations as terms: multiply-adds, and the groups whose shares they are multiplied with."""
    number = {name: position for position, name in enumerate(names)}
    found: Counter[tuple[int, ...]] = Counter()
    for contraction in topology.contractions:
        if any(block.holds(contraction.module) for block in dropped):
            continue
        for runs in itertools.product(*contraction.axes):
            constant = contraction.positions * math.prod(run.positions for run in runs)
            groups = tuple(sorted(number[name] for run in runs for name in run.groups if name in number))
            found[groups] += constant
    return [(float(constant), list(groups)) for groups, constant in found.items()]


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


def _single(
    topology: Topology, number: Mapping[str, int], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs of one group each, which is nearly all of them, as arrays: row, axis, group, positions."""
    found = [
        (number[tensor], axis, names.index(run.groups[0]), run.positions)
        for (tensor, axis), runs in topology.runs.items()
        for run in runs
        if tensor in number and len(run.groups) == 1
    ]
    table = np.array(found, dtype=np.int64).reshape(-1, 4)
    return table[:, 0], table[:, 1], table[:, 2], table[:, 3].astype(np.float64)


def _grids(
    topology: Topology, number: Mapping[str, int], names: Sequence[str]
) -> list[tuple[int, int, int, list[int]]]:
    """Runs that several groups share: a position stays when it stays in each of them."""
    return [
        (number[tensor], axis, run.positions, [names.index(name) for name in run.groups])
        for (tensor, axis), runs in topology.runs.items()
        for run in runs
        if tensor in number and len(run.groups) > 1
    ]
