"""Distillation from the dense model (Hinton et al., Distilling the Knowledge in a Neural Network, 2015)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autoprune.task.data import Batch, TensorSplit, call
from autoprune.task.task import Task


class Teacher:
    """The dense model's outputs as soft targets.

    Where the train split is held as tensors every sample's output is computed once and kept, since a sample is
    always the same; a loader may augment, so its batches go through the dense model each time.

    samples: how many samples the dense model has been run on so far.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._known: Tensor | None = None
        self.samples = 0

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Predictions [N, ...] of the dense model for a batch on the task's device."""
        if batch.index is not None and isinstance(self._task.train_split, TensorSplit):
            if self._known is None:
                self._known = torch.cat([self._run(part) for part in self._task.train_split.ordered()])
            return self._known[batch.index.to(self._known.device)]
        return self._run(batch)

    def _run(self, batch: Batch) -> Tensor:
        batch = batch.to(torch.device(self._task.device))
        self.samples += batch.size
        return self._task.predictions(call(self._task.dense, batch.inputs))


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float, kind: str = "") -> Tensor:
    """How far the student's predictions [N, ...] are from the teacher's, a scalar.

    kind: "multiclass" logits [N, C]: KL divergence of the softened class distributions times T^2. "binary" and
    "multilabel" logits: the same of each softened yes/no answer. "regression": squared error over the variance of
    the teacher's values, so that the unit does not matter. "" tells by the shape: multiclass for C > 1, else
    plain squared error.
    """
    if kind == "multiclass" or (not kind and student.ndim >= 2 and student.shape[1] > 1):
        log_p = functional.log_softmax(student / temperature, dim=1)
        log_q = functional.log_softmax(teacher / temperature, dim=1)
        per_class = functional.kl_div(log_p, log_q, reduction="none", log_target=True)
        return per_class.sum(1).mean() * temperature**2
    if kind in ("binary", "multilabel"):
        soft = (teacher / temperature).sigmoid()
        logits = student / temperature
        crossed = functional.binary_cross_entropy_with_logits(logits, soft)
        own = functional.binary_cross_entropy_with_logits(teacher / temperature, soft)
        return (crossed - own) * temperature**2
    error = functional.mse_loss(student, teacher)
    if not kind:
        return error
    variance = teacher.var(correction=0)
    return error / variance if float(variance) > 0 else error
