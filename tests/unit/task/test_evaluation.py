"""A function of the user's as the whole evaluation of a task."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigurationError, TaskError
from autoprune.measure.quality import evaluate, quality_alone
from autoprune.study.rungs import rung_split
from autoprune.study.study import Study
from autoprune.task.evaluation import Evaluation
from autoprune.task.prepare import PreparedTask, prepare
from autoprune.task.task import Task
from tests.tasks import blobs, image_task
from tests.unit.study.small import settings, space

SEARCH, TEST = blobs(100, seed=1), blobs(80, seed=2)


@torch.no_grad()
def right(model: nn.Module, data: tuple[Tensor, Tensor] = SEARCH) -> dict[str, object]:
    """Accuracy in two batches, and the mean of the largest scores."""
    outputs = torch.cat([model(part) for part in data[0].split(60)])
    return {"quality": (outputs.argmax(1) == data[1]).float().mean(), "largest": float(outputs.amax(1).mean())}


def evaluated_task(**changes: object) -> PreparedTask:
    given = {"metrics": (), "quality": "quality", "test": None, "evaluate": right}
    return image_task(**{**given, **changes})


def faults_of(**changes: object) -> str:
    with pytest.raises(TaskError) as caught:
        evaluated_task(**changes)
    return "\n".join(caught.value.faults)


def test_the_function_evaluates() -> None:
    task = evaluated_task()
    split = task.search_split
    assert isinstance(split, Evaluation)
    assert task.test_split is None
    assert task.train_split.samples == 600, "nothing is carved"
    found = evaluate(task, task.dense, split)
    wanted = right(task.dense)
    assert found.metrics == pytest.approx({name: float(value) for name, value in wanted.items()})  # type: ignore[arg-type]
    assert (found.value, found.error, found.samples) == (found.metrics["quality"], 0.0, 100)
    assert quality_alone(task, task.dense, split) == (found.value, 100)
    assert rung_split(task, 10) is split
    assert dict(task.directions) == {"quality": True, "largest": None}
    assert task.higher_is_better
    said = "4 classes, logits; quality, largest (higher quality is better) by evaluate(model)"
    assert task.summary() == f"{said}; no test numbers without evaluate_test"


def test_name_and_direction_of_the_quality() -> None:
    task = evaluated_task(quality="largest", directions={"largest": False, "quality": True})
    assert not task.higher_is_better
    assert evaluate(task, task.dense, task.search_split).value == right(task.dense)["largest"]


def test_test_data_have_a_function_of_their_own() -> None:
    task = evaluated_task(evaluate_test=lambda model: right(model, TEST))
    assert task.test_split is not None
    found = evaluate(task, task.dense, task.test_split)
    assert found.samples == 80
    assert "evaluate_test" not in task.summary()


def test_the_model_is_a_copy_in_eval_mode_and_draws_repeat() -> None:
    seen: list[tuple[bool, bool, float]] = []

    def spoil(model: nn.Module) -> dict[str, float]:
        seen.append((model.training, torch.is_grad_enabled(), random.random() + float(np.random.rand())))
        for parameter in model.parameters():
            parameter.data.zero_()
        model.train()
        return {"quality": float(torch.rand(()))}

    task = evaluated_task(evaluate=spoil)
    task.dense.train()
    before, state = copy.deepcopy(task.dense.state_dict()), torch.random.get_rng_state()
    values = {evaluate(task, task.dense, task.search_split).value for _ in range(3)}
    assert len(values) == len(set(seen)) == 1
    assert seen[0][:2] == (False, False)
    assert task.dense.training
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in task.dense.state_dict().items())


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "evaluate must return a dict name -> number with 'quality', but got NoneType"),
        (0.5, "evaluate must return a dict name -> number with 'quality', but got float"),
        ({}, "evaluate must return 'quality', but got no numbers"),
        ({"accuracy": 0.5}, "evaluate must return 'quality', but got accuracy. quality=... names the number"),
        ({"quality": float("nan")}, "'quality' of evaluate must be finite, but got nan"),
        ({"quality": 1.0, "other": torch.tensor(float("inf"))}, "'other' of evaluate must be finite, but got inf"),
        ({"quality": torch.zeros(3)}, "'quality' of evaluate must give one number, but got a tensor of shape (3,)"),
        ({"quality": "good"}, "'quality' of evaluate must give one number, but got str"),
        ({"quality": 1.0, 3: 1.0}, "a name that evaluate returns must be printable text"),
        ({"quality": 1.0, "latency_ms[b32]": 1.0}, "a name that evaluate returns must be no cost"),
    ],
)
def test_results_that_are_no_numbers(result: object, message: str) -> None:
    assert message in faults_of(evaluate=lambda model: result)


def test_other_faults() -> None:
    assert "evaluate must run, but got ZeroDivisionError" in faults_of(evaluate=lambda model: 1 / 0)
    assert "evaluate must be a function (model), but got" in faults_of(evaluate=0.5)
    assert "evaluate must be a function (model)" in faults_of(evaluate=lambda model, data: {})
    assert "evaluate_test must be a function (model)" in faults_of(evaluate_test=dict)
    assert "metrics must be left out beside evaluate" in faults_of(metrics=("accuracy",))
    assert "search must be left out beside evaluate" in faults_of(search=SEARCH)
    assert "Read the data in evaluate_test" in faults_of(test=TEST)
    assert "a metric in directions" in faults_of(directions={"acuracy": True})
    assert "Or give evaluate=..." in faults_of(evaluate=None)
    assert "evaluate_test must come beside evaluate" in faults_of(
        evaluate=None, metrics=("accuracy",), quality="accuracy", evaluate_test=right
    )


def test_names_stay_the_same() -> None:
    names = iter(("a", "b"))
    task = evaluated_task(evaluate=lambda model: {"quality": 1.0, next(names): 2.0})
    with pytest.raises(ConfigurationError, match=r"evaluate must return the same names each time \(quality, a\)"):
        evaluate(task, task.dense, task.search_split)


def test_a_task_without_tensors_for_metrics() -> None:
    """Outputs and targets of any kind are fine, as only the loss and the function read them."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"scores": self.layer(x)}

    x = torch.randn(40, 3)
    task = prepare(
        Task(
            model=Named(),
            example_inputs=x[:2],
            train=[(part, {"label": part[:, 0] > 0}) for part in x.split(10)],
            loss=lambda outputs, targets: nn.functional.cross_entropy(outputs["scores"], targets["label"].long()),
            evaluate=lambda model: {"quality": float(model(x)["scores"].mean())},
        )
    )
    assert task.prediction.kind == "regression"
    assert evaluate(task, task.dense, task.search_split).samples == 40


