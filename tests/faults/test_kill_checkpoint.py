"""kill -9 around a checkpoint: what is there is whole, and the trial goes on from there as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import autoprune
from autoprune.records.run_folder import RunFolder
from autoprune.study import checkpoints
from tests.faults.checkpoint_victims import MOMENTS, chosen, killed_moments, task
from tests.unit.study.small import comparable
from tests.unit.trial.resuming import optimizer_steps

#: Epochs of the trial that was killed whose checkpoints each moment must leave, of the second that trains.
LEFT = {
    "weights-not-yet-named": [2],
    "record-not-yet-named": [2],
    "checkpoint-not-yet-named": [2],
    "state-not-yet-named": [2],
    "stored": [2, 4],
    "two-states": [2, 4],
    "twice": [2, 4],
    "stored-and-spoilt": [2, 4],
    "while-clearing": [2, 4],
}
#: Step from which the trial then goes on, where that is not the last of these epochs.
GOES_ON = {"stored-and-spoilt": 0, "while-clearing": 0}
#: Optimizer steps of each of the four trials that train.
STEPS = 6


@pytest.fixture(scope="module")
def killed(whole: autoprune.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run folder for each moment, each left by a process that was killed.

    They know the model that the whole study has trained and discovered.
    """
    del whole
    folder = tmp_path_factory.mktemp("killed")
    assert killed_moments(folder) == list(MOMENTS)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    """The same study, never killed."""
    study = autoprune.Study.create(task(), chosen(), out=tmp_path_factory.mktemp("whole") / "run")
    study.run()
    return study


def test_every_moment_is_checked() -> None:
    assert LEFT.keys() == MOMENTS.keys()


@pytest.mark.parametrize("moment", LEFT)
def test_killed_at(moment: str, killed: Path, whole: autoprune.Study) -> None:
    out = killed / moment
    study = autoprune.Study.open(out, task())
    assert [record.number for record in study.records] == [0, 1]
    assert [checkpoint.epoch for checkpoint in study.checkpoints(1)] == [2, 4, 6]
    assert [checkpoint.epoch for checkpoint in study.checkpoints(2)] == LEFT[moment]
    for number in (1, 2):
        for checkpoint in study.checkpoints(number):
            study.rebuild(number, epoch=checkpoint.epoch)

    # The same command again.
    study = autoprune.Study.create(task(), chosen(), out=out)
    with optimizer_steps() as taken:
        study.run()
    assert len(taken) == 3 * STEPS - GOES_ON.get(moment, LEFT[moment][-1])
    assert comparable(study.records) == comparable(whole.records)
    assert not list((out / "checkpoints").rglob(".*")), "leftovers are swept"
    assert not list((out / "checkpoints").rglob("state.*")), "finished trials need no state"
    for record in whole.records:
        epochs = [checkpoint.epoch for checkpoint in whole.checkpoints(record.number)]
        assert [checkpoint.epoch for checkpoint in checkpoints.read(RunFolder(out), record.number)] == epochs
        for epoch in epochs:
            found = [s.rebuild(record.number, epoch=epoch).state_dict().values() for s in (study, whole)]
            assert all(map(torch.equal, *found))
