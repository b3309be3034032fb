"""Distillation, metrics and fine-tuning by what a model predicts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import autoprune
from autoprune.errors import TaskError
from autoprune.measure.quality import evaluate
from autoprune.plan.recovery import DistillationPlan, RecoveryPlan
from autoprune.recovery.distillation import distillation_loss
from autoprune.recovery.fine_tune import fine_tune
from autoprune.recovery.teacher import Teacher


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel", "regression"])
def test_it_is_zero_for_the_teacher_itself_and_positive_else(kind: str) -> None:
    teacher = torch.randn(20, 3)
    assert distillation_loss(teacher, teacher, 2.0, kind).item() == pytest.approx(0, abs=1e-6)
    assert distillation_loss(teacher + torch.randn(20, 3), teacher, 2.0, kind).item() > 0.01


def test_yes_or_no_is_the_divergence_of_softened_answers() -> None:
    student, teacher = torch.tensor([0.4]), torch.tensor([-1.0])
    p, q = (teacher / 2).sigmoid(), (student / 2).sigmoid()
    by_hand = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, 2.0, "binary"), by_hand)


def test_the_unit_of_a_regression_does_not_matter() -> None:
    teacher, student = torch.randn(30, 2), torch.randn(30, 2)
    small = distillation_loss(student, teacher, 2.0, "regression")
    torch.testing.assert_close(distillation_loss(1000 * student, 1000 * teacher, 2.0, "regression"), small)


def yes_or_no(scale: float = 1.0) -> tuple[Tensor, Tensor, nn.Module]:
    """Points on both sides of a line, and a model with one logit that knows the line."""
    inputs = torch.randn(300, 6)
    targets = (inputs[:, 0] > 0).long()
    hidden, head = nn.Linear(6, 12), nn.Linear(12, 1)
    with torch.no_grad():
        hidden.weight[0] = torch.tensor([1.0, 0, 0, 0, 0, 0])
        hidden.bias[0] = 5.0
        head.weight.zero_()
        head.weight[0, 0] = scale
        head.bias.fill_(-5.0 * scale)
    return inputs, targets, nn.Sequential(hidden, nn.ReLU(), head, nn.Flatten(0))


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs, targets.float())


def task_of(inputs: Tensor, targets: Tensor, model: nn.Module, **changes: object) -> autoprune.PreparedTask:
    arguments: dict[str, object] = {
        "model": model,
        "example_inputs": inputs[:4],
        "train": (inputs, targets),
        "loss": loss,
        "batch_size": 50,
        "metrics": ("recall", "accuracy"),
        "quality": "recall",
    }
    return autoprune.prepare(autoprune.Task(**{**arguments, **changes}))  # type: ignore[arg-type]


def test_a_confident_model_with_one_logit_survives_distillation() -> None:
    """Squared distance of logits of 50 has gradients that destroy the model at any usual rate."""
    inputs, targets, model = yes_or_no(scale=20.0)
    task = task_of(inputs, targets, model)
    before = evaluate(task, task.dense, task.search_split).value
    plan = RecoveryPlan(steps=40, learning_rate=0.05, distillation=DistillationPlan(weight=0.5))
    fine_tune(model, task, plan, seed=0, teacher=Teacher(task))
    assert evaluate(task, model, task.search_split).value >= before - 0.05


def test_logits_within_zero_and_one_are_still_logits() -> None:
    """torchmetrics would take a batch of them for probabilities."""
    inputs, targets, model = yes_or_no()
    task = task_of(inputs, targets, model)
    assert task.prediction.logits
    accuracy = task.new_metric("accuracy")
    task.update(accuracy, torch.tensor([0.2, 0.3, 0.4]), torch.tensor([1, 1, 1]))
    assert float(accuracy.compute()) == 1.0


def test_probabilities_stay_probabilities() -> None:
    inputs, targets, model = yes_or_no()
    probable = nn.Sequential(model, nn.Sigmoid())
    task = task_of(inputs, targets, probable, loss=lambda o, t: functional.binary_cross_entropy(o, t.float()))
    assert not task.prediction.logits
    accuracy = task.new_metric("accuracy")
    task.update(accuracy, torch.tensor([0.2]), torch.tensor([0]))
    assert float(accuracy.compute()) == 1.0


def test_what_training_mode_refuses_is_a_fault_of_the_task() -> None:
    inputs, targets, model = yes_or_no()
    normed = nn.Sequential(nn.BatchNorm1d(6), model)
    with pytest.raises(TaskError, match=r"training mode on a batch of train must run.*more than 1 value per channel"):
        task_of(inputs, targets, normed.eval(), batch_size=1)


def test_a_short_last_batch_of_one_is_left_out_where_a_norm_trains() -> None:
    inputs, targets, model = yes_or_no()
    batches = [(inputs[:50], targets[:50]), (inputs[50:51], targets[50:51])]
    normed = nn.Sequential(nn.BatchNorm1d(6), model).eval()
    task = task_of(inputs, targets, normed, train=batches, search=(inputs[60:], targets[60:]))
    assert fine_tune(normed, task, RecoveryPlan(steps=6), seed=0).trained == 6 * 50
