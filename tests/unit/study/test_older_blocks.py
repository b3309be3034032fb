"""Studies that began when fewer blocks were found: they go on with the choices that they have, or say why not."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import AutopruneWarning, StudyConflictError
from autoprune.structure.topology import Topology
from autoprune.task.data import Inputs
from autoprune.trial import context as trial_context
from tests.slow import slow
from tests.tasks import image_task
from tests.unit.study.small import comparable, journal_trials, settings, space

LAYERS = ("layers.0", "layers.1")
HALVES = tuple(f"{layer}.{half}" for layer in LAYERS for half in ("mixer", "mlp"))


class Layer(nn.Module):
    """Two additions: whole it is a block, and each half is one."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12))
        self.mlp = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(x)
        return x + self.mlp(x)


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp, self.out = nn.Linear(64, 12), nn.Linear(12, 4)
        self.layers = nn.ModuleList(Layer() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x.flatten(1))
        for layer in self.layers:
            x = layer(x)
        made: Tensor = self.out(x)
        return made


@functools.cache
def task() -> autoprune.PreparedTask:
    torch.manual_seed(0)
    return image_task(model=Mixer().eval(), require_trained=False)


def chosen(criteria: tuple[str, ...] = ()) -> autoprune.StudySettings:
    choices = space(steps=1, kinds=("channels", "blocks"), block_criteria=criteria)
    return settings(trials=6, uniform_points=1, seed=3, space=choices)


@pytest.fixture
def finding(monkeypatch: pytest.MonkeyPatch) -> Callable[[Collection[str]], None]:
    """From now on only blocks of these names are found."""
    return finder(monkeypatch)


def finder(patch: pytest.MonkeyPatch) -> Callable[[Collection[str]], None]:
    discover = trial_context.discover_structure

    def find(names: Collection[str]) -> None:
        def found(model: nn.Module, inputs: Inputs) -> Topology:
            topology = discover(model, inputs)
            return replace(topology, blocks=tuple(block for block in topology.blocks if block.name in names))

        patch.setattr(trial_context, "discover_structure", found)

    return find


def began(out: Path, trials: int, criteria: tuple[str, ...] = ()) -> autoprune.Study:
    """A study as an earlier version wrote it: it knew of a block its name and what goes with it."""
    study = autoprune.Study.create(task(), chosen(criteria), out=out)
    study.run(trials=trials)
    path = out / "study.json"
    stored = json.loads(path.read_text())
    stored["blocks"] = [
        {name: value for name, value in row.items() if name not in ("kind", "chosen")} for row in stored["blocks"]
    ]
    path.write_text(json.dumps(stored))
    return study


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two trials of a study with whole layers, to be copied."""
    out = tmp_path_factory.mktemp("begun") / "old"
    with pytest.MonkeyPatch.context() as patch:
        finder(patch)(LAYERS)
        began(out, 2)
    return out


@pytest.mark.parametrize("criteria", [(), slow(("l2",))], ids=["each", "by number"])
def test_a_study_goes_on_with_the_blocks_that_it_began_with(
    criteria: tuple[str, ...], finding: Callable[[Collection[str]], None], tmp_path: Path
) -> None:
    """Whole layers were found once, and now their halves are, too: the other trials are what they would have been."""
    finding(LAYERS)
    began(tmp_path / "old", 4, criteria)
    whole = began(tmp_path / "whole", 6, criteria)
    finding((*LAYERS, *HALVES))
    with pytest.warns(AutopruneWarning, match=r"Since then layers.0.mixer, layers.0.mlp and 2 more can go, too"):
        study = autoprune.Study.create(task(), chosen(criteria), out=tmp_path / "old")
    study.run()
    parts, expected = comparable(study.records), comparable(whole.records)
    for row in (*parts, *expected):
        del row["test"]  # at the stop the front was measured as well
    assert parts == expected
    assert {name for record in study.records for name in record.dropped} == set(LAYERS), "or nothing is shown here"
    parameters = {name for trial in journal_trials(tmp_path / "old") for name in trial.params}
    depth = {"blocks"} if criteria else {f"drop/{layer}" for layer in LAYERS}
    assert {name for name in parameters if name.partition("/")[0] in ("drop", "blocks")} == depth
    with pytest.warns(AutopruneWarning, match="Since then"):
        again = autoprune.Study.open(tmp_path / "old", task())
    number = next(record.number for record in again.records if record.dropped)
    assert again.rebuild(number) is not None


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(HALVES, id="what it began with is gone"),
        pytest.param((LAYERS[0], *HALVES), id="one is gone"),
    ],
)
def test_a_study_whose_blocks_are_not_found_any_more_is_refused(
    now: Collection[str], finding: Callable[[Collection[str]], None], begun: Path, tmp_path: Path
) -> None:
    shutil.copytree(begun, tmp_path / "old")
    finding(now)
    before = (tmp_path / "old" / "study.json").read_bytes()
    with (
        pytest.warns(AutopruneWarning, match="Since then"),
        pytest.raises(StudyConflictError, match=r"another one \(other blocks\)"),
    ):
        autoprune.Study.create(task(), chosen(), out=tmp_path / "old")
    assert (tmp_path / "old" / "study.json").read_bytes() == before
    assert len(autoprune.Study.open(tmp_path / "old").records) == 2, "it can still be looked at"


def test_a_study_that_chose_both_a_layer_and_its_halves_is_refused(
    finding: Callable[[Collection[str]], None], tmp_path: Path
) -> None:
    """Each nested block was a choice of its own: now a layer that is nothing but its halves is none."""
    finding((*LAYERS, *HALVES))
    began(tmp_path / "old", 1)
    with pytest.raises(StudyConflictError, match=r"another one \(other blocks\)"):
        autoprune.Study.open(tmp_path / "old", task())


def test_a_block_of_the_same_name_that_holds_more_is_another_block(
    finding: Callable[[Collection[str]], None], begun: Path, tmp_path: Path
) -> None:
    finding(LAYERS)
    shutil.copytree(begun, tmp_path / "old")
    path = tmp_path / "old" / "study.json"
    stored = json.loads(path.read_text())
    stored["blocks"][1]["parameters_saved"] *= 0.99
    path.write_text(json.dumps(stored))
    with pytest.raises(StudyConflictError, match=r"another one \(other blocks\)"):
        autoprune.Study.open(tmp_path / "old", task())


def test_a_study_of_now_knows_its_choices(finding: Callable[[Collection[str]], None], tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), chosen(), out=tmp_path / "run")
    rows = {row.name: row.chosen for row in study.folder.read_study().blocks}
    assert rows == {**dict.fromkeys(LAYERS, False), **dict.fromkeys(HALVES, True)}
    autoprune.Study.open(tmp_path / "run", task())
