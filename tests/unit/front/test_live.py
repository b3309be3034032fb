"""A run folder that changes, breaks and comes back while it is looked at."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from autoprune.errors import NotFoundError
from autoprune.front import live
from autoprune.front.live import RunWatcher
from autoprune.front.run import Run
from autoprune.records.candidate import CandidateRecord
from autoprune.records.ending import Ending
from autoprune.records.manifest import Manifest
from autoprune.records.measurement import LaterLatencies
from autoprune.records.run_folder import RunFolder
from tests.unit.front.builders import latency, measurement, record

GROUPS = [{"name": "a", "channels": 4}]


def one(number: int, quality: float = 0.8, **changes: object) -> CandidateRecord:
    parent = None if number == 0 else 0
    given: dict[str, object] = {"kept": {"a": (0, 2)}, "parent": parent, **changes}
    return record(number, measurement(quality, 1000 - number), origin="sampled" if number else "dense", **given)  # type: ignore[arg-type]


def settle(folder: RunFolder, seconds: float = 100.0) -> None:
    """Let the folders of candidates be older than what may have changed within one tick of the clock."""
    for path in folder.path.rglob("*"):
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    described = {"name": "x", "quality": "accuracy", "higher_is_better": True, "groups": GROUPS}
    folder.write_study({**described, "settings": {"objectives": ["quality", "multiply_adds"]}})
    for number in range(3):
        folder.write_candidate(one(number), b"weights")
    settle(folder)
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the candidates that were read from now on."""
    found: list[int] = []
    whole = RunFolder.read_candidate

    def counted(self: RunFolder, number: int) -> CandidateRecord | None:
        found.append(number)
        return whole(self, number)

    monkeypatch.setattr(RunFolder, "read_candidate", counted)
    return found


def test_only_what_is_new_is_read(folder: RunFolder, read: list[int]) -> None:
    watcher = RunWatcher(folder.path)
    assert watcher.run == Run.open(folder.path)
    read.clear()
    assert [watcher.refresh() for _ in range(3)] == [False] * 3
    folder.write_candidate(one(3), b"weights")
    assert watcher.refresh()
    assert ([found.number for found in watcher.run.records], watcher.version, read) == ([0, 1, 2, 3], 1, [3])
    assert watcher.run == Run.open(folder.path)


def removed(folder: RunFolder) -> None:
    folder.remove_weights(1)


def tested(folder: RunFolder) -> None:
    folder.write_test(1, replace(one(1).search, split="test"))


def timed(folder: RunFolder) -> None:
    folder.write_latencies(1, LaterLatencies(latencies={"default": latency(0.5)}).latencies)


def replaced(folder: RunFolder) -> None:
    folder.write_candidate(one(1, quality=0.7), b"weights")


def gone(folder: RunFolder) -> None:
    shutil.rmtree(folder.weights(1).parent)


def noted(folder: RunFolder) -> None:
    Run.open(folder.path).annotate("x", 1)


@pytest.mark.parametrize("change", [removed, tested, timed, replaced, gone, noted])
@pytest.mark.parametrize("young", [False, True])
def test_every_change_is_seen(change: Callable[[RunFolder], None], young: bool, folder: RunFolder) -> None:
    if young:
        settle(folder, -100.0)
    watcher = RunWatcher(folder.path)
    change(folder)
    assert watcher.refresh()
    assert (watcher.run, watcher.annotations) == (Run.open(folder.path), Run.open(folder.path).annotations)
    assert not watcher.refresh()


@pytest.mark.parametrize("change", [removed, replaced])
def test_a_change_within_one_tick_of_the_clock_is_seen(
    change: Callable[[RunFolder], None], folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a young folder says nothing; the inodes of its files do, and all of them are looked at."""
    monkeypatch.setattr(live, "_AT_ONCE", 0)
    settle(folder, -100.0)
    watcher = RunWatcher(folder.path)
    before = folder.weights(1).parent.stat()
    change(folder)
    os.utime(folder.weights(1).parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert watcher.refresh()
    assert watcher.run == Run.open(folder.path)


def test_of_many_candidates_some_are_looked_at_each_time(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_AT_ONCE", 1)
    watcher = RunWatcher(folder.path)
    removed(folder)
    assert sorted(watcher.refresh() for _ in range(3)) == [False, False, True]
    assert watcher.run == Run.open(folder.path)


def test_a_new_candidate_leaves_the_others_to_their_turn_and_an_ending_looks_at_all(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_AT_ONCE", 0)
    watcher = RunWatcher(folder.path)
    removed(folder)
    folder.write_candidate(one(3), b"weights")
    assert watcher.refresh()
    assert [(found.number, found.removed) for found in watcher.run.records] == [(n, False) for n in range(4)]
    folder.write_ending(Ending(reason="trials", done=4, target=4))
    assert watcher.refresh()
    assert watcher.run == Run.open(folder.path)


def vanish(folder: RunFolder) -> None:
    folder.path.rename(folder.path.with_name("away"))


def come_back(folder: RunFolder) -> None:
    folder.path.with_name("away").rename(folder.path)


def half(folder: RunFolder) -> None:
    path = folder.path / "candidates" / "00001" / "candidate.json"
    path.with_name("kept").write_bytes(path.read_bytes())
    path.write_text(path.read_text()[:100])


def mend(folder: RunFolder) -> None:
    path = folder.path / "candidates" / "00001" / "candidate.json"
    path.with_name("kept").rename(path)


def newer(folder: RunFolder) -> None:
    path = folder.path / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))


def older(folder: RunFolder) -> None:
    path = folder.path / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 1}))


@pytest.mark.parametrize(
    ("harm", "heal", "message"),
    [
        (vanish, come_back, "which does not exist"),
        (half, mend, "must be JSON"),
        (newer, older, "version must be 1, but got 99. Upgrade autoprune"),
    ],
)
def test_a_folder_that_breaks_keeps_its_last_state_and_recovers(
    harm: Callable[[RunFolder], None], heal: Callable[[RunFolder], None], message: str, folder: RunFolder
) -> None:
    watcher = RunWatcher(folder.path)
    before = watcher.run
    harm(folder)
    assert watcher.refresh()
    assert message in watcher.trouble
    assert watcher.run is before
    assert not watcher.refresh(), "the same trouble is no news"
    heal(folder)
    assert watcher.refresh()
    assert (watcher.trouble, watcher.run) == ("", Run.open(folder.path))
    assert not watcher.refresh()


def test_a_new_candidate_that_does_not_fit_is_told(folder: RunFolder) -> None:
    watcher = RunWatcher(folder.path)
    folder.write_candidate(one(3, parent=77), b"weights")
    assert watcher.refresh()
    assert "descends from 77, which is not there" in watcher.trouble
    assert len(watcher.run.records) == 3


def test_a_parent_that_goes_is_told(folder: RunFolder) -> None:
    watcher = RunWatcher(folder.path)
    shutil.rmtree(folder.weights(0).parent)
    assert watcher.refresh()
    assert "descends from 0, which is not there" in watcher.trouble


def test_another_study_in_the_same_place_is_read_anew(folder: RunFolder) -> None:
    watcher = RunWatcher(folder.path)
    data = json.loads((folder.path / "study.json").read_text())
    (folder.path / "study.json").write_text(json.dumps(data | {"groups": [{"name": "b", "channels": 4}]}))
    assert watcher.refresh()
    assert "one with other groups" in watcher.trouble
    assert isinstance(watcher.run.manifest, Manifest)


def test_there_must_be_a_study_to_begin_with(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="which does not exist"):
        RunWatcher(tmp_path / "nothing")
