"""Metrics by name, as torchmetrics objects fitted to the kind of prediction the model makes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torchmetrics
from torch import Tensor
from torchmetrics import Metric

from autoprune.errors import ConfigurationError, UnknownNameError, fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the model predicts: "multiclass", "binary", "multilabel" or "regression", and its number of classes."""

    kind: str
    classes: int


class ErrorRate(torchmetrics.Metric):
    """1 - accuracy: the share of wrong predictions, in [0, 1], lower is better."""

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    def __init__(self, accuracy: Metric) -> None:
        super().__init__()
        self.accuracy = accuracy

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count one batch."""
        self.accuracy.update(preds, target)

    def compute(self) -> Tensor:
        """The share of wrong predictions so far."""
        accuracy = self.accuracy.compute()
        assert isinstance(accuracy, Tensor)
        return 1 - accuracy

    def reset(self) -> None:
        """Forget everything counted."""
        super().reset()
        self.accuracy.reset()


def _classification(name: str, average: str, prediction: Prediction) -> Metric:
    """Build a torchmetrics classification metric; `average` is "micro" for counts of samples, else "macro"."""
    module = torchmetrics.classification
    if prediction.kind == "multiclass":
        metric = getattr(module, f"Multiclass{name}")(num_classes=prediction.classes, average=average)
    elif prediction.kind == "multilabel":
        metric = getattr(module, f"Multilabel{name}")(num_labels=prediction.classes, average=average)
    else:
        metric = getattr(module, f"Binary{name}")()
    assert isinstance(metric, Metric)
    return metric


class BalancedAccuracy(torchmetrics.Metric):
    """Mean over classes of the share recognised (for labels: of both answers to each), in [0, 1].

    For one or several yes/no questions it is the mean of sensitivity and specificity; recall of multiclass
    predictions with a macro average is the same thing.

    scores: a torchmetrics StatScores metric: tp, fp, tn, fn and support in its last axis.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    def __init__(self, scores: Metric) -> None:
        super().__init__()
        self.scores = scores

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count one batch."""
        self.scores.update(preds, target)

    def compute(self) -> Tensor:
        """Mean of both rates so far; an answer that the targets never give has no rate and does not count."""
        scores = self.scores.compute()
        assert isinstance(scores, Tensor)
        hit, false_alarm, rejected, missed, _ = scores.float().unbind(-1)
        rates = torch.stack([hit / (hit + missed), rejected / (rejected + false_alarm)])
        return rates.nanmean(0).mean()

    def reset(self) -> None:
        """Forget everything counted."""
        super().reset()
        self.scores.reset()


def _balanced(prediction: Prediction) -> Metric:
    module = torchmetrics.classification
    if prediction.kind == "multiclass":
        return _classification("Accuracy", "macro", prediction)
    if prediction.kind == "multilabel":
        return BalancedAccuracy(module.MultilabelStatScores(num_labels=prediction.classes, average=None))
    return BalancedAccuracy(module.BinaryStatScores())


def _error(prediction: Prediction) -> Metric:
    return ErrorRate(_classification("Accuracy", "micro", prediction))


def _regression(name: str, prediction: Prediction) -> Metric:
    del prediction
    metric = getattr(torchmetrics, name)()
    assert isinstance(metric, Metric)
    return metric


Factory = Callable[[Prediction], Metric]

#: Metric name -> factory. Averages over classes are "macro" but for accuracy and error, which count samples.
CLASSIFICATION: Mapping[str, Factory] = {
    "accuracy": functools.partial(_classification, "Accuracy", "micro"),
    "balanced_accuracy": _balanced,
    "recall": functools.partial(_classification, "Recall", "macro"),
    "precision": functools.partial(_classification, "Precision", "macro"),
    "f1": functools.partial(_classification, "F1Score", "macro"),
    "auroc": functools.partial(_classification, "AUROC", "macro"),
    "average_precision": functools.partial(_classification, "AveragePrecision", "macro"),
    "error": _error,
}
REGRESSION: Mapping[str, Factory] = {
    "mse": functools.partial(_regression, "MeanSquaredError"),
    "mae": functools.partial(_regression, "MeanAbsoluteError"),
    "r2": functools.partial(_regression, "R2Score"),
}
METRICS: Mapping[str, Factory] = {**CLASSIFICATION, **REGRESSION}


def kind_of_prediction(outputs: Tensor, targets: Tensor) -> Prediction:
    """Read off shapes and dtypes what is predicted.

    Integer targets [N, ...] beside outputs [N, C, ...] are multiclass, beside outputs of the same shape
    binary (one column) or multilabel; floating point targets are regression.
    """
    if targets.is_floating_point():
        return Prediction(kind="regression", classes=0)
    if outputs.ndim == targets.ndim + 1 and outputs.shape[1] > 1:
        return Prediction(kind="multiclass", classes=outputs.shape[1])
    if outputs.shape == targets.shape and outputs.ndim >= 2 and outputs.shape[1] > 1:
        return Prediction(kind="multilabel", classes=outputs.shape[1])
    return Prediction(kind="binary", classes=2)


def build_metric(name: str, prediction: Prediction) -> Metric:
    """The metric of that name. Raises UnknownNameError, or ConfigurationError if it does not fit the prediction."""
    if name not in METRICS:
        raise UnknownNameError("a metric", name, METRICS)
    wanted = REGRESSION if prediction.kind == "regression" else CLASSIFICATION
    if name not in wanted:
        raise ConfigurationError(
            fault(
                f"metric {name!r}", f"suit {prediction.kind} outputs", "one that does not", f"Use {', '.join(wanted)}."
            )
        )
    return wanted[name](prediction)


def direction_of(name: str, metric: Metric) -> bool:
    """True when higher is better. Raises ConfigurationError when the metric does not say."""
    if metric.higher_is_better is None:
        raise ConfigurationError(
            fault(
                f"metric {name!r}",
                "say whether higher is better",
                "higher_is_better=None",
                "Set that attribute on the metric, or use another as quality.",
            )
        )
    return bool(metric.higher_is_better)


def probe_metric(name: str, metric: Metric, outputs: Tensor, targets: Tensor) -> None:
    """One update and one compute on a copy. Raises ConfigurationError when it fails or gives no finite scalar."""
    copy = metric.clone().to(outputs.device)
    try:
        copy.reset()
        update(copy, outputs, targets)
        value = copy.compute()
    except Exception as error:  # any library error here means: the metric does not fit the outputs
        raise ConfigurationError(
            fault(
                f"metric {name!r}",
                f"accept outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}",
                f"{type(error).__name__}: {error}",
                "Give predict=... if the outputs need a conversion first.",
            )
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ConfigurationError(fault(f"metric {name!r}", "give one number", shape, "Choose an average, not None."))
    if not math.isfinite(float(value)):
        raise ConfigurationError(
            fault(
                f"metric {name!r}",
                "be finite after one batch",
                float(value),
                "A metric that has to be fitted or fed otherwise first can not score a candidate.",
            )
        )


@torch.no_grad()
def update(metric: Metric, outputs: Tensor, targets: Tensor) -> None:
    """Feed one batch, squeezing [N, 1] outputs to the shape of [N] targets as binary tasks use."""
    if outputs.ndim == targets.ndim + 1 and outputs.shape[-1] == 1 and outputs.shape[:-1] == targets.shape:
        outputs = outputs.squeeze(-1)
    metric.update(outputs, targets)
