"""Annotations are kept whole, from several windows, and through a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from autoprune.errors import ConfigurationError, NotFoundError, StorageError
from autoprune.front.run import Run
from autoprune.records import annotations as module
from autoprune.records.annotations import ANNOTATIONS, LOCK, Annotations, edit_annotations, read_annotations
from autoprune.records.run_folder import RunFolder
from tests.processes import is_killed
from tests.unit.front.builders import dense, measurement, record, run_of


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_of(tmp_path, [dense(), record(1, measurement(0.8, 500)), record(2, measurement(0.7, 300))])


def test_what_was_written_is_read_again(run: Run) -> None:
    assert run.annotations == Annotations()
    run.annotate("for the phone\n=1+1 <b>", 2)
    run.annotate("tired of seed 0")
    assert run.mark(2) == run.annotations
    assert run.annotations == Annotations(chosen=2, note="tired of seed 0", notes={2: "for the phone\n=1+1 <b>"})
    run.annotate("", 2)
    assert run.mark(None) == Annotations(note="tired of seed 0")


@pytest.mark.parametrize("number", [7, -1])
def test_only_candidates_that_are_there(number: int, run: Run) -> None:
    for edit in (lambda: run.annotate("x", number), lambda: run.mark(number)):
        with pytest.raises(NotFoundError, match=f"a candidate must be a finished trial, but got {number}, of 3"):
            edit()
    assert not (run.folder.path / ANNOTATIONS).exists()


def test_a_note_of_any_length_is_refused(run: Run) -> None:
    with pytest.raises(ConfigurationError, match="at most 10,000 characters, but got 10,001"):
        run.annotate("x" * 10_001, 1)


def test_edits_at_the_same_time_lose_nothing(run: Run) -> None:
    """Windows of one server are threads, and other processes have locks of their own."""
    barrier = threading.Barrier(3)

    def edit(number: int | None) -> None:
        barrier.wait()
        for count in range(8):
            run.annotate(f"{number} {count}", number)

    windows = [threading.Thread(target=edit, args=(number,)) for number in (None, 1, 2)]
    for window in windows:
        window.start()
    for window in windows:
        window.join()
    assert run.annotations == Annotations(note="None 7", notes={1: "1 7", 2: "2 7"})


def test_two_texts_of_one_note_are_both_kept(run: Run) -> None:
    run.annotate("seen by both", 1)
    run.annotate("of the first window", 1, seen="seen by both")
    found = run.annotate("of the second", 1, seen="seen by both")
    assert found.notes[1] == "of the first window\n\nof the second"
    assert run.annotate("", 1, seen="seen by both").notes[1] == found.notes[1], "nobody removes what they did not see"
    assert run.annotate("again", 1, seen=found.notes[1]).notes[1] == "again"
    assert run.annotate("again", 1, seen="seen by both").notes[1] == "again", "the same text is there once"


def test_a_killed_edit_leaves_the_old_notes_or_the_new_ones(run: Run) -> None:
    """A process that dies in the middle of an edit keeps no lock and no half file."""
    run.annotate("before")

    def die(_: Annotations) -> Annotations:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    assert is_killed(lambda: edit_annotations(run.folder.path, die))
    assert run.annotations.note == "before"
    assert run.annotate("after").note == "after"


def test_a_lock_that_stays_held_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    with FileLock(run.folder.path / LOCK), pytest.raises(StorageError, match="edited by one process at a time"):
        run.annotate("x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ('{"version": 2}', "its version must be 1, but got 2. Upgrade autoprune"),
        ('{"version": 1, "notes": {"03": "x"}}', "must be named by the number of a candidate"),
        ('{"version": 1, "notes": {"-1": "x"}}', "must be named by the number of a candidate"),
        ('{"version": 1, "chosen": -1}', "chosen must be >= 0 or null"),
        ('{"version": 1, "note": 3}', "note must be a text"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_and_stays(text: str, message: str, run: Run) -> None:
    path = run.folder.path / ANNOTATIONS
    path.write_text(text)
    for use in (lambda: run.annotations, lambda: run.annotate("x")):
        with pytest.raises(StorageError, match=message):
            use()
    assert path.read_text() == text


def test_a_study_that_starts_leaves_what_another_process_is_writing(tmp_path: Path) -> None:
    """Its own leftovers and those of processes that ended are swept."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    theirs = tmp_path / f".{ANNOTATIONS}.{os.getppid()}.tmp"
    swept = [tmp_path / f".{ANNOTATIONS}.{process}.tmp" for process in (ended.pid, os.getpid(), "none")]
    for path in (theirs, *swept):
        path.write_text("")
    RunFolder(tmp_path).remove_partial_writes()
    assert [*tmp_path.iterdir()] == [theirs]


def test_numbers_are_json_keys(tmp_path: Path) -> None:
    edit_annotations(tmp_path, lambda found: found.with_note("ten", 10).with_note("nine", 9))
    assert [*json.loads((tmp_path / ANNOTATIONS).read_text())["notes"]] == ["9", "10"]
    assert [*read_annotations(tmp_path).notes] == [9, 10]
    assert read_annotations(tmp_path).lines() == ["Note on candidate 9: nine", "Note on candidate 10: ten"]


def test_a_run_that_was_moved_is_not_begun_again_by_a_note(run: Run, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", run.records)
    (tmp_path / "run").mkdir()
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(StorageError, match="which does not exist"):
        run.annotate("lost", 1)
    assert not run.folder.path.exists()
