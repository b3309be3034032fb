"""Values of a metric without each fold of the samples, and how much each fold moves the value: the jackknife.

Source: Busing, Meijer, van der Leeden, Delete-m jackknife for unequal m, 1999.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

from torch import Tensor
from torchmetrics import Metric

#: Folds; their number decides the precision of the standard error, about 1 / sqrt(2 FOLDS).
FOLDS = 200
#: A number whose multiples look random in their middle bits (Knuth's multiplicative hashing).
_SPREAD = 2654435761


def folds_of(positions: Tensor, count: int) -> Tensor:
    """Compute the fold of each sample.

    Every `count` samples fill all folds, beginning with another fold: repeating data does not gather in one fold.

    Args:
        positions: Positions of the samples in their split [N].
        count: Number of folds.

    Returns:
        Folds [N], from 0 to count - 1.
    """
    turns = (positions // count * _SPREAD) >> 16
    return (positions + turns) % count


def parts_of(metric: Metric) -> list[Metric]:
    """List a metric and those that it is made from.

    Args:
        metric: A metric.

    Returns:
        All of them, the metric itself first.
    """
    return [part for part in metric.modules() if isinstance(part, Metric)]


def computed(metric: Metric) -> float | None:
    """Compute a metric.

    Args:
        metric: A metric that was updated.

    Returns:
        Its value; None when it fails, warns, or is not finite.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            value = float(metric.compute())
        except Exception:  # such as for R2 of one sample
            return None
    return value if math.isfinite(value) and not said else None


def of_the_rest(values: Sequence[float | None], sizes: Sequence[int]) -> list[float]:
    """Compute deviations from the values without each fold, which may be missing.

    Args:
        values: The metric without each fold; None where it has no value.
        sizes: Number of samples of each fold.

    Returns:
        Deviations; empty where fewer than two values are known.
    """
    total, known = sum(sizes), [position for position, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return []
    rest = {position: total - sizes[position] for position in known}
    mean = sum(rest[p] * (values[p] or 0.0) for p in known) / sum(rest.values())
    scale = math.sqrt(len(values) / len(known))  # the missing folds are like the others
    return [
        0.0 if value is None else scale * math.sqrt(rest[position] / total) * (mean - value)
        for position, value in enumerate(values)
    ]


def spread_out(values: Sequence[float | None]) -> list[float]:
    """Compute deviations from the values of each fold, which may be missing: those of their mean.

    Args:
        values: The metric of each fold; None where it has no value.

    Returns:
        Deviations; empty where fewer than two values are known.
    """
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return []
    mean, count = sum(known) / len(known), len(known)
    return [0.0 if value is None else (value - mean) / math.sqrt(count * (count - 1)) for value in values]
