"""Metrics by name, as torchmetrics objects that fit the kind of prediction."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import torch
import torchmetrics
from torch import Tensor
from torchmetrics import Metric

from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.task.data import restore_sample_axis
from autoprune.task.functions import FunctionMetric, MetricFunction, name_of
from autoprune.task.prediction import Prediction


class ErrorRate(torchmetrics.Metric):
    """1 - accuracy: the share of wrong predictions, in [0, 1]. Lower is better.

    Args:
        accuracy: Metric of the accuracy.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    def __init__(self, accuracy: Metric) -> None:
        super().__init__()
        self.accuracy = accuracy

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count one batch.

        Args:
            preds: Predictions [N, ...].
            target: Targets [N, ...].
        """
        self.accuracy.update(preds, target)

    def compute(self) -> Tensor:
        """Compute the share of wrong predictions so far.

        Returns:
            The share, in [0, 1].
        """
        accuracy: Tensor = self.accuracy.compute()
        return 1 - accuracy

    def reset(self) -> None:
        """Forget all counts."""
        super().reset()
        self.accuracy.reset()


def _classification(name: str, average: str, prediction: Prediction) -> Metric:
    """Build a torchmetrics classification metric; `average` is "micro" to count samples, else "macro"."""
    module, ignored = torchmetrics.classification, prediction.ignore_index
    metric: Metric
    if prediction.kind == "multiclass":
        make = getattr(module, f"Multiclass{name}")
        metric = make(num_classes=prediction.classes, average=average, ignore_index=ignored)
    elif prediction.kind == "multilabel":
        metric = getattr(module, f"Multilabel{name}")(
            num_labels=prediction.classes, average=average, ignore_index=ignored
        )
    else:
        metric = getattr(module, f"Binary{name}")(ignore_index=ignored)
    return metric


class BalancedAccuracy(torchmetrics.Metric):
    """Mean over classes of the share recognised, in [0, 1]; for labels, the mean over both answers to each.

    For yes/no predictions this is the mean of sensitivity and specificity. For multiclass predictions, recall with a
    macro
    average is the same.

    Args:
        scores: A torchmetrics StatScores metric, with tp, fp, tn, fn and support in its last axis.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    def __init__(self, scores: Metric) -> None:
        super().__init__()
        self.scores = scores

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count one batch.

        Args:
            preds: Predictions [N, ...].
            target: Targets [N, ...].
        """
        self.scores.update(preds, target)

    def compute(self) -> Tensor:
        """Compute the mean of both rates so far. An answer that no target has is left out, as its rate is undefined.

        Returns:
            The mean, in [0, 1].
        """
        scores: Tensor = self.scores.compute()
        hit, false_alarm, rejected, missed, _ = scores.float().unbind(-1)
        rates = torch.stack([hit / (hit + missed), rejected / (rejected + false_alarm)])
        return rates.nanmean(0).mean()

    def reset(self) -> None:
        """Forget all counts."""
        super().reset()
        self.scores.reset()


def _balanced(prediction: Prediction) -> Metric:
    module = torchmetrics.classification
    if prediction.kind == "multiclass":
        return _classification("Accuracy", "macro", prediction)
    if prediction.kind == "multilabel":
        scores = module.MultilabelStatScores(prediction.classes, average=None, ignore_index=prediction.ignore_index)
        return BalancedAccuracy(scores)
    return BalancedAccuracy(module.BinaryStatScores(ignore_index=prediction.ignore_index))


def _error(prediction: Prediction) -> Metric:
    return ErrorRate(_classification("Accuracy", "micro", prediction))


def _regression(name: str, prediction: Prediction) -> Metric:
    del prediction
    metric: Metric = getattr(torchmetrics, name)()
    return metric


#: Metrics of a task: names and functions, or name -> metric object or function.
Metrics = Sequence[str | MetricFunction] | Mapping[str, Metric | MetricFunction]
MetricFactory = Callable[[Prediction], Metric]

#: Metric name -> factory. Averages over classes are "macro", except for accuracy and error, which count samples.
CLASSIFICATION: Mapping[str, MetricFactory] = {
    "accuracy": functools.partial(_classification, "Accuracy", "micro"),
    "balanced_accuracy": _balanced,
    "recall": functools.partial(_classification, "Recall", "macro"),
    "precision": functools.partial(_classification, "Precision", "macro"),
    "f1": functools.partial(_classification, "F1Score", "macro"),
    "auroc": functools.partial(_classification, "AUROC", "macro"),
    "average_precision": functools.partial(_classification, "AveragePrecision", "macro"),
    "error": _error,
}
REGRESSION: Mapping[str, MetricFactory] = {
    "mse": functools.partial(_regression, "MeanSquaredError"),
    "mae": functools.partial(_regression, "MeanAbsoluteError"),
    "r2": functools.partial(_regression, "R2Score"),
}
METRICS: Mapping[str, MetricFactory] = {**CLASSIFICATION, **REGRESSION}


def build_metric(name: str, prediction: Prediction) -> Metric:
    """Build a metric by name.

    Args:
        name: Name in METRICS.
        prediction: What the model predicts.

    Returns:
        The metric.

    Raises:
        UnknownNameError: There is no metric of that name.
        ConfigurationError: The metric does not fit the prediction.
    """
    if name not in METRICS:
        raise UnknownNameError("a metric", name, METRICS)
    wanted = REGRESSION if prediction.kind == "regression" else CLASSIFICATION
    if name not in wanted:
        remedy = (
            f"Use {', '.join(wanted)}. Targets of classes are integers, or 0 and 1, beside a score for each class; "
        )
        remedy += "kind=... says what is predicted."
        expected = f"suit {prediction.kind} outputs"
        raise ConfigurationError(error_message(f"metric {name!r}", expected, "one that does not", remedy))
    return wanted[name](prediction)


def metrics_by_name(metrics: Metrics) -> dict[str, str | Metric | MetricFunction]:
    """Name the metrics of a task; functions of a sequence have the names of their definitions.

    Args:
        metrics: Metrics of a task.

    Returns:
        Name -> name in METRICS, metric object or function.
    """
    if isinstance(metrics, Mapping):
        return dict(metrics)
    return {str(name_of(metric)): metric for metric in metrics}


def are_built_in(metrics: Metrics) -> bool:
    """Tell whether some metric is one by name, which needs targets that suit the prediction.

    Args:
        metrics: Metrics of a task.

    Returns:
        Whether there is one.
    """
    return any(isinstance(metric, str) for metric in metrics_by_name(metrics).values())


def make_metric(name: str, given: str | Metric | MetricFunction, prediction: Prediction) -> Metric:
    """Make a metric of a task.

    Args:
        name: Name of the metric.
        given: Name in METRICS, metric object or function.
        prediction: What the model predicts.

    Returns:
        A new metric object.

    Raises:
        ConfigurationError: The metric does not fit the prediction.
    """
    if isinstance(given, str):
        return build_metric(given, prediction)
    return given.clone() if isinstance(given, Metric) else FunctionMetric(name, given)


def told_direction(metric: Metric) -> bool | None:
    """Read from a metric whether higher is better.

    Args:
        metric: The metric.

    Returns:
        True if higher is better; None if the metric does not tell.
    """
    if isinstance(metric, FunctionMetric):
        return metric.direction
    return None if metric.higher_is_better is None else bool(metric.higher_is_better)


def check_direction(name: str, higher: bool | None) -> bool:
    """Check that the direction of a metric is known.

    Args:
        name: Name of the metric in messages.
        higher: True if higher is better, None if unknown.

    Returns:
        True if higher is better.

    Raises:
        ConfigurationError: The metric does not tell.
    """
    if higher is None:
        raise ConfigurationError(
            error_message(
                f"metric {name!r}",
                "say whether higher is better",
                "higher_is_better=None",
                f"Say it by directions={{{name!r}: True}}, or use another as quality.",
            )
        )
    return higher


def family_asked_by(metrics: Metrics) -> str:
    """Tell which kind of targets metrics are for.

    Args:
        metrics: Metrics of a task.

    Returns:
        "classification", "regression", or "" if they do not tell.
    """
    given = metrics_by_name(metrics).values()
    families = {metric_family(metric) for metric in given if isinstance(metric, Metric)}
    names = [name for name in given if isinstance(name, str) and name in METRICS]
    families |= {"classification" if name in CLASSIFICATION else "regression" for name in names}
    return next((one for one in ("classification", "regression") if one in families), "")


def metric_family(metric: Metric) -> str:
    """Tell a metric of labels from a metric of numbers.

    Args:
        metric: The metric.

    Returns:
        "classification" or "regression" for a metric of torchmetrics or a class made from one, "" for any other.
    """
    modules = {part.__module__ for part in type(metric).__mro__}
    for name in ("classification", "regression"):
        if any(module.startswith(f"torchmetrics.{name}.") for module in modules):
            return name
    return "classification" if isinstance(metric, ErrorRate | BalancedAccuracy) else ""


@torch.no_grad()
def update_metric(metric: Metric, outputs: Tensor, targets: Tensor, prediction: Prediction | None = None) -> None:
    """Feed one batch to a metric, in the form that it takes.

    An axis of one column that only the outputs have is left out. Metrics of labels take integers and, for yes/no,
    probabilities: torchmetrics takes a batch for logits if any value lies outside [0, 1], and would misread logits
    within
    it. The user's own metrics take outputs and targets unchanged.

    Args:
        metric: Any metric.
        outputs: Predictions of one batch.
        targets: Targets of the batch.
        prediction: What the model predicts; None leaves values unchanged.
    """
    if isinstance(metric, FunctionMetric):
        metric.update(outputs, targets)  # as the model and the data give them
        return
    outputs = _without_column(restore_sample_axis(outputs, len(targets)) if targets.ndim else outputs, targets)
    takes = metric_family(metric) if prediction is not None else ""
    if prediction is not None and takes == "classification":
        outputs, targets = _labelled(metric, outputs, targets, prediction)
    elif takes == "regression":
        # Differences and squares of counts and half precision need more digits.
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        outputs, targets = outputs.to(dtype), targets.to(dtype)
    metric.update(outputs.contiguous(), targets.contiguous())  # some use view()


def _labelled(metric: Metric, outputs: Tensor, targets: Tensor, prediction: Prediction) -> tuple[Tensor, Tensor]:
    if prediction.kind == "multiclass":
        if targets.ndim == outputs.ndim and targets.shape[1] == 1:
            targets = targets.squeeze(1)
        elif targets.shape == outputs.shape:  # one-hot
            targets = targets.argmax(1) if targets.dtype != torch.bool else targets.int().argmax(1)
        if prediction.logits and isinstance(metric, torchmetrics.classification.MulticlassPrecisionRecallCurve):
            outputs = outputs.float().softmax(1)
    elif prediction.logits:
        outputs = outputs.sigmoid()
    return outputs, targets if prediction.kind == "regression" else targets.long()


def _without_column(outputs: Tensor, targets: Tensor) -> Tensor:
    """Outputs [N, 1], [N, 1, ...] or [N, ..., 1] in the shape of targets [N, ...]."""
    if outputs.ndim == targets.ndim + 1:
        for axis in (1, -1):
            if outputs.shape[axis] == 1 and outputs.squeeze(axis).shape == targets.shape:
                return outputs.squeeze(axis)
    return outputs
