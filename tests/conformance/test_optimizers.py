"""Every optimizer that a plan may name: it learns, repeats itself, decays weights alone and respects what is frozen."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import RecoveryError
from autoprune.plan.recovery import OPTIMIZERS, RecoveryPlan
from autoprune.records.work import Work
from autoprune.recovery.fine_tune import fine_tune
from autoprune.task.data import first_batches
from tests.tasks import image_task
from tests.zoo.convolutional import ResNet

RATES = {"sgd": 0.05, "adamw": 0.01}


@functools.cache
def task() -> autoprune.PreparedTask:
    return image_task()


def fresh() -> nn.Module:
    torch.manual_seed(7)
    return ResNet(widths=(6, 8, 12), depth=1, classes=4).eval()


@torch.no_grad()
def loss_of(model: nn.Module) -> float:
    (batch,) = first_batches(task().train_split, 50)
    return float(task().loss(model(batch.inputs), batch.targets))


def plan(optimizer: str, steps: int, weight_decay: float = 5e-4, factor: float = 1.0) -> RecoveryPlan:
    return RecoveryPlan(
        steps=steps, optimizer=optimizer, learning_rate=RATES[optimizer] * factor, weight_decay=weight_decay
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_learns(optimizer: str) -> None:
    model = fresh()
    before = loss_of(model)
    assert fine_tune(model, task(), plan(optimizer, 20), seed=0) == Work(trained=1000)
    assert loss_of(model) < 0.9 * before


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_repeats_itself(optimizer: str) -> None:
    runs = []
    for _ in range(2):
        model = fresh()
        fine_tune(model, task(), plan(optimizer, 5), seed=0)
        runs.append(copy.deepcopy(model.state_dict()))
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_parameters_stay(optimizer: str) -> None:
    model = fresh()
    model.stem.requires_grad_(False)
    before = [parameter.clone() for parameter in model.stem.parameters()]
    fine_tune(model, task(), plan(optimizer, 5, weight_decay=0.1), seed=0)
    assert all(torch.equal(a, b) for a, b in zip(before, model.stem.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_only_weights_decay(optimizer: str) -> None:
    flat = image_task(loss=lambda outputs, targets: (outputs * 0).sum() + 1.0)
    model = fresh()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    fine_tune(model, flat, plan(optimizer, 3, weight_decay=0.1), seed=0)
    for name, parameter in model.named_parameters():
        assert bool((parameter < 1).all()) == (parameter.ndim > 1), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_model_of_biases_alone_can_be_trained(optimizer: str) -> None:
    """One of the two parameter groups, with and without decay, is empty then."""
    for trained in (True, False):
        model = fresh()
        for parameter in model.parameters():
            parameter.requires_grad_((parameter.ndim > 1) == trained)
        assert fine_tune(model, task(), plan(optimizer, 2), seed=0).trained == 100


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_steps(optimizer: str) -> None:
    model = fresh()
    before = copy.deepcopy(model.state_dict())
    assert fine_tune(model, task(), plan(optimizer, 0), seed=0) == Work()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_divergence_is_a_recovery_error(optimizer: str) -> None:
    with pytest.raises(RecoveryError, match="the loss must stay finite"):
        fine_tune(fresh(), task(), plan(optimizer, 20, factor=1e25), seed=0)
