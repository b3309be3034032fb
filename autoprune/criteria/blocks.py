"""Score residual blocks and layers by the name of a criterion."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor

from autoprune.criteria.signals import Signals, remaining_blocks, sanitize
from autoprune.plan.criteria import BLOCK_CRITERIA
from autoprune.structure.blocks import DroppableBlock
from autoprune.structure.topology import Topology


def score_block(name: str, block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Score one block that the model still has.

    Args:
        name: Name of a criterion for blocks.
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model, with those of `BLOCK_CRITERIA.signals_for`.

    Returns:
        Score, float32 scalar, finite and >= 0; blocks with higher scores stay.

    Raises:
        UnknownNameError: For an unknown criterion.
        ConfigurationError: For a block that the criterion cannot score.
    """
    function = cast("Callable[[DroppableBlock, Topology, Signals], Tensor]", BLOCK_CRITERIA.find(name).load())
    return sanitize(function(block, topology, signals))


def score_blocks(name: str, topology: Topology, signals: Signals) -> dict[str, float]:
    """Score all blocks that the model still has.

    Args:
        name: Name of a criterion for blocks.
        topology: Topology of the dense model.
        signals: Signals of the model, with those of `BLOCK_CRITERIA.signals_for`.

    Returns:
        Name of each block -> score, >= 0.

    Raises:
        UnknownNameError: For an unknown criterion.
        ConfigurationError: For a block that the criterion cannot score.
    """
    return {
        block.name: float(score_block(name, block, topology, signals))
        for block in remaining_blocks(topology, signals.kept)
    }
