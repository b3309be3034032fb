"""Exported files give back the model that was measured, from its definition alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import ConfigurationError, NotFoundError, StorageError
from autoprune.export.safetensors import ARCHITECTURE_VERSION, export_safetensors
from tests.tasks import blobs, image_task
from tests.unit.study.small import settings
from tests.zoo.convolutional import ResNet, mlp

EXAMPLE = blobs()[0][:4]


def untrained() -> nn.Module:
    """The definition that was pruned, with other weights."""
    torch.manual_seed(123)
    return ResNet(widths=(8, 12, 16), depth=1, classes=4)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    study = autoprune.Study.create(image_task(), settings(), out=tmp_path_factory.mktemp("study") / "run")
    study.run()
    return study


def exported(study: autoprune.Study, number: int, folder: Path) -> Path:
    looked = autoprune.Study.open(study.folder.path)
    to, architecture = export_safetensors(looked.folder, looked.front().get(number), folder / "deep" / "m.safetensors")
    assert architecture == folder / "deep" / "m.json"
    return to


def test_a_fresh_definition_gives_bit_identical_outputs(study: autoprune.Study, tmp_path: Path) -> None:
    inputs = blobs(60, seed=9)[0]
    for record in study.records:
        path = exported(study, record.number, tmp_path / str(record.number))
        model = autoprune.load_safetensors(untrained(), EXAMPLE, path)
        assert not model.training
        with torch.no_grad():
            assert torch.equal(model(inputs), study.rebuild(record.number)(inputs))
        assert sum(parameter.numel() for parameter in model.parameters()) == record.search.parameters


def test_the_definition_that_is_passed_stays_as_it_was(study: autoprune.Study, tmp_path: Path) -> None:
    dense = untrained().train()
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    autoprune.load_safetensors(dense, EXAMPLE, exported(study, 3, tmp_path))
    assert dense.training
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())


def test_the_architecture_says_what_it_is(study: autoprune.Study, tmp_path: Path) -> None:
    data = json.loads(exported(study, 3, tmp_path).with_suffix(".json").read_text())
    record = study.front().get(3)
    assert (data["version"], data["candidate"], data["study"]) == (ARCHITECTURE_VERSION, 3, study.name)
    assert {name: tuple(indices) for name, indices in data["kept"].items()} == record.kept
    assert autoprune.PruningPlan.from_dict(data["plan"]) == record.plan
    assert data["search"]["quality"] == record.search.quality


@pytest.mark.parametrize(
    "build",
    [lambda: ResNet(widths=(8, 12, 24), depth=1, classes=4), lambda: ResNet(widths=(8, 12, 16), depth=2, classes=4)],
    ids=["wider", "deeper"],
)
def test_another_definition_is_refused(build: type[nn.Module], study: autoprune.Study, tmp_path: Path) -> None:
    path = exported(study, 3, tmp_path)
    with pytest.raises(ConfigurationError, match="the dense model must be the definition that was pruned"):
        autoprune.load_safetensors(build(), EXAMPLE, path)


def test_a_definition_of_another_kind_is_refused(study: autoprune.Study, tmp_path: Path) -> None:
    path = exported(study, 3, tmp_path)
    flat = nn.Sequential(nn.Flatten(), mlp(64, 4))
    with pytest.raises(ConfigurationError, match="the dense model must be the definition that was pruned"):
        autoprune.load_safetensors(flat, EXAMPLE, path)


def test_both_files_are_needed(study: autoprune.Study, tmp_path: Path) -> None:
    path = exported(study, 3, tmp_path)
    path.with_suffix(".json").unlink()
    with pytest.raises(NotFoundError, match=r"a \.json beside it, but got no .*m\.json"):
        autoprune.load_safetensors(untrained(), EXAMPLE, path)
    with pytest.raises(NotFoundError, match=r"no .*nothing\.safetensors"):
        autoprune.load_safetensors(untrained(), EXAMPLE, tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kept": 3, "structure": "x"}', '{"kept": {"a": [0.5]}}'])
def test_an_architecture_that_is_none(text: str, study: autoprune.Study, tmp_path: Path) -> None:
    path = exported(study, 3, tmp_path)
    path.with_suffix(".json").write_text(text)
    with pytest.raises(StorageError, match="hold an architecture"):
        autoprune.load_safetensors(untrained(), EXAMPLE, path)


def test_an_architecture_of_a_later_version_is_refused(study: autoprune.Study, tmp_path: Path) -> None:
    path = exported(study, 3, tmp_path)
    architecture = path.with_suffix(".json")
    architecture.write_text(json.dumps(json.loads(architecture.read_text()) | {"version": 99}))
    with pytest.raises(StorageError, match="version"):
        autoprune.load_safetensors(untrained(), EXAMPLE, path)


def test_weights_that_are_torn(study: autoprune.Study, tmp_path: Path) -> None:
    """A copy that was cut off is said to be one, not answered by an error of another library."""
    path = exported(study, 3, tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StorageError, match=r"m\.safetensors"):
        autoprune.load_safetensors(untrained(), EXAMPLE, path)


def test_another_ending_is_refused(study: autoprune.Study, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--to must end in \.safetensors, but got"):
        export_safetensors(study.folder, study.front().get(3), tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_gone(study: autoprune.Study, tmp_path: Path) -> None:
    other = autoprune.Study.create(image_task(), settings(trials=2), out=tmp_path / "run")
    other.run()
    other.folder.weights(1).unlink()
    with pytest.raises(NotFoundError, match="the candidate's weights must lie in the run folder"):
        export_safetensors(other.folder, other.front().get(1), tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()
