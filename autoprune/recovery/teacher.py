"""Outputs of the dense model, and how those of a pruned one are compared with them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from autoprune.errors import AutopruneError, describe_exception
from autoprune.task.clone import clone_with
from autoprune.task.data import Batch, TensorSplit, call, restore_sample_axis
from autoprune.task.metrics import family_asked_by
from autoprune.task.modes import EVAL_MODE, Outputs
from autoprune.task.prediction import kind_of_prediction, kind_trained_by
from autoprune.task.prepare import PreparedTask

#: Remedy if the outputs hold the tensor to compare, but `predict` does not select it.
PICK = "Give Task(predict=...) that picks the same tensor from the outputs of eval mode and of training mode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How the outputs of a student are compared with those of the dense model, both in the mode of the loss.

    Attributes:
        kind: Kind of comparison, for `distillation_loss`.
        fault: Why the outputs cannot be compared; "" if they can.
        remedy: What the user can do about the fault; "" for nothing.
        by_sample: Whether the predictions have one row per sample, so that they can be cached by sample.
    """

    kind: str = ""
    fault: str = ""
    remedy: str = ""
    by_sample: bool = False


class Teacher:
    """Outputs of the dense model as soft targets, in the mode in which the loss is defined.

    A student is compared in training mode, where some models return other outputs than in eval mode. The teacher
    therefore
    returns those outputs, too, with dropout off and norms as in eval mode.

    If the train split is held as tensors, the output of each sample is computed once and cached, since a sample is
    always
    the same. A loader may augment its samples, so its batches go through the dense model each time.

    Args:
        task: The user's task.

    Attributes:
        samples: Samples of batches that the dense model has been run on so far.
        shared: Samples whose outputs are cached for all candidates; not part of `samples`.
    """

    def __init__(self, task: PreparedTask) -> None:
        self._task = task
        self._known: Tensor | None = None
        self.samples = self.shared = 0

    @cached_property
    def comparison(self) -> Comparison:
        """How a student is compared with this teacher, found on a calibration batch and a copy of the dense model."""
        return compare(self._task)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Predict a batch on the task's device with the dense model.

        Args:
            batch: Batch of the train split.

        Returns:
            Predictions [N, ...].
        """
        if batch.index is not None and isinstance(self._task.train_split, TensorSplit) and self.comparison.by_sample:
            if self._known is None:
                parts = list(self._task.train_split.ordered())
                self._known = torch.cat([restore_sample_axis(self._run(part), part.size) for part in parts])
                self.shared = sum(part.size for part in parts)
            return self._known[batch.index.to(self._known.device)]
        self.samples += batch.size
        return self._run(batch)

    def _run(self, batch: Batch) -> Tensor:
        batch = batch.to(torch.device(self._task.device))
        return _predictions(self._task, self._task.dense, batch)


@torch.enable_grad()
def compare(task: PreparedTask) -> Comparison:
    """Find how the outputs of a student can be compared with those of the dense model.

    Args:
        task: The task, with the mode of its loss. Its model is unchanged.

    Returns:
        The comparison, or why there is none.
    """
    model, batch = clone_with(task.dense), task.calibration[0]
    mode = "training mode" if task.loss_mode.trains else "eval mode"
    try:
        prediction = _predictions(task, model, batch)
    except (Exception, SystemExit) as error:  # the user's predict may expect the outputs of eval mode
        why = str(error) if isinstance(error, AutopruneError) else f"predict raised {describe_exception(error, 300)}"
        fault = f"the model's outputs in {mode} hold no single tensor to compare ({why.rstrip('.')})"
        return Comparison(fault=fault, remedy=PICK if _could_be_picked(task, model, batch) else "")
    trained = any(parameter.requires_grad for parameter in model.parameters())
    if prediction.ndim == 0 and batch.size > 1:  # models may squeeze one sample
        return Comparison(fault=f"the model gives a single number for a whole batch in {mode}")
    if not prediction.is_floating_point() or (trained and not prediction.requires_grad):
        return Comparison(fault="no gradient leads from the predictions to the weights, as after an argmax")
    if _depends_on_weights(task, model, batch, prediction.shape):
        return Comparison(fault="the shape of the predictions depends on the weights, as after a selection of boxes")
    rows = len(restore_sample_axis(prediction, batch.size))
    return Comparison(kind=_kind(task, prediction, batch), by_sample=rows == batch.size)


def _predictions(task: PreparedTask, model: nn.Module, batch: Batch) -> Tensor:
    with task.loss_mode.on(model):
        outputs = call(model, batch.inputs)
    return task.predictions(outputs)


@torch.no_grad()
def _could_be_picked(task: PreparedTask, model: nn.Module, batch: Batch) -> bool:
    """Whether the outputs in the mode of the loss hold a tensor like the predictions in eval mode."""
    with contextlib.suppress(Exception):  # the user's code runs here
        with EVAL_MODE.on(model):
            wanted = task.predictions(call(model, batch.inputs))
        with task.loss_mode.on(model):
            tensors = Outputs.of(call(model, batch.inputs)).tensors
        return any(tensor.shape == wanted.shape and tensor.is_floating_point() for tensor in tensors)
    return False


@torch.no_grad()
def _depends_on_weights(task: PreparedTask, model: nn.Module, batch: Batch, shape: torch.Size) -> bool:
    """Whether other weights give predictions of another shape. The weights of `model` are changed."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.mul_(0.5 + torch.rand(parameter.shape, generator=generator).to(parameter))
    with contextlib.suppress(Exception):  # errors of the user's code under other weights are no evidence
        return _predictions(task, model, batch).shape != shape
    return False


def _kind(task: PreparedTask, prediction: Tensor, batch: Batch) -> str:
    """Kind of comparison for `distillation_loss`. Probabilities are compared as numbers, not softened as logits are."""
    kind, logits = task.prediction.kind, task.prediction.logits
    if task.loss_mode.trains and isinstance(batch.targets, Tensor):
        asked, loss = family_asked_by(task.metrics), kind_trained_by(task.loss)
        kind = task.kind or kind_of_prediction(prediction.detach(), batch.targets, asked=asked, loss=loss).kind
        logits = bool(((prediction < 0) | (prediction > 1)).any())
    return kind if logits or kind == "multiclass" else "regression"
