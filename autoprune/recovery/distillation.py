"""Distillation from the dense model (Hinton et al., Distilling the Knowledge in a Neural Network, 2015)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autoprune.plan.recovery import RecoveryPlan
from autoprune.records.work import Work
from autoprune.recovery.step import RecoveryState, RecoveryStep
from autoprune.task.data import Batch


class Distillation(RecoveryStep):
    """Loss that compares with the dense model's outputs: (1 - a) * loss + a * distillation loss.

    The user's loss alone is trained on where the outputs cannot be compared.
    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015.
    """

    def __init__(self, plan: RecoveryPlan) -> None:
        self.settings = plan.distillation

    def on_loss(self, state: RecoveryState, loss: Tensor, outputs: object, batch: Batch) -> Tensor:
        """Blend the user's loss with the distance from the dense model's outputs."""
        teacher, share = state.teacher, self.settings.weight
        if teacher is None or teacher.comparison.fault:
            return loss
        before = teacher.samples
        with torch.autocast(torch.device(state.task.device).type, enabled=False):
            soft = teacher(batch)
        state.work += Work(forward=teacher.samples - before, shared=teacher.shared)
        student = state.task.predictions(outputs)
        taught = distillation_loss(student, soft, self.settings.temperature, teacher.comparison.kind)
        return (1 - share) * loss + share * taught


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float, kind: str = "") -> Tensor:
    """Compute how far the student's predictions are from the teacher's.

    Args:
        student: Predictions [N, ...] of the student.
        teacher: Predictions [N, ...] of the dense model.
        temperature: Temperature that softens logits, > 0.
        kind: "multiclass" for logits [N, C]: KL divergence of the softened class distributions times temperature^2.
            "binary" and "multilabel" for logits: the same for each softened yes/no answer. "regression": squared error
            divided by the variance of the teacher's values, so that their unit does not matter. "" decides by the
                shape:
            multiclass for C > 1, else plain squared error.

    Returns:
        The loss, a scalar.
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
