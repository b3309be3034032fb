"""A brief fine-tune under a one-cycle schedule, with distillation from the dense model as an option."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from autoprune.errors import RecoveryError
from autoprune.plan.recovery import RecoveryPlan
from autoprune.recovery.distillation import Teacher, distillation_loss
from autoprune.recovery.max_norm import limit_norms
from autoprune.task.data import call, endless
from autoprune.task.task import Task

#: Below this many steps a cycle has no room to rise and fall; the rate stays constant.
_SHORTEST_CYCLE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Work done, in samples. forward: passed through a model without training (a teacher's and calibration
    passes too). trained: passed forward and backward.
    """

    forward: int = 0
    trained: int = 0

    def __add__(self, other: Samples) -> Samples:
        return Samples(forward=self.forward + other.forward, trained=self.trained + other.trained)


class DivergedError(RecoveryError):
    """A loss that is not finite; `samples` is the work done until then."""

    def __init__(self, message: str, samples: Samples) -> None:
        self.samples = samples
        super().__init__(message)


def fine_tune(
    model: nn.Module, task: Task, plan: RecoveryPlan, *, seed: int, teacher: Teacher | None = None
) -> Samples:
    """Train `model` in place for `plan.steps` steps on the train split; leaves it in eval mode.

    With plan.max_norm its weights never leave that ball, whether it is trained or not.

    teacher: the dense model's outputs, needed when plan.distillation_weight > 0.
    Raises DivergedError as soon as the loss is not finite.
    """
    if plan.max_norm:
        limit_norms(model, plan.max_norm, per=plan.max_norm_per)
    if plan.steps == 0 or not any(parameter.requires_grad for parameter in model.parameters()):
        model.eval()
        return Samples()
    # Dropout and the like draw from torch's global generator: from this seed here, and not for the caller.
    device = torch.device(task.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _train(model, task, plan, seed, teacher)


def _train(model: nn.Module, task: Task, plan: RecoveryPlan, seed: int, teacher: Teacher | None) -> Samples:
    optimizer = _optimizer(model, plan)
    schedule = _schedule(optimizer, plan)
    device = torch.device(task.device)
    seen, taught = 0, teacher.samples if teacher is not None else 0
    model.train()
    step = 0
    normed = any(isinstance(module, _BatchNorm) for module in model.modules())
    for raw in endless(task.train_split, seed):
        if normed and raw.size < 2:
            continue  # a short last batch of one: its variance is not defined
        if step == plan.steps:
            break
        step += 1
        batch = raw.to(device)
        outputs = call(model, batch.inputs)
        loss = task.loss(outputs, batch.targets)
        if plan.distillation_weight > 0 and teacher is not None:
            loss = _blend(loss, task, plan, outputs, teacher(batch))
        value = float(loss.detach())
        if not math.isfinite(value):
            model.eval()
            message = f"the loss must stay finite, but became {value:.3g} at step {step} of {plan.steps}"
            raise DivergedError(message, Samples(trained=seen, forward=batch.size + _taught(teacher, taught)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if plan.max_norm:
            limit_norms(model, plan.max_norm, per=plan.max_norm_per)
        if schedule is not None:
            schedule.step()
        seen += batch.size
    model.eval()
    optimizer.zero_grad(set_to_none=True)
    return Samples(trained=seen, forward=_taught(teacher, taught))


def _taught(teacher: Teacher | None, before: int) -> int:
    return 0 if teacher is None else teacher.samples - before


def _blend(loss: Tensor, task: Task, plan: RecoveryPlan, outputs: object, soft: Tensor) -> Tensor:
    # Probabilities are no logits to soften: their squared distance is taken, as for regression.
    kind = task.prediction.kind if task.logits or task.prediction.kind == "multiclass" else "regression"
    distilled = distillation_loss(task.predictions(outputs), soft, plan.distillation_temperature, kind)
    return (1 - plan.distillation_weight) * loss + plan.distillation_weight * distilled


def _optimizer(model: nn.Module, plan: RecoveryPlan) -> torch.optim.Optimizer:
    """Norms and biases take no weight decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=plan.learning_rate)


def _schedule(optimizer: torch.optim.Optimizer, plan: RecoveryPlan) -> LRScheduler | None:
    if plan.steps < _SHORTEST_CYCLE:
        return None
    return OneCycleLR(
        optimizer,
        max_lr=plan.learning_rate,
        total_steps=plan.steps,
        pct_start=0.25,
        cycle_momentum=False,
        div_factor=10.0,
    )
