"""Quality of a model on a split, with its standard error."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from autoprune.measure.folds import Folds
from autoprune.task.data import Batch, Split, call, eval_mode
from autoprune.task.evaluation import Evaluation, Scorable
from autoprune.task.prepare import PreparedTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Metrics of a model on a split.

    Attributes:
        value: Value of the quality metric.
        metrics: Name of a metric -> value.
        samples: Number of samples.
        deviations: How much each fold of the samples moves the value, see `measure.folds`.
        metric_deviations: The same for further metrics.
    """

    value: float
    metrics: dict[str, float]
    samples: int
    deviations: tuple[float, ...] = ()
    metric_deviations: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def error(self) -> float:
        """Standard error of the value; 0 where it is unknown."""
        return math.hypot(*self.deviations)


@torch.no_grad()
def evaluate(task: PreparedTask, model: nn.Module, split: Scorable, judged: Collection[str] = ()) -> Quality:
    """Compute every metric of the task over a whole split, in eval mode; the model's mode is restored.

    The standard error comes from a jackknife over folds of the samples, see `measure.folds`: how much the quality
    varies when each fold is left out. It holds for averages over samples and for metrics of all samples, such as R2 or
    AUROC. That of the user's evaluation is unknown, so 0.

    Args:
        task: PreparedTask with the metrics.
        model: Model to evaluate.
        split: Split to evaluate on, or the user's evaluation.
        judged: Names of further metrics whose deviations are needed.

    Returns:
        The metrics.
    """
    if isinstance(split, Evaluation):
        found, seen = split.evaluate(model)
        return Quality(value=found[task.quality], metrics=found, samples=seen)
    metrics, samples = task.new_metrics(), 0
    folds = {name: Folds(task, name) for name in dict.fromkeys((task.quality, *judged))}
    with eval_mode(model):
        for batch, predictions, targets in _scored(task, model, split):
            for metric in metrics.values():
                task.update(metric, predictions, targets)
            for fold in folds.values():
                fold.add(predictions, targets)
            samples += batch.size
    values = {name: float(metric.compute()) for name, metric in metrics.items()}
    deviations = {name: fold.deviations(values[name]) for name, fold in folds.items()}
    return Quality(
        value=values[task.quality],
        metrics=values,
        samples=samples,
        deviations=deviations.pop(task.quality),
        metric_deviations=deviations,
    )


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
