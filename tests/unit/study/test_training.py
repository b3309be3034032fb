"""What trains the candidates: it suits the task, whatever the user's script has switched off."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import autoprune
from autoprune.errors import AutopruneWarning, ConfigurationError, TaskError
from autoprune.search.space.optimizers import describe_training
from tests.settings import space_of
from tests.tasks import blobs, flat_task, image_task, trained_mlp
from tests.unit.study.small import settings, space


def numbers(scale: float) -> autoprune.PreparedTask:
    """A small network trained on numbers of this standard deviation."""
    inputs = blobs()[0].flatten(1)
    targets = inputs[:, :8].sum(1, keepdim=True)
    targets = scale * targets / targets.std()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs[:400]) * scale, targets[:400]).div(scale**2).backward()
        optimizer.step()
    with torch.no_grad():
        model[-1].weight.mul_(scale)  # type: ignore[operator,union-attr]
        model[-1].bias.mul_(scale)  # type: ignore[operator,union-attr]
    return autoprune.prepare(
        autoprune.Task(
            model=model.eval(),
            example_inputs=inputs[:4],
            train=(inputs[:400], targets[:400]),
            search=(inputs[400:], targets[400:]),
            loss=nn.MSELoss(),
            metrics=("r2",),
            quality="r2",
            batch_size=50,
            calibration_samples=50,
        )
    )


@pytest.mark.parametrize("scale", [0.03, 300.0])
def test_fine_tunes_of_numbers_stand_any_unit(scale: float, tmp_path: Path) -> None:
    own = space_of(steps=20, min_budget=0.5)
    two = settings(trials=2, uniform_points=0, space=own)
    study = autoprune.Study.create(numbers(scale), two, out=tmp_path / "run")
    study.run()
    dense, solved = study.records
    assert solved.plan.recovery.optimizer == "adamw"
    assert not solved.note
    assert solved.search.quality > dense.search.quality - 0.3
    assert study.folder.read_study().settings["recovery"]["optimizers"] == ["auto"]  # type: ignore[index]
    assert study.context is not None
    assert "adamw suits a loss in the unit of the targets" in describe_training(
        own, study.context.topology, "regression"
    )


def test_gradients_that_a_script_has_switched_off(tmp_path: Path) -> None:
    with torch.no_grad():
        study = autoprune.Study.create(flat_task(), settings(trials=2, uniform_points=0), out=tmp_path / "run")
        study.run()
        assert not torch.is_grad_enabled()
    assert [record.samples_trained > 0 for record in study.records] == [False, True]


def detached(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs.detach(), targets)


def test_a_loss_without_a_gradient_trains_nothing(tmp_path: Path) -> None:
    task = flat_task(loss=detached)
    with pytest.raises(ConfigurationError, match="the loss must have a gradient for some weight"):
        autoprune.Study.create(task, settings(space=space(criteria=("l2",))), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    untrained = settings(trials=1, space=space(criteria=("l2",), steps=0))
    assert autoprune.Study.create(task, untrained, out=tmp_path / "run").run().members


class WithoutGradients(nn.Module):
    """Switches gradients off itself in eval mode, as some published models do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), copy.deepcopy(trained_mlp()))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 8, 8] -> [N, 4]."""
        with torch.set_grad_enabled(self.training):
            output: Tensor = self.layers(x)
        return output


def test_gradients_in_training_mode_are_enough(tmp_path: Path) -> None:
    own = settings(trials=2, uniform_points=0, space=space(criteria=("l2",)))
    study = autoprune.Study.create(image_task(model=WithoutGradients()), own, out=tmp_path / "run")
    study.run()
    assert study.records[1].samples_trained > 0


def test_a_model_that_is_frozen_all_over_is_told(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), copy.deepcopy(trained_mlp())).requires_grad_(False)
    task = image_task(model=model)
    own = settings(space=space(criteria=("l2",)))
    with pytest.warns(AutopruneWarning, match="Nothing is trained: no parameter"):
        autoprune.Study.create(task, own, out=tmp_path / "run")
    autoprune.Study.create(task, settings(space=space(criteria=("l2",), steps=0)), out=tmp_path / "untrained")


class Gone(Dataset[tuple[Tensor, Tensor]]):
    """Images of which one cannot be read."""

    def __init__(self) -> None:
        self.images, self.targets = blobs(100, seed=1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 70:
            raise OSError("image 70 is gone")
        return self.images[index], self.targets[index]


def test_a_loader_that_fails_is_called_by_its_split() -> None:
    with pytest.raises(TaskError, match=r"^search must run, but got OSError: image 70 is gone"):
        image_task(search=DataLoader(Gone(), batch_size=40))
