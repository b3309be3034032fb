"""The distillation loss against its formula, and a teacher that is asked only once."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from autoprune.recovery.distillation import distillation_loss
from autoprune.recovery.teacher import Teacher
from tests.tasks import blobs, image_task


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_two_classes_by_hand(temperature: float) -> None:
    student, teacher = [0.5, -1.0], [2.0, 0.0]

    def soften(logits: list[float]) -> list[float]:
        powers = [math.exp(value / temperature) for value in logits]
        return [power / sum(powers) for power in powers]

    p, q = soften(student), soften(teacher)
    wanted = temperature**2 * sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    found = distillation_loss(torch.tensor([student] * 3), torch.tensor([teacher] * 3), temperature)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_it_is_a_mean_over_samples_and_zero_for_equal_outputs() -> None:
    student, teacher = torch.randn(6, 4), torch.randn(6, 4)
    each = [distillation_loss(student[[n]], teacher[[n]], 2.0) for n in range(6)]
    torch.testing.assert_close(distillation_loss(student, teacher, 2.0), torch.stack(each).mean())
    assert float(distillation_loss(teacher, teacher, 2.0)) == pytest.approx(0, abs=1e-6)
    shifted = teacher + 3
    assert float(distillation_loss(shifted, teacher, 2.0)) == pytest.approx(0, abs=1e-5), "logits are up to a constant"


def test_classes_of_positions_are_averaged_over_positions() -> None:
    student, teacher = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    rows = [tensor.movedim(1, -1).reshape(-1, 4) for tensor in (student, teacher)]
    torch.testing.assert_close(distillation_loss(student, teacher, 2.0), distillation_loss(*rows, 2.0))


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_one_number_is_followed_by_squared_error(shape: tuple[int, ...]) -> None:
    student, teacher = torch.randn(shape), torch.randn(shape)
    torch.testing.assert_close(distillation_loss(student, teacher, 2.0), (student - teacher).square().mean())


def test_the_gradient_reaches_the_student() -> None:
    student = torch.randn(6, 4, requires_grad=True)
    distillation_loss(student, torch.randn(6, 4), 2.0).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


def test_a_teacher_of_tensors_runs_the_dense_model_once_over_all() -> None:
    task = image_task()
    teacher = Teacher(task)
    samples = task.train_split.samples
    for seed in (0, 1):
        for batch in task.train_split.shuffled(seed):
            # One sample alone or in a batch is summed in another order.
            torch.testing.assert_close(teacher(batch), task.dense(batch.inputs), rtol=1e-4, atol=1e-5)
    assert (teacher.samples, teacher.shared) == (0, samples)
    assert not teacher(next(task.train_split.ordered())).requires_grad


def test_a_teacher_of_a_loader_runs_on_every_batch() -> None:
    images, targets = blobs(120)
    task = image_task(train=DataLoader(TensorDataset(images, targets), batch_size=40), search=blobs(60, seed=3))
    teacher = Teacher(task)
    seen = 0
    for batch in task.train_split.shuffled(0):
        torch.testing.assert_close(teacher(batch), task.dense(batch.inputs))
        seen += batch.size
    assert (teacher.samples, teacher.shared) == (seen, 0)
    assert seen == 120
