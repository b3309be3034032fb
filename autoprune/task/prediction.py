"""The kind of prediction of a model, inferred from its outputs, the targets, the metrics and the loss."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoprune.errors import ConfigurationError, error_message

#: Kind of prediction -> its name in a sentence.
PREDICTION_KINDS: Mapping[str, str] = {
    "multiclass": "{classes} classes",
    "binary": "one answer of yes or no",
    "multilabel": "{classes} labels, each yes or no",
    "regression": "numbers",
}
#: Kind of prediction -> torch's losses that train it, as modules and as functions.
_LOSSES: Mapping[str, tuple[object, ...]] = {
    "multiclass": (nn.CrossEntropyLoss, nn.NLLLoss, functional.cross_entropy, functional.nll_loss),
    "logits": (
        nn.BCEWithLogitsLoss,
        nn.MultiLabelSoftMarginLoss,
        functional.binary_cross_entropy_with_logits,
        functional.multilabel_soft_margin_loss,
    ),
    "probabilities": (nn.BCELoss, functional.binary_cross_entropy),
    "regression": (
        *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.PoissonNLLLoss, nn.GaussianNLLLoss),
        *(functional.mse_loss, functional.l1_loss, functional.smooth_l1_loss, functional.huber_loss),
        *(functional.poisson_nll_loss, functional.gaussian_nll_loss),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model predicts.

    Attributes:
        kind: One of PREDICTION_KINDS.
        classes: Number of classes or labels; 2 for one yes/no answer, 0 for numbers.
        logits: True if classes and labels are predicted as logits; False for probabilities and for numbers.
        ignore_index: Label that metrics leave out; None for none.
    """

    kind: str
    classes: int
    logits: bool = False
    ignore_index: int | None = None

    def __str__(self) -> str:
        text = PREDICTION_KINDS[self.kind].format(classes=self.classes)
        return text if self.kind == "regression" else f"{text}, {'logits' if self.logits else 'probabilities'}"

    @property
    def labels(self) -> range:
        """Labels of the classes; empty for numbers."""
        return range(self.classes if self.kind == "multiclass" else 0 if self.kind == "regression" else 2)

    def check(self, targets: Tensor, where: str) -> None:
        """Check that every target is a label of a class, or a finite number.

        Args:
            targets: Labels of any shape, yes/no answers for each class, or numbers.
            where: Name of their split in the message.

        Raises:
            ConfigurationError: A target is neither a label nor `ignore_index`, or is NaN or infinite.
        """
        if self.kind == "regression":
            if not bool(targets.isfinite().all()):
                raise ConfigurationError(error_message(f"the targets of {where}", "be finite", "NaN or infinity"))
            return
        stray = _stray(targets, self)
        if stray is None:
            return
        remedy = "Number the classes from 0"
        if float(stray).is_integer():
            remedy += f", or set ignore_index={int(stray)} if that label is to be left out of the metrics"
        expected = f"be labels {self.labels[0]} to {self.labels[-1]}"
        raise ConfigurationError(error_message(f"the targets of {where}", expected, f"{stray:g}", f"{remedy}."))


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetProperties:
    """Properties of all targets that were read.

    Attributes:
        binary: Every target is 0 or 1.
        whole: No target has a fraction.
        one_hot: Along the axis of the classes exactly one value is 1.
    """

    binary: bool = True
    whole: bool = True
    one_hot: bool = True

    @classmethod
    def of(cls, targets: Iterable[Tensor], ignore_index: int | None = None) -> TargetProperties:
        """Find the properties of targets.

        Args:
            targets: Targets of some batches.
            ignore_index: Label that is skipped; None for none.

        Returns:
            The properties.
        """
        found = cls()
        for each in targets:
            values = each if ignore_index is None else each[each != ignore_index]
            binary = found.binary and bool(((values == 0) | (values == 1)).all())
            hot = found.one_hot and binary and each.ndim > 1 and each.shape[1] > 1
            found = cls(
                binary=binary,
                whole=found.whole and (not values.is_floating_point() or bool((values == values.floor()).all())),
                one_hot=hot and bool((each.sum(1) == 1).all()),
            )
        return found


