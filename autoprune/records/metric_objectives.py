"""Objectives of the quality and of the further metrics of a task, which alone knows their names and directions."""

from __future__ import annotations

import functools
from operator import attrgetter

from autoprune.records.measurement import Measurement
from autoprune.records.objectives import QUALITY, Objective


def further_metric(name: str) -> str:
    """Return the name by which measurements keep the noise of a metric.

    Args:
        name: Name of the objective of a metric.

    Returns:
        The name; "" for the quality.
    """
    return "" if name == QUALITY else name


@functools.cache
def metric_objective(name: str, metric: str, higher_is_better: bool) -> Objective:
    """Make the objective of a metric of the task.

    Args:
        name: Name of the objective: QUALITY, or the metric's name for a further metric.
        metric: Name of the metric.
        higher_is_better: Direction of the metric.

    Returns:
        The objective. Its value is NaN where the metric was not measured.
    """
    better = "higher" if higher_is_better else "lower"

    def further(measurement: Measurement) -> float:
        return measurement.metrics.get(metric, float("nan"))

    value = attrgetter(QUALITY) if name == QUALITY else further
    return Objective(name=name, title=metric, value=value, better=better, kind="quality", form=".4f")
