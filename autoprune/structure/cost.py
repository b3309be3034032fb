"""Cost: the costs of a model that follow from its structure alone. Loads nothing heavy: plans name these costs."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of a model of given widths on the example inputs, computed without running it.

    Attributes:
        multiply_adds: Multiply-adds of convolutions and matrix products, for the whole example batch.
        parameters: Number of parameters.
        size_bytes: Bytes of parameters and buffers.
    """

    multiply_adds: int
    parameters: int
    size_bytes: int

    def shares_gone(self, left: Cost) -> tuple[float, float]:
        """Compare with a smaller model.

        Args:
            left: Cost of the smaller model.

        Returns:
            Shares of the parameters and of the multiply-adds that are saved, in [0, 1].
        """
        gone = 1 - left.parameters / max(self.parameters, 1)
        return gone, 1 - left.multiply_adds / max(self.multiply_adds, 1)


#: Names of the costs that follow from widths and blocks alone.
STRUCTURE_COSTS = tuple(one.name for one in fields(Cost))
