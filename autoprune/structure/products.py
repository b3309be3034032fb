"""Define the tensors of a model and the products that are computed with them, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from autoprune.structure.groups import PositionSpan, remaining


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One matrix product or convolution with a weight.

    Its multiply-adds are `positions` times the number of elements of the cut weight.

    Attributes:
        weight: Name of the weight.
        positions: How often the whole weight is used in one forward of the example inputs.
    """

    weight: str
    positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contraction:
    """A product of two activations, such as queries times keys.

    Its multiply-adds are `positions` times the length of every axis in the cut model.

    Attributes:
        module: Module that computes it.
        positions: Product of the lengths of all axes without channels.
        axes: The spans of each axis with channels.
    """

    module: str
    positions: int
    axes: tuple[tuple[PositionSpan, ...], ...]

    def multiply_adds(self, shares: Mapping[str, Fraction]) -> int:
        """Count the multiply-adds in a cut model.

        Args:
            shares: Group name -> share of its channels that stays; 1 for a group that is not named.

        Returns:
            The number.
        """
        return self.positions * math.prod(remaining(spans, shares) for spans in self.axes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One parameter or buffer of the dense model.

    Attributes:
        shape: Its shape.
        item_bytes: Bytes of one element.
        is_parameter: Whether it is a parameter.
    """

    shape: tuple[int, ...]
    item_bytes: int
    is_parameter: bool
