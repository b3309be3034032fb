"""Quality of a model on a split, with its standard error."""

from __future__ import annotations

import contextlib
import math
import statistics
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from autoprune.task.data import Batch, Split, call, eval_mode
from autoprune.task.evaluation import Evaluation, Scorable
from autoprune.task.prepare import PreparedTask

#: Folds for the standard error; more folds cost more updates of metrics.
FOLDS = 10
#: Largest number of targets for the jackknife; larger folds are precise enough alone, and faster.
_FEW = 2**20
#: A number whose multiples look random in their middle bits (Knuth's multiplicative hashing).
_SPREAD = 2654435761


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Metrics of a model on a split.

    Attributes:
        value: Value of the quality metric.
        error: Standard error of the value.
        metrics: Name of a metric -> value.
        samples: Number of samples.
    """

    value: float
    error: float
    metrics: dict[str, float]
    samples: int


@torch.no_grad()
def evaluate(task: PreparedTask, model: nn.Module, split: Scorable) -> Quality:
    """Compute every metric of the task over a whole split, in eval mode; the model's mode is restored.

    The standard error comes from a jackknife over ten folds of the samples: how much the quality varies when each fold
    is left out. It holds for averages over samples and for metrics of all samples, such as R2 or AUROC. For very many
    targets, and for metrics that torchmetrics cannot merge, it is the standard error of the mean of the folds. That of
    the user's evaluation is unknown, so 0.

    Args:
        task: PreparedTask with the metrics.
        model: Model to evaluate.
        split: Split to evaluate on, or the user's evaluation.

    Returns:
        The metrics.
    """
    if isinstance(split, Evaluation):
        found, seen = split.evaluate(model)
        return Quality(value=found[task.quality], error=0.0, metrics=found, samples=seen)
    metrics = task.new_metrics()
    folds = [task.new_metric(task.quality) for _ in range(FOLDS)]
    samples = entries = 0
    with eval_mode(model):
        for batch, predictions, targets in _scored(task, model, split):
            for metric in metrics.values():
                task.update(metric, predictions, targets)
            _update_folds(task, folds, predictions, targets, samples)
            samples, entries = samples + batch.size, entries + targets.numel()
    values = {name: float(metric.compute()) for name, metric in metrics.items()}
    used = [fold for fold in folds if fold.update_called]
    error = _without_each(used, values[task.quality]) if entries <= _FEW else None
    error = _of_each(used) if error is None else error
    return Quality(value=values[task.quality], error=error, metrics=values, samples=samples)


@torch.no_grad()
def quality_alone(task: PreparedTask, model: nn.Module, split: Scorable) -> tuple[float, int]:
    """Compute the quality that `evaluate` gives, without other metrics and the error, in less time.

    Args:
        task: PreparedTask with the metric.
        model: Model to evaluate.
        split: Split to evaluate on, or the user's evaluation.

    Returns:
        (quality, number of samples).
    """
    if isinstance(split, Evaluation):
        found, seen = split.evaluate(model)
        return found[task.quality], seen
    metric, samples = task.new_metric(task.quality), 0
    with eval_mode(model):
        for batch, predictions, targets in _scored(task, model, split):
            task.update(metric, predictions, targets)
            samples += batch.size
    return float(metric.compute()), samples


def _scored(task: PreparedTask, model: nn.Module, split: Split) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Iterate over the batches of a split with the model's predictions and the targets."""
    where = next((name for name in ("search", "test") if split is getattr(task, f"{name}_split")), "a split")
    for raw in split.ordered():
        batch = raw.to(torch.device(task.device))
        targets = task.labels(batch, where)
        yield batch, task.predictions(call(model, batch.inputs)), targets


def _update_folds(task: PreparedTask, folds: list[Metric], predictions: Tensor, targets: Tensor, offset: int) -> None:
    if min(predictions.ndim, targets.ndim) == 0 or len(predictions) != len(targets):
        return
    positions = torch.arange(offset, offset + len(targets))
    # Every ten samples fill all folds, beginning with another fold: repeating data does not gather in one fold.
    turns = (positions // FOLDS * _SPREAD) >> 16
    numbers = (positions + turns) % FOLDS
    for number, fold in enumerate(folds):
        mine = (numbers == number).nonzero().flatten().to(targets.device)
        if len(mine) > 0:
            with contextlib.suppress(Exception):  # a metric that refuses so few samples has no fold
                task.update(fold, predictions[mine], targets[mine])


def _without_each(folds: list[Metric], value: float) -> float | None:
    """Compute the standard error by a jackknife; None for a metric that cannot be merged, or changes when merged."""
    whole = _merged(folds)
    if whole is None or not math.isclose(whole, value, rel_tol=1e-3, abs_tol=1e-6):
        return None
    parts = [part for fold in range(len(folds)) if (part := _merged(folds[:fold] + folds[fold + 1 :])) is not None]
    return None if len(parts) < 2 else (len(parts) - 1) * _spread(parts)


def _of_each(folds: list[Metric]) -> float:
    """Compute the standard error from the spread of the folds; 0 where fewer than two have a value."""
    return _spread([value for fold in folds if (value := _computed(fold)) is not None])


def _spread(values: list[float]) -> float:
    """Compute the standard error of the mean of values."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _merged(folds: list[Metric]) -> float | None:
    """Compute the metric over several folds; None where it has no value or cannot be merged."""
    if not folds:
        return None
    total = folds[0].clone()
    try:
        for fold in folds[1:]:
            total.merge_state(fold)
    except Exception:  # torchmetrics and users' metrics fail in many ways
        return None
    return _computed(total)


def _computed(metric: Metric) -> float | None:
    """Compute a metric; None when it fails, warns, or is not finite."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            value = float(metric.compute())
        except Exception:  # such as for R2 of one sample
            return None
    return value if math.isfinite(value) and not said else None