def kind_of_prediction(
    outputs: Tensor, targets: Tensor, values: TargetProperties | None = None, *, asked: str = "", loss: str = ""
) -> Prediction:
    """Infer what a model predicts.

    Integer targets [N, ...] or [N, 1, ...] beside outputs [N, C, ...] are multiclass. Targets of 0 and 1 beside outputs
    of the same shape are binary (one column), multiclass (one-hot) or multilabel; floating point targets are so only if
    a metric or the loss is for labels. Everything else is regression.

    Args:
        outputs: The dense model's predictions for one batch.
        targets: Targets of the batch.
        values: Properties of all known targets; None for those of this batch.
        asked: Kind of targets that the metrics are for: "classification", "regression", or "" if they do not tell.
        loss: `kind_trained_by` of the loss.

    Returns:
        The kind and the number of classes.

    Raises:
        ConfigurationError: The scores of classes lie on the last axis.
    """
    values = TargetProperties.of([targets]) if values is None else values
    kind = _kind(outputs, targets, values, asked, loss)
    apart = outputs.ndim == targets.ndim + 1 and outputs.shape[:1] + outputs.shape[2:] != targets.shape
    if kind == "multiclass" and apart and outputs.shape[:-1] == targets.shape:
        expected = f"have the scores of classes on axis 1, beside targets of shape {tuple(targets.shape)}"
        remedy = "Give predict=lambda outputs: outputs.movedim(-1, 1)."
        raise ConfigurationError(error_message("the outputs", expected, tuple(outputs.shape), remedy))
    return Prediction(kind=kind, classes=classes_of(kind, outputs))


def classes_of(kind: str, outputs: Tensor) -> int:
    """Count the classes of a kind of prediction.

    Args:
        kind: One of PREDICTION_KINDS.
        outputs: Predictions of one batch.

    Returns:
        The number of classes or labels.

    Raises:
        ConfigurationError: The outputs have no axis of several classes or labels.
    """
    if kind in ("multiclass", "multilabel"):
        if outputs.ndim < 2 or outputs.shape[1] < 2:
            got = f"outputs of shape {tuple(outputs.shape)}"
            raise ConfigurationError(
                error_message(f"kind={kind!r}", "have outputs with one score for each on axis 1", got)
            )
        return outputs.shape[1]
    return 2 if kind == "binary" else 0


def are_logits(outputs: Tensor, kind: str) -> bool:
    """Tell logits from probabilities, which lie in [0, 1] and, for classes, sum to 1.

    Args:
        outputs: Predictions of one batch.
        kind: One of PREDICTION_KINDS.

    Returns:
        True for logits.
    """
    if kind == "regression":
        return False
    if bool(((outputs < 0) | (outputs > 1)).any()):
        return True
    return kind == "multiclass" and not torch.allclose(
        outputs.float().sum(1), torch.ones(()).to(outputs.device), atol=1e-2
    )


def kind_trained_by(loss: object) -> str:
    """Tell what a loss of torch trains.

    Args:
        loss: Any loss.

    Returns:
        "multiclass"; "logits" or "probabilities" of yes/no answers; "regression"; "" for any other loss, such as a
            function
        of the user's.
    """
    while isinstance(loss, functools.partial):
        loss = loss.func
    return next((kind for kind, known in _LOSSES.items() if loss in known or type(loss) in known), "")


def ignore_index_of(loss: object) -> int | None:
    """Find the label that a loss leaves out.

    Args:
        loss: Any loss.

    Returns:
        The attribute `ignore_index` of a loss module or of its one part that has it, or the default of a function's
        argument of that name; None if there is none.
    """
    if isinstance(loss, nn.Module):
        parts = (getattr(part, "ignore_index", None) for part in loss.modules())
        found = {label for label in parts if is_label(label)}
        return found.pop() if len(found) == 1 else None
    try:
        parameter = inspect.signature(loss).parameters.get("ignore_index")  # type: ignore[arg-type]  # or TypeError
    except (TypeError, ValueError):
        return None
    return parameter.default if parameter is not None and is_label(parameter.default) else None


def is_label(value: object) -> bool:
    """Tell whether a value is an integer, as labels are.

    Args:
        value: Any value.

    Returns:
        Whether it is.
    """
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(outputs: Tensor, targets: Tensor, values: TargetProperties, asked: str, loss: str) -> str:
    columns = outputs.shape[1] if outputs.ndim > 1 else 1
    asked = asked or ("regression" if loss == "regression" else "classification" if loss else "")
    if targets.is_floating_point() and asked != "classification":
        return "regression"
    column = outputs.ndim == targets.ndim > 1 and targets.shape[1] == 1
    if (outputs.ndim == targets.ndim + 1 or column) and columns > 1 and values.whole:
        return "multiclass"
    several = columns > 1 and outputs.shape == targets.shape
    if several and loss == "multiclass":  # one-hot or soft labels
        return "multiclass"
    if asked == "regression" or not values.binary:
        return "regression"
    if not several:
        return "binary"
    return "multiclass" if values.one_hot and loss not in ("logits", "probabilities") else "multilabel"


def _stray(targets: Tensor, prediction: Prediction) -> float | None:
    """The first target that is no label; None if there is none."""
    known = (targets >= prediction.labels[0]) & (targets <= prediction.labels[-1])
    if targets.is_floating_point():
        # One-hot targets of classes may be soft: a share of each.
        share = (targets >= 0) & (targets <= 1) if prediction.kind == "multiclass" else torch.zeros_like(known)
        known &= (targets == targets.floor()) | share
    if prediction.ignore_index is not None:
        known |= targets == prediction.ignore_index
    return None if bool(known.all()) else float(targets[~known].flatten()[0])
