"""The first samples of a split, on which the metrics of a task are tried."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from autoprune.errors import ConfigurationError, describe_exception, error_message
from autoprune.task.data import Batch, Split, call
from autoprune.task.functions import FunctionMetric, MetricFunction
from autoprune.task.metrics import check_direction, make_metric, told_direction, update_metric
from autoprune.task.prediction import Prediction
from autoprune.task.task import Task

#: Fewest samples that a metric is tried on: R2, for example, has no value for one sample.
_TRIED = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstSamples:
    """The first samples of a split, on which each metric is tried.

    Attributes:
        task: The task.
        dense: The model.
        split: The split.
        where: Name of the split in messages.
        answers: Predictions and targets of the first batches.
        prediction: What the model predicts.
    """

    task: Task
    dense: nn.Module
    split: Split
    where: str
    answers: list[tuple[Tensor, Tensor]]
    prediction: Prediction

    def metric(self, name: str, given: str | Metric | MetricFunction) -> Metric:
        """Make a metric and try it.

        Args:
            name: Name of the metric.
            given: Name in METRICS, metric object or function.

        Returns:
            The metric.

        Raises:
            ConfigurationError: The metric fails, its value is not finite, or the quality has no direction.
        """
        metric = make_metric(name, given, self.prediction)
        try:
            probe_metric(name, metric, self.answers, self.prediction)
        except ConfigurationError:
            if not isinstance(metric, FunctionMetric):
                raise
            # A function is only ever called with all samples: a few may hold a single class.
            everything = first_answers(self.task, self.dense, self.split, self.where, least=math.inf)
            probe_metric(name, metric, everything, self.prediction)
        if name == self.task.quality:
            check_direction(name, self.task.directions.get(name, told_direction(metric)))
        return metric


def first_answers(
    task: Task, dense: nn.Module, split: Split, where: str, least: float = _TRIED
) -> list[tuple[Tensor, Tensor]]:
    """Call the dense model on the first batches.

    Args:
        task: The task.
        dense: The model.
        split: The split.
        where: Name of the split in messages.
        least: Samples after which it ends.

    Returns:
        Predictions and targets of each batch.
    """
    answers: list[tuple[Tensor, Tensor]] = []
    seen = 0
    for raw in split.ordered():
        batch = raw.to(torch.device(task.device))
        targets = tensor_of_targets(batch, where)
        answers.append((task.predictions(call(dense, batch.inputs)), targets))
        seen += batch.size
        if seen >= least:
            break
    return answers


def tensor_of_targets(batch: Batch, where: str) -> Tensor:
    """Check that the targets of a batch are a tensor.

    Args:
        batch: The batch.
        where: Name of its split in messages.

    Returns:
        The targets.

    Raises:
        ConfigurationError: They are none.
    """
    if isinstance(batch.targets, Tensor):
        return batch.targets
    remedy = "Stack what the loss needs into one tensor; the loss and the metrics take it apart."
    raise ConfigurationError(
        error_message(f"the targets of {where}", "be a tensor for the metrics", type(batch.targets).__name__, remedy)
    )


def probe_metric(name: str, metric: Metric, answers: Sequence[tuple[Tensor, Tensor]], prediction: Prediction) -> None:
    """Update and compute a copy of a metric once.

    Args:
        name: Name of the metric in messages.
        metric: The metric.
        answers: Outputs and targets of a few batches.
        prediction: What the model predicts.

    Raises:
        ConfigurationError: The metric fails, or its value is not finite.
    """
    outputs, targets = answers[0]
    copy = metric.clone().to(outputs.device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class may be missing among a few samples
            copy.reset()
            for each in answers:
                update_metric(copy, *each, prediction)
            value = copy.compute()
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # any error means that the metric does not fit the outputs
        raise ConfigurationError(
            error_message(
                f"metric {name!r}",
                f"accept outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}",
                describe_exception(error),
                "Give predict=... if the outputs need a conversion first.",
            )
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ConfigurationError(
            error_message(f"metric {name!r}", "give one number", shape, "Choose an average, not None.")
        )
    if not math.isfinite(float(value)):
        raise ConfigurationError(
            error_message(
                f"metric {name!r}",
                "be finite after one batch",
                float(value),
                "A metric that needs other input first cannot score a candidate.",
            )
        )