def test_a_study_with_rungs_distillation_and_a_scan(tmp_path: Path) -> None:
    calls: list[str] = []

    def on_search(model: nn.Module) -> dict[str, object]:
        calls.append("search")
        return right(model)

    def on_test(model: nn.Module) -> dict[str, object]:
        calls.append("test")
        return right(model, TEST)

    task = evaluated_task(evaluate=on_search, evaluate_test=on_test)
    brief = settings(trials=3, early_stopping="audit", space=space(distillation=(0.9,)))
    study = Study.create(task, brief, out=tmp_path / "run")
    front = study.run()
    assert calls.index("test") == calls.count("search"), "the test function is called after the search"
    table = front.table()
    assert {"search_quality", "test_quality"} <= set(table)
    assert all(set(record.search.metrics) == {"quality", "largest"} for record in study.records)
    assert any(record.rungs for record in study.records)
    dense = study.records[0]
    assert dense.search.quality == float(right(task.dense)["quality"])  # type: ignore[arg-type]
    assert dense.samples_forward >= 100


def test_a_trial_in_which_the_function_fails_is_a_failed_trial(tmp_path: Path) -> None:
    def narrow_fails(model: nn.Module) -> dict[str, object]:
        whole = sum(parameter.numel() for parameter in model.parameters())
        return {"quality": float("nan") if whole < dense_size else 0.5}

    dense_size = sum(parameter.numel() for parameter in image_task().dense.parameters())
    study = Study.create(evaluated_task(evaluate=narrow_fails), settings(trials=2), out=tmp_path / "run")
    with pytest.raises(Exception, match="must be finite, but got nan"):
        study.run()
    assert [record.number for record in study.records] == [0]
