"""Plain functions as metrics."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import ConfigurationError, TaskError
from autoprune.measure.quality import evaluate, quality_alone
from autoprune.study.study import Study
from autoprune.task.data import IterableSplit, TensorSplit
from autoprune.task.trained import assert_trained
from tests.tasks import image_task


def f1(outputs: Tensor, targets: Tensor) -> Tensor:
    """Macro F1 of four classes, which is no mean over batches."""
    answers, classes = outputs.argmax(1), torch.arange(4)[:, None]
    hit = ((answers == classes) & (targets == classes)).sum(1)
    return (2 * hit / ((answers == classes).sum(1) + (targets == classes).sum(1))).mean()


def share_right(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(1) == targets).float().mean())


def share_wrong(outputs: Tensor, targets: Tensor) -> float:
    return 1.0 - share_right(outputs, targets)


def faults_of(**changes: object) -> str:
    with pytest.raises(TaskError) as caught:
        image_task(**changes)
    return "\n".join(caught.value.faults)


def test_a_function_is_called_with_the_whole_split() -> None:
    task = image_task(metrics={"mine": f1, "right": share_right}, quality="mine")
    named = image_task(metrics=("f1", "accuracy"), quality="f1")
    assert task.test_split is not None
    assert named.test_split is not None
    found, wanted = evaluate(task, task.dense, task.test_split), evaluate(named, named.dense, named.test_split)
    assert found.metrics == pytest.approx({"mine": wanted.metrics["f1"], "right": wanted.metrics["accuracy"]}, rel=1e-5)
    # Of a function it comes from 20 folds, which tell it to about 16 %.
    assert found.error == pytest.approx(wanted.error, rel=0.3)
    assert found.error > 0
    assert quality_alone(task, task.dense, task.test_split) == (found.value, 200)


@pytest.mark.parametrize("batch_size", [7, 200])
def test_batches_do_not_matter(batch_size: int) -> None:
    task = image_task(metrics=(f1,), quality="f1")
    assert isinstance(task.test_split, TensorSplit)
    whole = evaluate(task, task.dense, task.test_split)
    inputs, targets = task.test_split.inputs, task.test_split.targets
    pairs = list(zip(inputs.split(batch_size), targets.split(batch_size), strict=True))
    parts = evaluate(task, task.dense, IterableSplit(pairs))
    assert (parts.value, parts.error) == pytest.approx((whole.value, whole.error), rel=1e-5)


def test_names_and_functions_side_by_side() -> None:
    task = image_task(metrics=("accuracy", share_right), quality="share_right")
    assert list(task.metric_set) == ["accuracy", "share_right"]
    found = evaluate(task, task.dense, task.search_split)
    assert found.metrics["share_right"] == pytest.approx(found.metrics["accuracy"])
    assert task.summary().startswith("4 classes, logits; accuracy, share_right (higher share_right is better) over")
    assert (
        image_task(metrics=(f1,), quality="f1").summary().endswith("f1 (higher f1 is better) as your own metrics count")
    )


def test_outputs_and_targets_come_as_they_are() -> None:
    """No column is left out, no logit becomes a probability."""
    seen: list[tuple[torch.Size, torch.Size, torch.dtype]] = []

    def error(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append((outputs.shape, targets.shape, targets.dtype))
        return (outputs[:, 0] - targets).abs().mean()

    x = torch.randn(60, 3)
    task = autoprune.prepare(
        autoprune.Task(
            model=nn.Linear(3, 1),
            example_inputs=x[:2],
            train=(x, x[:, 0].double()),
            search=(x + 1, x[:, 0].double()),
            loss=lambda outputs, targets: (outputs[:, 0] - targets).abs().mean(),
            metrics={"error": error},
            quality="error",
            directions={"error": False},
            batch_size=16,
        )
    )
    evaluate(task, task.dense, task.search_split)
    assert (torch.Size([60, 1]), torch.Size([60]), torch.float64) in seen
    assert not task.higher_is_better


def test_a_loss_module_is_a_function_too() -> None:
    task = image_task(
        metrics={"loss": nn.CrossEntropyLoss(weight=torch.ones(4))}, quality="loss", directions={"loss": False}
    )
    assert not task.higher_is_better
    assert not list(task.metric_set["loss"].children())
    with torch.no_grad():
        whole = [(task.dense(b.inputs), b.targets) for b in task.search_split.ordered()]
    wanted = nn.functional.cross_entropy(torch.cat([o for o, _ in whole]), torch.cat([t for _, t in whole]))
    assert evaluate(task, task.dense, task.search_split).value == pytest.approx(float(wanted), rel=1e-5)


def test_the_direction() -> None:
    assert image_task(metrics=(share_right,), quality="share_right").higher_is_better

    def falls(outputs: Tensor, targets: Tensor) -> float:
        return share_wrong(outputs, targets)

    falls.higher_is_better = False  # type: ignore[attr-defined]
    task = image_task(metrics={"wrong": falls, "right": share_right}, quality="wrong")
    assert not task.higher_is_better
    assert dict(task.directions) == {"wrong": False, "right": True}
    assert_trained(task)
    turned = image_task(metrics={"wrong": falls}, quality="wrong", directions={"wrong": True})
    assert turned.higher_is_better


def test_a_forgotten_direction_is_found_before_any_trial(tmp_path: object) -> None:
    task = image_task(metrics=(share_wrong,), quality="share_wrong", require_trained=True)
    with pytest.raises(ConfigurationError, match=r"be better than against shuffled targets.*directions"):
        Study.create(task, out=f"{tmp_path}/run")


@pytest.mark.parametrize(
    "value", [0.5, 1, np.float32(0.5), np.array([0.5]), torch.tensor(0.5), torch.tensor([[0.5]]), torch.tensor(1)]
)
def test_one_number_in_any_form(value: object) -> None:
    task = image_task(metrics={"q": lambda outputs, targets: value}, quality="q")
    assert evaluate(task, task.dense, task.search_split).value == torch.as_tensor(value).item()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda outputs, targets: float("nan"), "metric 'q' must be finite after one batch, but got nan"),
        (lambda outputs, targets: torch.tensor(float("inf")), "metric 'q' must be finite after one batch, but got inf"),
        (lambda outputs, targets: outputs, r"metric 'q' must give one number, but got a tensor of shape \(\d+, 4\)"),
        (lambda outputs, targets: None, "metric 'q' must give one number, but got NoneType"),
        (lambda outputs, targets: "0.5", "metric 'q' must give one number, but got str"),
        (lambda outputs, targets: True, "metric 'q' must give one number, but got bool"),
        (lambda outputs, targets: np.zeros(3), "metric 'q' must give one number, but got ndarray"),
        (lambda outputs, targets: 1 / 0, r"metric 'q' must accept outputs \(50, 4\).*ZeroDivisionError"),
        (lambda outputs: 0.5, r"metric 'q' must be a function \(outputs, targets\), but got .* \(outputs\)"),
        (lambda *, outputs, targets: 0.5, r"metric 'q' must be a function \(outputs, targets\)"),
        (nn.CrossEntropyLoss, "metric 'q' must be a torchmetrics.Metric object or a function.*Call the class"),
    ],
)
def test_functions_that_do_not_fit(function: Callable[..., object], message: str) -> None:
    assert re.search(message, faults_of(metrics={"q": function}, quality="q"))


def test_names_of_functions() -> None:
    assert "have a name, but got a lambda. Name them" in faults_of(metrics=(lambda o, t: 0.5,), quality="q")
    assert "have different names, but got f1, f1" in faults_of(metrics=("f1", f1), quality="f1")
    assert "quality must be one of the metrics f1" in faults_of(metrics=(f1,), quality="f")


def test_directions_that_are_none() -> None:
    assert "directions must be a dict" in faults_of(directions={"accuracy": "up"})
    assert "a metric in directions" in faults_of(directions={"acuracy": True})


def test_a_function_that_needs_all_classes_is_tried_on_all_samples() -> None:
    """Sorted data: the first samples hold one class, of which the function gives no number."""

    def needs_both(outputs: Tensor, targets: Tensor) -> float:
        if len(targets.unique()) < 4:
            raise ValueError("only one class")
        return share_right(outputs, targets)

    train = image_task().train_split
    assert isinstance(train, TensorSplit)
    order = train.targets.argsort(stable=True)
    pair = (train.inputs[order], train.targets[order])
    task = image_task(search=pair, train=(pair[0] + 0.01, pair[1]), metrics=(needs_both,), quality="needs_both")
    found = evaluate(task, task.dense, task.search_split)
    assert 0.5 < found.value <= 1
    assert "only one class" in faults_of(metrics={"q": lambda o, t: needs_both(o[:5], t[:5])}, quality="q")


def test_batches_that_cannot_be_put_together() -> None:
    class PerStep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x)
            return out.movedim(2, 1)

    def pairs(seed: int) -> list[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        return [
            (torch.randn(20, steps, 2, generator=generator), torch.randint(3, (20, steps), generator=generator))
            for steps in (4, 6)
        ]

    with pytest.raises(TaskError, match=r"get outputs of one shape \[N, ...\] in all batches, but got \(3, 4\) and"):
        autoprune.prepare(
            autoprune.Task(
                model=PerStep(),
                example_inputs=torch.zeros(1, 4, 2),
                train=pairs(0),
                search=pairs(1),
                loss=nn.functional.cross_entropy,
                metrics={"q": lambda outputs, targets: float((outputs.argmax(1) == targets).float().mean())},
                quality="q",
            )
        )
