"""Criteria for residual blocks and layers by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from autoprune.criteria import block_scores
from autoprune.criteria.signals import Signals, remaining_blocks, sanitize
from autoprune.errors import UnknownNameError
from autoprune.structure.blocks import DroppableBlock
from autoprune.structure.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCriterion:
    """Score of a block, never negative; blocks with higher scores stay.

    The weights of a block are its parameters of two or more axes; norms and biases count only where there are no
    others.

    Attributes:
        function: Pure function of a block, its topology and the signals; returns a float scalar.
        signals: Names of the signals that the function needs besides the weights.
    """

    function: Callable[[DroppableBlock, Topology, Signals], Tensor]
    signals: tuple[str, ...] = ()


BLOCK_CRITERIA: Mapping[str, BlockCriterion] = {
    "block_influence": BlockCriterion(function=block_scores.block_influence, signals=("blocks",)),
    "added_loss": BlockCriterion(function=block_scores.added_loss, signals=("block_losses",)),
    "l1": BlockCriterion(function=block_scores.l1),
    "l2": BlockCriterion(function=block_scores.l2),
    "linf": BlockCriterion(function=block_scores.linf),
    "l0": BlockCriterion(function=block_scores.l0),
    "random": BlockCriterion(function=block_scores.random),
    "bn_scale": BlockCriterion(function=block_scores.bn_scale),
    "taylor_weight": BlockCriterion(function=block_scores.taylor_weight, signals=("gradients",)),
    "taylor_activation": BlockCriterion(function=block_scores.taylor_activation, signals=("block_gradients",)),
    "fisher": BlockCriterion(function=block_scores.fisher, signals=("gradients",)),
    "snip": BlockCriterion(function=block_scores.snip, signals=("gradients",)),
    "obd": BlockCriterion(function=block_scores.obd, signals=("weight_hessian",)),
    "hard_concrete": BlockCriterion(function=block_scores.hard_concrete, signals=("block_gates",)),
    "movement": BlockCriterion(function=block_scores.movement, signals=("movement",)),
}


def block_criterion(name: str) -> BlockCriterion:
    """Look up a criterion for blocks.

    Args:
        name: Name of the criterion.

    Returns:
        The criterion.

    Raises:
        UnknownNameError: For another name; lists the known names.
    """
    if name not in BLOCK_CRITERIA:
        raise UnknownNameError("a criterion for blocks", name, BLOCK_CRITERIA)
    return BLOCK_CRITERIA[name]


def block_signals_for(names: Iterable[str]) -> tuple[str, ...]:
    """Collect the signals that some criteria for blocks need.

    Args:
        names: Names of criteria for blocks.

    Returns:
        Names of signals, sorted.
    """
    return tuple(sorted({signal for name in names for signal in block_criterion(name).signals}))


def score_block(name: str, block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Score one block that the model still has.

    Args:
        name: Name of a criterion for blocks.
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model, with those of `block_signals_for`.

    Returns:
        Score, float32 scalar, finite and >= 0; blocks with higher scores stay.

    Raises:
        UnknownNameError: For an unknown criterion.
        ConfigurationError: For a block that the criterion cannot score.
    """
    return sanitize(block_criterion(name).function(block, topology, signals))


def score_blocks(name: str, topology: Topology, signals: Signals) -> dict[str, float]:
    """Score all blocks that the model still has.

    Args:
        name: Name of a criterion for blocks.
        topology: Topology of the dense model.
        signals: Signals of the model, with those of `block_signals_for`.

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
