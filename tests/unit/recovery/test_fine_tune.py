"""A brief fine-tune: it learns, it repeats itself, it says when it fails."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import RecoveryError
from autoprune.plan.recovery import DistillationPlan, RecoveryPlan
from autoprune.records.work import Work
from autoprune.recovery.fine_tune import fine_tune
from autoprune.recovery.teacher import Teacher
from autoprune.task.data import first_batches
from tests.tasks import blobs, image_task, trained_mlp, trained_resnet
from tests.zoo.convolutional import ResNet


@functools.cache
def task() -> autoprune.PreparedTask:
    return image_task()


def fresh() -> nn.Module:
    torch.manual_seed(7)
    return ResNet(widths=(8, 12, 16), depth=1, classes=4).eval()


@torch.no_grad()
def loss_of(model: nn.Module) -> float:
    (batch,) = first_batches(task().train_split, 50)
    return float(task().loss(model(batch.inputs), batch.targets))


def state(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(left[key], right[key]) for key in left)


def test_the_loss_falls() -> None:
    model = fresh()
    before = loss_of(model)
    found = fine_tune(model, task(), RecoveryPlan(steps=20), seed=0)
    assert loss_of(model) < 0.8 * before
    assert found == Work(trained=20 * 50)
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters()), "gradients take as much room as weights"


def test_the_seed_alone_decides() -> None:
    runs = []
    for seed, elsewhere in ((0, 1), (0, 2), (1, 1)):
        model = fresh()
        torch.manual_seed(elsewhere)
        fine_tune(model, task(), RecoveryPlan(steps=6), seed=seed)
        runs.append(state(model))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_the_seed_alone_decides_with_dropout_too() -> None:
    """A plan's seed drives every random choice of the trial, the units that dropout drops among them."""
    runs = []
    for elsewhere in (1, 2):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(), nn.ReLU(), nn.Linear(16, 4))
        torch.manual_seed(elsewhere)
        before = torch.get_rng_state()
        fine_tune(model, task(), RecoveryPlan(steps=3), seed=0)
        assert torch.equal(before, torch.get_rng_state()), "the caller's random numbers are the caller's"
        runs.append(state(model))
    assert same(*runs)


def test_no_steps_change_nothing_but_the_mode() -> None:
    model = fresh().train()
    before = state(model)
    assert fine_tune(model, task(), RecoveryPlan(steps=0), seed=0) == Work()
    assert same(before, state(model))
    assert not model.training


def test_a_frozen_model_is_not_trained() -> None:
    model = fresh().requires_grad_(False)
    before = state(model)
    assert fine_tune(model, task(), RecoveryPlan(steps=5), seed=0) == Work()
    assert same(before, state(model))


def test_frozen_parameters_stay_frozen() -> None:
    model = fresh()
    frozen = {"stem.0.weight", "blocks.0.bn1.weight", "head.bias"}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    fine_tune(model, task(), RecoveryPlan(steps=5, weight_decay=0.1), seed=0)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    assert changed == before.keys() - frozen
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == frozen


@pytest.mark.parametrize("steps", range(1, 13))
def test_any_number_of_steps(steps: int) -> None:
    assert fine_tune(trained(), task(), RecoveryPlan(steps=steps), seed=0).trained == steps * 50


def trained() -> nn.Module:
    return copy.deepcopy(trained_resnet())


def test_more_steps_than_an_epoch() -> None:
    images, targets = blobs()
    small = image_task(train=(images[:120], targets[:120]), search=(images[120:200], targets[120:200]))
    # Two batches of 50 a pass; the short third one is left out.
    assert fine_tune(trained(), small, RecoveryPlan(steps=5), seed=0).trained == 5 * 50


