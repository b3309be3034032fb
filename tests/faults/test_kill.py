"""kill -9 at any moment: what was finished is there, what is there can be read, and the study goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import autoprune
from autoprune.records.candidate import CandidateRecord
from tests.end_to_end.script import Outcome, command, write
from tests.faults.victims import LOSS, MOMENTS, brief, killed_moments
from tests.folders import files
from tests.processes import start
from tests.tasks import flat_task
from tests.unit.study.small import comparable, journal_trials

#: Finished candidates that each moment must leave.
FINISHED = {
    "study-not-yet-named": 0,
    "scan-not-yet-named": 0,
    "training-a-warm-start": 2,
    "training-a-sampled-one": 6,
    "weights-not-yet-named": 3,
    "record-not-yet-named": 3,
    "candidate-not-yet-named": 5,
    "stored-and-not-told": 7,
    "journal-torn": 6,
    "test-not-yet-named": 8,
}


def task() -> autoprune.Task:
    LOSS.armed = False
    return flat_task(loss=LOSS)


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
    study = autoprune.Study.create(task(), brief(), out=tmp_path_factory.mktemp("whole") / "run")
    study.run()
    return study


def everything_loads(out: Path) -> list[CandidateRecord]:
    """Read all that a run folder holds the hard way. Only what nothing needs has lost its weights."""
    study = autoprune.Study.open(out) if (out / "study.json").is_file() else None
    for path in (out / "candidates").glob("[0-9]*") if (out / "candidates").is_dir() else ():
        CandidateRecord.from_json((path / "candidate.json").read_text())
        if not (path / "weights.removed").is_file():
            assert load_file(path / "weights.safetensors")
    for path in out.rglob("*.json"):
        json.loads(path.read_text())
    return list(study.records) if study is not None else []


def test_every_moment_is_checked() -> None:
    assert FINISHED.keys() == MOMENTS.keys()


@pytest.mark.parametrize("moment", FINISHED)
def test_killed_at(moment: str, killed: Path, whole: autoprune.Study) -> None:
    out = killed / moment
    left = everything_loads(out)
    assert len(left) == FINISHED[moment], "what was finished is there, and nothing that was not"
    before = files(out / "candidates") if left else {}

    # The same command again: create, and run.
    study = autoprune.Study.create(task(), brief(), out=out)
    front = study.run()
    assert len(study.records) == 8
    after = files(out / "candidates")
    lost = [name for name, data in before.items() if ".tmp" not in name and after.get(name) != data]
    assert not lost
    assert not [name for name in after if ".tmp" in name], "leftovers are swept"
    assert len(everything_loads(out)) == 8
    assert {record.number for record in front.members} <= {r.number for r in study.records if r.test is not None}
    for record in study.records:
        study.rebuild(record.number)
    told = {trial.number: trial.values for trial in journal_trials(out) if trial.state.name == "COMPLETE"}
    assert told == {r.number: [r.search.quality, r.search.multiply_adds] for r in study.records}
    assert comparable(study.records, renumber=True) == comparable(whole.records, renumber=True)


@dataclass(frozen=True, slots=True)
class Shot:
    """A command that was killed from outside while a trial ran, and a second one that was tried before that."""

    script: Path
    out: Path
    second: Outcome
    finished: dict[str, bytes]


@pytest.fixture(scope="module")
def shot(tmp_path_factory: pytest.TempPathFactory) -> Shot:
    folder = tmp_path_factory.mktemp("shot")
    script, out = write(folder), folder / "out"

    def work() -> None:
        os.environ["SECONDS_A_STEP"] = "0.05"
        command("run", script, "--out", out, "--trials", 200)

    child = start(work)
    try:
        while not (out / "candidates" / "00002").is_dir():
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "it has to be running"
            time.sleep(0.005)
        second = command("run", script, "--out", out, "--trials", 200)
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the first one has to be running still"
        # Its next trial trains for a quarter of a second: this is the middle of it.
        seen = len(list((out / "candidates").glob("[0-9]*")))
        while len(list((out / "candidates").glob("[0-9]*"))) == seen:
            time.sleep(0.005)
        time.sleep(0.05)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return Shot(script=script, out=out, second=second, finished=files(out / "candidates"))


def test_a_second_process_in_the_folder_is_refused(shot: Shot) -> None:
    assert shot.second.code == 2
    assert "the output folder must be run by one process at a time" in shot.second.sentence
    assert str(shot.out) in shot.second.sentence
    assert "Traceback" not in shot.second.text


def test_killed_from_outside_the_command_goes_on(shot: Shot) -> None:
    finished = {name.split("/")[0] for name in shot.finished if not name.startswith(".")}
    assert len(finished) >= 4
    assert len(everything_loads(shot.out)) == len(finished)
    target = len(finished) + 2
    answer = command("run", shot.script, "--out", shot.out, "--trials", target)
    assert answer.code == 0, answer.text
    after = files(shot.out / "candidates")
    assert [name for name, data in shot.finished.items() if not name.startswith(".") and after[name] != data] == []
    study = autoprune.Study.open(shot.out)
    assert len(study.records) == target
    assert finished <= {f"{record.number:05d}" for record in study.records}
    everything_loads(shot.out)
    assert all(torch.isfinite(t).all() for t in load_file(study.folder.weights(study.records[-1].number)).values())
