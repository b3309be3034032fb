"""Define the records of a trace besides the channels: grids, numbers of modules, products and operators."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from autoprune.trace.union_find import AxisNodes

Axes = list[AxisNodes]


class Grid(NamedTuple):
    """An axis of channels that a module reshapes into rows and columns, such as heads and head width.

    Attributes:
        module: Name of the module.
        rows: Nodes of the rows, [rows].
        columns: Nodes of the columns, [columns].
    """

    module: str
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]


class ModuleNumber(NamedTuple):
    """A number of a module as large as an axis of channels, such as the groups of a depthwise convolution.

    Attributes:
        module: Name of the module.
        name: Name of the number; "" if only its value is known.
        nodes: Nodes of the axis.
        value: Length of the axis.
    """

    module: str
    name: str
    nodes: npt.NDArray[np.int64]
    value: int


class ActivationProduct(NamedTuple):
    """A product of two activations: its multiply-adds are `positions` times the length of every axis.

    Attributes:
        module: Module that computes it.
        positions: Product of the lengths of the axes without channels.
        axes: Nodes of the axes with channels.
    """

    module: str
    positions: int
    axes: tuple[npt.NDArray[np.int64], ...]


class OperatorStep(NamedTuple):
    """One operator of a forward.

    Attributes:
        name: Its name.
        shape: Shape of its first argument; () if that is no tensor.
        axes: Nodes along the axes of its first argument.
    """

    name: str
    shape: tuple[int, ...]
    axes: Axes

    @classmethod
    def of(cls, name: str, first: object, axes: Axes) -> OperatorStep:
        """Record an operator that is about to run.

        Args:
            name: Its name.
            first: Its first argument.
            axes: Nodes along the axes of that.

        Returns:
            The step.
        """
        return cls(name, tuple(first.shape) if isinstance(first, Tensor) else (), axes)
