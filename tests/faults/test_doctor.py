"""`autoprune doctor`: each fault of a real run folder is told, and repaired without losing what is finished."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

import autoprune
from autoprune.cli.app import app
from autoprune.errors import AutopruneError, NotFoundError, StudyConflictError
from autoprune.records.annotations import edit_annotations
from autoprune.records.candidate import CandidateRecord
from autoprune.records.run_folder import RunFolder
from autoprune.search.doctor import examine
from autoprune.search.storage import exclusive
from tests.folders import files
from tests.processes import is_killed
from tests.tasks import flat_task
from tests.unit.study.small import journal_trials, settings


def brief() -> autoprune.StudySettings:
    return settings(trials=5, uniform_points=0, solved_points=3, checkpoint_epochs=1, steps=13)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five candidates, with tests, checkpoints, notes and later latencies."""
    out = tmp_path_factory.mktemp("whole") / "run"
    study = autoprune.Study.create(flat_task(), brief(), out=out)
    study.run()
    edit_annotations(out, lambda found: found.with_note("keep this").with_chosen(2))
    RunFolder(out).write_latencies(2, {})
    assert any(record.parent == 1 for record in study.records)
    return out


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def tear(out: Path, number: int) -> None:
    """Tear a line of the journal."""
    lines = (out / "journal.log").read_bytes().splitlines(keepends=True)
    lines[number] = lines[number][: len(lines[number]) // 2]
    (out / "journal.log").write_bytes(b"".join(lines))


def of_candidate(number: int, name: str) -> Callable[[Path], Path]:
    return lambda out: out / "candidates" / f"{number:05d}" / name


def unlink(name: str, number: int) -> Callable[[Path], None]:
    return lambda out: of_candidate(number, name)(out).unlink()


def partial(out: Path) -> None:
    (out / "candidates" / ".00009.99999999.tmp").mkdir()
    (out / "candidates" / ".00009.99999999.tmp" / "weights.safetensors").write_bytes(b"half")
    (out / ".study.json.99999999.tmp").write_bytes(b"{")


def renumber(out: Path) -> None:
    (out / "candidates" / "00004").rename(out / "candidates" / "00007")


def double(out: Path) -> None:
    shutil.copytree(out / "candidates" / "00004", out / "candidates" / "00007")


def cut_end(out: Path) -> None:
    (out / "journal.log").write_bytes((out / "journal.log").read_bytes()[:-9])


def link_lock(out: Path) -> None:
    """As Optuna's own lock is left by a dashboard that was killed."""
    (out / "journal.log.lock").unlink(missing_ok=True)
    (out / "journal.log.lock").symlink_to(out / "journal.log")


def soft_lock(out: Path) -> None:
    (out / "run.lock").unlink(missing_ok=True)
    (out / "run.lock").mkdir()


def doubled(out: Path) -> None:
    of_candidate(4, "weights.removed")(out).touch()


def spoil(out: Path) -> None:
    path = of_candidate(3, "weights.safetensors")(out)
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x01\x02\x03")


def half_checkpoint(out: Path) -> None:
    next((out / "checkpoints").glob("*/*/weights.safetensors")).unlink()


@dataclass(frozen=True)
class Fault:
    """How a folder is broken, what is said, how many findings there are, and which candidates stay."""

    breaks: Callable[[Path], object]
    place: str
    said: str
    count: int = 1
    stay: tuple[int, ...] = (0, 1, 2, 3, 4)
    reads: bool = True  # whether `front` still reads the folder


FAULTS = {
    "half-written folders and files": Fault(partial, ".tmp", "was never written to its end", 2),
    "weights without a record": Fault(
        unlink("candidate.json", 4), "candidates/00004", "holds weights without a record", 1, (0, 1, 2, 3), reads=False
    ),
    "half a record": Fault(
        lambda out: half(of_candidate(4, "candidate.json")(out)),
        "00004",
        "cannot be read",
        1,
        (0, 1, 2, 3),
        reads=False,
    ),
    "a folder of another number": Fault(renumber, "candidates/00007", "holds candidate 4", reads=False),
    "a number twice": Fault(double, "candidates/00007", "another number 00004", 1, reads=False),
    "a journal torn in its last line": Fault(cut_end, "journal.log", "has torn lines (1)"),
    "a lost parent": Fault(
        lambda out: shutil.rmtree(out / "candidates" / "00001"),
        "candidate.json",
        "descends from 1",
        1,
        (0, 2, 3, 4),
        False,
    ),
    "half a test": Fault(
        lambda out: half(of_candidate(0, "test.json")(out)), "test.json", "cannot be read", reads=False
    ),
    "half the latencies": Fault(
        lambda out: half(of_candidate(2, "latencies.json")(out)), "latencies.json", "cannot be"
    ),
    "spoiled weights": Fault(spoil, "00003/weights.safetensors", "are not the weights that weights.sha256 tells"),
    "weights that were to go": Fault(doubled, "00004/weights.safetensors", "were to be deleted"),
    "half a checkpoint": Fault(half_checkpoint, "checkpoints/", "holds checkpoint.json alone"),
    "a journal torn in the middle": Fault(lambda out: tear(out, 2), "journal.log", "torn lines"),
    "a journal torn at a value": Fault(lambda out: tear(out, -2), "journal.log", "torn lines"),
    "a journal torn at its end": Fault(lambda out: half(out / "journal.log"), "journal.log", "torn lines"),
    "an empty journal": Fault(lambda out: (out / "journal.log").write_bytes(b""), "journal.log", "does not fit"),
    "half the notes": Fault(
        lambda out: half(out / "annotations.json"), "annotations.json", "cannot be read", reads=False
    ),
    "half the scan": Fault(lambda out: half(out / "sensitivity.json"), "sensitivity.json", "cannot be read"),
    "half the structure": Fault(lambda out: half(out / "topology.json"), "topology.json", "cannot be read"),
    "half the ending": Fault(lambda out: half(out / "ending.json"), "ending.json", "cannot be read", reads=False),
    "half a device profile": Fault(
        lambda out: (out / "device_profile.json").write_text('{"version": 1'), "device_profile.json", "cannot be read"
    ),
    "a link in place of a lock": Fault(link_lock, "journal.log.lock", "a dead process left"),
    "a folder in place of a lock": Fault(soft_lock, "run.lock", "a dead process left"),
}


def everything(out: Path) -> list[CandidateRecord]:
    """Read all that commands read."""
    run = autoprune.Run.open(out)
    run.front().table()
    read = (run.ending, run.sensitivity(), run.folder.read_topology(), run.folder.read_device_profile())
    assert len(read) == 4
    assert run.annotations.note in ("", "keep this")
    return list(run.records)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_and_repaired(name: str, whole: Path, tmp_path: Path) -> None:
    fault, out = FAULTS[name], tmp_path / "run"
    shutil.copytree(whole, out)
    before = {record.number: record for record in autoprune.Run.open(out).records}
    fault.breaks(out)
    broken = files(out)
    if not fault.reads:
        told = CliRunner().invoke(app, ["front", str(out)])
        assert told.exit_code == 2
        assert "autoprune doctor" in told.output

    seen = examine(out, dry_run=True)
    assert files(out) == broken, "a dry run changes nothing"
    assert len(seen) == fault.count, seen
    assert all(fault.place in one.place and fault.said in one.fault for one in seen), seen

    result = CliRunner().invoke(app, ["doctor", str(out)])
    assert result.exit_code == 0, result.output
    said = "1 fault is repaired" if fault.count == 1 else f"{fault.count} faults are repaired"
    assert said in result.stdout
    assert examine(out) == []
    records = everything(out)
    assert tuple(record.number for record in records) == fault.stay
    for record in records:
        own = before[record.number]
        assert (record.search, record.kept, record.lineage_trained) == (own.search, own.kept, own.lineage_trained)
    # What was there is still there, in its place or aside.
    kept = [data for where, data in files(out).items()]
    assert all(data in kept for where, data in broken.items()), "nothing is deleted"


def test_a_run_goes_on_after_the_doctor(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    for name in ("spoiled weights", "half the scan", "half the structure", "half a test", "a journal torn at a value"):
        FAULTS[name].breaks(out)
    tear(out, 3)
    with pytest.raises(AutopruneError, match="autoprune doctor"):
        autoprune.Study.create(flat_task(), brief(), out=out)
    assert len(examine(out)) == 5
    study = autoprune.Study.create(flat_task(), brief(), out=out)
    study.run(trials=6)
    assert len(study.records) == 6
    told = {trial.number: trial for trial in journal_trials(out) if trial.state.name == "COMPLETE"}
    for record in study.records:
        assert told[record.number].params == record.parameters
    assert examine(out) == []


def test_what_it_cannot_do(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    half(out / "study.json")
    half(of_candidate(4, "candidate.json")(out))
    result = CliRunner().invoke(app, ["doctor", str(out)])
    assert result.exit_code == 1
    assert "nothing can be done" in result.stdout
    assert "1 fault is repaired" in result.stdout
    with pytest.raises(NotFoundError, match=r"hold study\.json"):
        examine(tmp_path)
    assert CliRunner().invoke(app, ["doctor", str(tmp_path / "nowhere")]).exit_code == 2


def test_a_whole_run_has_no_faults(whole: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", str(whole), "--dry-run"])
    assert result.exit_code == 0
    assert result.stdout == "Nothing is broken.\n"


def test_a_run_that_another_process_runs_is_left_alone(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    half(out / "ending.json")
    with exclusive(out), pytest.raises(StudyConflictError, match="one process at a time"):
        examine(out)

    def die() -> None:
        with exclusive(out):
            os.kill(os.getpid(), signal.SIGKILL)

    assert is_killed(die)
    assert len(examine(out)) == 1, "the lock of a dead process holds nothing"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("spoiled weights", ["export", "--candidate", "3", "--to", "small.safetensors"]),
        ("half the scan", ["solve", "--budget", "0.5"]),
        ("half a device profile", ["solve", "--budget", "0.5", "--cost", "latency_ms"]),
        ("a journal torn in the middle", ["export-optuna", "--storage", "copy.log"]),
        ("half a record", ["choose"]),
    ],
)
def test_every_command_that_cannot_read_names_the_doctor(
    name: str, command: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, "run")
    FAULTS[name].breaks(tmp_path / "run")
    told = CliRunner().invoke(app, [command[0], "run", *command[1:]])
    assert told.exit_code == 2, told.output
    assert f"Run `autoprune doctor {tmp_path / 'run'}`: it says what is broken" in told.output
