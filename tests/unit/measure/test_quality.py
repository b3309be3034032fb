"""Quality is the metric itself, and its standard error that of an average over samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.measure.quality import evaluate, quality_alone
from autoprune.task.data import IterableSplit, TensorSplit
from tests.tasks import image_task, trained_resnet


def coin(share: float, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Scores that are right with probability `share`, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(2, (samples,), generator=generator)
    right = torch.rand(samples, generator=generator) < share
    answers = torch.where(right, targets, 1 - targets)
    return nn.functional.one_hot(answers, 2).float(), targets


def coin_task(batch_size: int = 50, **changes: object) -> autoprune.Task:
    return image_task(
        model=nn.Identity(),
        example_inputs=torch.zeros(2, 2),
        train=coin(0.7, 100, 0),
        test=None,
        batch_size=batch_size,
        metrics=("accuracy", "error", "f1"),
        require_trained=False,
        **changes,
    )


def test_quality_is_the_metric_computed_directly() -> None:
    task = image_task()
    assert task.test_split is not None
    with torch.no_grad():
        batches = list(task.test_split.ordered())
        answers = torch.cat([task.dense(batch.inputs).argmax(1) for batch in batches])
    targets = torch.cat([batch.targets for batch in batches])
    found = evaluate(task, task.dense, task.test_split)
    assert found.value == pytest.approx(float((answers == targets).float().mean()))
    assert found.metrics["accuracy"] == found.value
    recalls = [float((answers[targets == c] == c).float().mean()) for c in range(4)]
    assert found.metrics["recall"] == pytest.approx(sum(recalls) / 4)
    assert found.samples == 200


def test_the_standard_error_is_that_of_a_share() -> None:
    """Averaged over many data sets, its square is the binomial variance p (1 - p) / n."""
    task = coin_task(batch_size=64)
    squares, values = [], []
    for seed in range(60):
        split = TensorSplit(*coin(0.8, 400, seed + 1), batch_size=64)
        found = evaluate(task, task.dense, split)
        squares.append(found.error**2)
        values.append(found.value)
    wanted = 0.8 * 0.2 / 400
    # 60 estimates of 9 degrees of freedom each: their mean is within 6 % (one sigma) of the truth.
    assert sum(squares) / 60 == pytest.approx(wanted, rel=0.2)
    mean = sum(values) / 60
    spread = sum((value - mean) ** 2 for value in values) / 59
    assert sum(squares) / 60 == pytest.approx(spread, rel=0.5), "it says how much the quality really varies"


@pytest.mark.parametrize("batch_size", [1, 7, 10, 64, 400])
def test_batches_change_neither_value_nor_error(batch_size: int) -> None:
    task = coin_task()
    data = coin(0.8, 401, 3)
    whole = evaluate(task, task.dense, TensorSplit(*data, batch_size=401))
    parts = evaluate(task, task.dense, TensorSplit(*data, batch_size=batch_size))
    assert parts.value == pytest.approx(whole.value)
    assert parts.error == pytest.approx(whole.error)
    assert parts.samples == whole.samples == 401


def test_the_error_of_a_perfect_model_is_zero() -> None:
    task = coin_task()
    found = evaluate(task, task.dense, TensorSplit(*coin(1.0, 100, 0), batch_size=30))
    assert (found.value, found.error) == (1.0, 0.0)


def test_one_sample_has_no_error() -> None:
    task = coin_task()
    assert evaluate(task, task.dense, TensorSplit(*coin(1.0, 1, 0), batch_size=30)).error == 0.0


def test_fewer_samples_than_folds() -> None:
    task = coin_task()
    found = evaluate(task, task.dense, TensorSplit(*coin(0.5, 7, 0), batch_size=3))
    assert math.isfinite(found.error)
    values = [float(a.argmax() == b) for a, b in zip(*coin(0.5, 7, 0), strict=True)]
    mean = sum(values) / 7
    assert found.error == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / 6 / 7))


def test_the_error_of_a_regression() -> None:
    task = image_task(
        model=nn.Identity(),
        example_inputs=torch.zeros(2, 1),
        train=(torch.randn(100, 1), torch.randn(100, 1)),
        test=None,
        loss=nn.functional.mse_loss,
        metrics=("mse", "mae"),
        quality="mse",
        require_trained=False,
    )
    predictions, targets = torch.randn(500, 1), torch.randn(500, 1)
    found = evaluate(task, task.dense, TensorSplit(predictions, targets, batch_size=60))
    squared = (predictions - targets).square()
    assert found.value == pytest.approx(float(squared.mean()), rel=1e-4)
    # Ten folds: the estimate is within a factor of two of the plain formula.
    assert 0.5 < found.error / float(squared.std() / 500**0.5) < 2


def test_batches_from_an_iterable() -> None:
    task = coin_task()
    scores, targets = coin(0.8, 90, 3)
    pairs = [(scores[start : start + 25], targets[start : start + 25]) for start in range(0, 90, 25)]
    found = evaluate(task, task.dense, IterableSplit(pairs))
    whole = evaluate(task, task.dense, TensorSplit(scores, targets, batch_size=90))
    assert (found.value, found.error) == (pytest.approx(whole.value), pytest.approx(whole.error))


@pytest.mark.parametrize("training", [True, False])
def test_modes_and_statistics_stay(training: bool) -> None:
    import copy

    task = image_task()
    model = copy.deepcopy(trained_resnet()).train(training)
    model.stem[1].train(not training)
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    evaluate(task, model, task.search_split)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training == training
    assert [module.training for module in model.modules()] == modes


def test_the_tasks_own_metrics_are_not_fed() -> None:
    task = image_task()
    evaluate(task, task.dense, task.search_split)
    assert not any(metric.update_called for metric in task.metric_set.values())
    first = evaluate(task, task.dense, task.search_split)
    assert first == evaluate(task, task.dense, task.search_split)


@pytest.mark.parametrize("quality", ["accuracy", "recall"])
def test_the_quality_alone_is_that_of_all_metrics(quality: str) -> None:
    task = image_task(quality=quality)
    model = trained_resnet()
    found = evaluate(task, model, task.search_split)
    assert quality_alone(task, model, task.search_split) == (found.value, found.samples)
    assert not model.training