def test_the_loss_is_blended_with_the_teachers() -> None:
    """One step of plain gradient descent is checked against the formula; a weight of 1 leaves the labels out."""
    model, teacher = fresh(), Teacher(task())
    batch = next(task().train_split.shuffled(0))
    reference = copy.deepcopy(model).train()
    outputs, soft = reference(batch.inputs), task().dense(batch.inputs).detach()
    student, target = torch.log_softmax(outputs / 3, 1), torch.softmax(soft / 3, 1)
    divergence = (target * (target.log() - student)).sum(1).mean() * 9
    blend = 0.7 * nn.functional.cross_entropy(outputs, batch.targets) + 0.3 * divergence
    parameters = dict(reference.named_parameters())
    gradients = dict(zip(parameters, torch.autograd.grad(blend, list(parameters.values())), strict=True))
    plan = RecoveryPlan(
        steps=1,
        learning_rate=0.01,
        weight_decay=0.0,
        distillation=DistillationPlan(weight=0.3, temperature=3.0),
    )
    found = fine_tune(model, task(), plan, seed=0, teacher=teacher)
    for name, parameter in model.named_parameters():
        # Nesterov momentum: the first step is 1.9 times the gradient.
        wanted = parameters[name] - 0.01 * 1.9 * gradients[name]
        torch.testing.assert_close(parameter, wanted, rtol=1e-3, atol=1e-5)
    assert found == Work(trained=50, shared=task().train_split.samples)


def test_a_teachers_outputs_are_counted_once() -> None:
    teacher, plan = Teacher(task()), RecoveryPlan(steps=2, distillation=DistillationPlan(weight=0.5))
    first, second = (fine_tune(fresh(), task(), plan, seed=0, teacher=teacher) for _ in range(2))
    assert first == second == Work(trained=100, shared=task().train_split.samples)
    assert (first + second).shared == task().train_split.samples


def test_without_distillation_the_teacher_is_not_asked() -> None:
    teacher = Teacher(task())
    fine_tune(fresh(), task(), RecoveryPlan(steps=2), seed=0, teacher=teacher)
    assert (teacher.samples, teacher.shared) == (0, 0)


def test_a_loss_that_is_not_finite_is_a_recovery_error() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        fine = nn.functional.cross_entropy(outputs, targets)
        # In training the third batch goes wrong.
        if outputs.requires_grad:
            calls.append(1)
        return fine * float("nan") if len(calls) == 3 else fine

    calls: list[int] = []
    broken, model = image_task(loss=loss), fresh()
    calls.clear()  # the task's own check trains one step
    with pytest.raises(RecoveryError, match="the loss must stay finite, but became nan at step 3 of 9"):
        fine_tune(model, broken, RecoveryPlan(steps=9), seed=0)
    assert not model.training
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters()), "the bad step was not taken"


def test_a_rate_that_is_far_too_high_is_a_recovery_error() -> None:
    with pytest.raises(RecoveryError, match="the loss must stay finite"):
        fine_tune(trained(), task(), RecoveryPlan(steps=30, learning_rate=1e12), seed=0)


def test_the_rate_rises_and_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.SGD.step

    def watched(self: torch.optim.SGD, closure: None = None) -> None:
        if len(self.param_groups) > 1:  # the scheduler has an optimizer of its own, with one group
            rates.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    fine_tune(fresh(), task(), RecoveryPlan(steps=20, learning_rate=0.05), seed=0)
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.05)
    assert 3 <= top <= 6, "a quarter of the way"
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.001


def test_norms_and_biases_do_not_decay() -> None:
    """With a loss that has no gradient only weight decay moves anything."""
    flat = image_task(loss=lambda outputs, targets: (outputs * 0).sum() + 1.0)
    model = fresh()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    fine_tune(model, flat, RecoveryPlan(steps=3, weight_decay=0.1), seed=0)
    for name, parameter in model.named_parameters():
        assert bool((parameter < 1).all()) == (parameter.ndim > 1), name


def test_a_multilayer_perceptron_on_flat_inputs() -> None:
    images, targets = blobs()
    flat = image_task(
        model=trained_mlp(), example_inputs=images[:4].flatten(1), train=(images.flatten(1), targets), test=None
    )
    model = copy.deepcopy(trained_mlp())
    fine_tune(model, flat, RecoveryPlan(steps=3), seed=0)
    assert not same(state(model), state(trained_mlp()))


def test_samples_add_up() -> None:
    assert Work(forward=1, trained=2) + Work(forward=10, trained=20) == Work(forward=11, trained=22)
