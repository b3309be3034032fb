"""Registry of the measurers of further costs, one function each."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from autoprune.measure.memory import peak_memory
from autoprune.task.data import Inputs

#: (pruned model, inputs of a call) -> the cost.
Measurer = Callable[[nn.Module, Inputs], float]

#: Name of a cost in `records.objectives.COSTS` -> function that measures it. It sees the widths of a candidate, and the
#: weights from before its training.
MEASURERS: dict[str, Measurer] = {"peak_memory_bytes": peak_memory}


def measure_further(model: nn.Module, inputs: Inputs) -> dict[str, float]:
    """Measure every further cost.

    Args:
        model: A pruned model.
        inputs: Inputs of a call.

    Returns:
        Name of the cost -> value.
    """
    return {name: measure(model, inputs) for name, measure in MEASURERS.items()}
