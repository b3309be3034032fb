"""Quality of a model on a split, with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from autoprune.task.data import Split, call, evaluating
from autoprune.task.metrics import update
from autoprune.task.task import Task

#: Folds for the standard error; more folds cost more metric updates.
FOLDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """value: the quality metric. error: its standard error. metrics: all metrics. samples: how many were seen."""

    value: float
    error: float
    metrics: dict[str, float]
    samples: int


@torch.no_grad()
def evaluate(task: Task, model: nn.Module, split: Split) -> Quality:
    """Every metric of the task over a whole split, in eval mode; the model's mode is restored.

    The standard error comes from the spread of the quality over ten interleaved folds of the samples,
    which holds for any metric that averages over samples.
    """
    metrics = task.new_metrics()
    folds = [task.new_metric(task.quality) for _ in range(FOLDS)]
    samples = 0
    with evaluating(model):
        for raw in split.ordered():
            batch = raw.to(torch.device(task.device))
            predictions = task.answers(call(model, batch.inputs))
            targets = batch.targets
            assert isinstance(targets, Tensor), "Task has checked this"
            for metric in metrics.values():
                update(metric, predictions, targets)
            _update_folds(folds, predictions, targets, samples)
            samples += batch.size
    values = {name: float(metric.compute()) for name, metric in metrics.items()}
    return Quality(value=values[task.quality], error=_error(folds), metrics=values, samples=samples)


@torch.no_grad()
def quality_alone(task: Task, model: nn.Module, split: Split) -> tuple[float, int]:
    """The quality that `evaluate` gives, and the samples seen: no other metric and no error, which cost more time."""
    metric, samples = task.new_metric(task.quality), 0
    with evaluating(model):
        for raw in split.ordered():
            batch = raw.to(torch.device(task.device))
            assert isinstance(batch.targets, Tensor), "Task has checked this"
            update(metric, task.answers(call(model, batch.inputs)), batch.targets)
            samples += batch.size
    return float(metric.compute()), samples


def _update_folds(folds: list[Metric], predictions: Tensor, targets: Tensor, offset: int) -> None:
    if targets.ndim == 0 or len(predictions) != len(targets):
        return
    for number, fold in enumerate(folds):
        start = (number - offset) % FOLDS
        if start < len(targets):
            update(fold, predictions[start::FOLDS], targets[start::FOLDS])


def _error(folds: list[Metric]) -> float:
    values = [float(fold.compute()) for fold in folds if fold.update_called]
    values = [value for value in values if math.isfinite(value)]
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))
