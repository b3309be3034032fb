"""Tell which weights masks can be laid on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoprune.errors import ConfigurationError, error_message
from autoprune.plan.weights import WeightPlan, block_pattern, group_pattern
from autoprune.structure.topology import Topology


def maskable(topology: Topology) -> tuple[str, ...]:
    """Return the weights that masks can be laid on: parameters of two or more dims that a product sums over.

    Embeddings, norms and biases are left out. A table that is also the weight of a product (tied embeddings) is
    included.

    Args:
        topology: The topology.

    Returns:
        Their names, in the order of the forward.
    """
    tensors = topology.tensors
    return tuple(name for name in topology.input_axes if tensors[name].is_parameter and len(tensors[name].shape) >= 2)


def unmaskable(topology: Topology) -> dict[str, str]:
    """Return all other parameters, with the reason.

    Args:
        topology: The topology.

    Returns:
        Name -> reason, in words that follow "it".
    """
    masked = set(maskable(topology))
    return {
        name: _TOO_FLAT if len(info.shape) < 2 else _NOT_SUMMED
        for name, info in topology.tensors.items()
        if info.is_parameter and name not in masked
    }


def weights_for_pattern(pattern: str, topology: Topology) -> tuple[str, ...]:
    """Return the weights of which masks of a pattern can silence an entry.

    "N:M" needs M columns; the other patterns need more than one entry or block, since one always stays.

    Args:
        pattern: The pattern.
        topology: The topology.

    Returns:
        Their names.
    """
    shapes = {name: topology.tensors[name].shape for name in maskable(topology)}
    return tuple(name for name, shape in shapes.items() if _fits(pattern, shape, topology.input_axes[name]))


def check_pattern(plan: WeightPlan, topology: Topology) -> None:
    """Check that the pattern of a plan can mask a weight of the model.

    Args:
        plan: The plan for weights.
        topology: The topology.

    Raises:
        ConfigurationError: If entries should be masked and none can be.
    """
    wanted = {name for name in maskable(topology) if plan.layers.get(name, plan.target) > 0}
    if wanted and wanted.isdisjoint(weights_for_pattern(plan.pattern, topology)):
        expected = "fit a weight that is masked: N:M needs M inputs, block-RxC more than one block"
        widest = max(topology.tensors[name].shape[topology.input_axes[name]] for name in wanted)
        raise ConfigurationError(
            error_message(
                f"the pattern {plan.pattern!r}", expected, f"weights of at most {widest} inputs, all too small"
            )
        )


def _fits(pattern: str, shape: Sequence[int], axis: int) -> bool:
    grouped, columns = group_pattern(pattern), shape[axis]
    if grouped is not None:
        return columns >= grouped[1] and math.prod(shape) > 0
    rows, width = block_pattern(pattern) or (1, 1)
    outputs = shape[0 if axis else 1]
    return outputs > rows or math.prod(shape) > outputs * width


_TOO_FLAT = "has one dimension, like a bias"


_NOT_SUMMED = "is in no known product, like an embedding's table"
