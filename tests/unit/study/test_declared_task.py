"""A plain task is prepared by whatever takes it, once and before any work starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autoprune
from autoprune.errors import TaskError
from tests.settings import study_of
from tests.tasks import blobs

IMAGES, TARGETS = blobs(120)
INPUTS = IMAGES.flatten(1)
#: Whether it holds anything is not known before it is read.
NOTHING = DataLoader(TensorDataset(INPUTS[:0], TARGETS[:0]))
SETTINGS = study_of(trials=1, latency_rounds=0, objectives=("quality", "parameters"))


class Factory:
    """Builds a small model and counts how often."""

    def __init__(self) -> None:
        self.built = 0

    def __call__(self) -> nn.Module:
        self.built += 1
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 4))


def declared(model: object, **changes: object) -> autoprune.Task:
    arguments: dict[str, object] = {
        "model": model,
        "example_inputs": INPUTS[:2],
        "train": (INPUTS, TARGETS),
        "loss": nn.functional.cross_entropy,
        "metrics": ("accuracy",),
        "quality": "accuracy",
        "require_trained": False,
    }
    return autoprune.Task(**{**arguments, **changes})  # type: ignore[arg-type]


def test_a_study_prepares_its_task_itself(tmp_path: Path) -> None:
    task = declared(Factory())
    study = autoprune.Study.create(task, SETTINGS, out=tmp_path / "run")
    assert study.context is not None
    assert isinstance(study.context.task, autoprune.PreparedTask)
    assert autoprune.Study.open(tmp_path / "run", task).context is not None
    prepared = autoprune.Study.create(autoprune.prepare(task), SETTINGS, out=tmp_path / "run")
    assert prepared.context is not None
    assert prepared.context.structure == study.context.structure


def test_faults_of_a_task_are_told_before_anything_is_written(tmp_path: Path) -> None:
    task = declared(Factory(), train=(INPUTS[:, :5], TARGETS), test=NOTHING)
    with pytest.raises(TaskError) as error:
        autoprune.Study.create(task, SETTINGS, out=tmp_path / "run")
    told = "\n".join(error.value.faults)
    assert "train" in told
    assert "test: a split must hold at least one batch" in told
    assert not (tmp_path / "run").exists()
    for use in (autoprune.explain, lambda faulty: autoprune.repeat(faulty, SETTINGS, 1, out=tmp_path / "run")):
        with pytest.raises(TaskError, match="test: a split must hold at least one batch"):
            use(task)
    assert not (tmp_path / "run").exists()


def test_a_task_that_is_prepared_is_not_prepared_again(tmp_path: Path) -> None:
    factory = Factory()
    prepared = autoprune.prepare(declared(factory))
    autoprune.explain(prepared)
    autoprune.Study.create(prepared, SETTINGS, out=tmp_path / "run")
    assert factory.built == 1


def test_repeated_studies_share_one_prepared_task(tmp_path: Path) -> None:
    factory = Factory()
    autoprune.repeat(declared(factory), replace(SETTINGS, trials=1), 2, out=tmp_path / "runs")
    assert factory.built == 1


def test_explain_tells_the_same_of_a_plain_and_of_a_prepared_task() -> None:
    task = declared(Factory())
    assert autoprune.explain(task) == autoprune.explain(autoprune.prepare(task))
