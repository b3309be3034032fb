"""The Optuna storage of a run: a journal file that survives kill -9."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from autoprune.errors import StudyConflictError, fault

JOURNAL = "journal.log"


class _KernelLock(JournalFileOpenLock):
    """A lock that the kernel frees when its process dies; Optuna's own lock files stay behind after kill -9."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Give it back."""
        self._lock.release()


class _Journal(JournalFileBackend):
    """Waits for the disk when a trial changes state, not for each of its parameters.

    A power cut in mid-trial loses that trial with or without its parameters; the wait when it is told makes
    everything written before it last too, since it is one file.
    """

    def __init__(self, path: Path, lock: JournalFileOpenLock) -> None:
        super().__init__(str(path), lock_obj=lock)
        self._path, self._kernel_lock = path, lock

    def append_logs(self, logs: list[dict[str, object]]) -> None:
        """Append whole lines under the lock."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._kernel_lock.acquire()
        try:
            with self._path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                if any("state" in log for log in logs):
                    os.fsync(file.fileno())
        finally:
            self._kernel_lock.release()


def open_journal(folder: Path) -> JournalStorage:
    """The journal of a run folder, made when it is not there; a torn last line is cut off first."""
    path = folder / JOURNAL
    lock = _KernelLock(folder / f"{JOURNAL}.lock")
    path.touch()
    lock.acquire()
    try:
        _cut_torn_line(path)
    finally:
        lock.release()
    optuna.logging.set_verbosity(logging.WARNING)
    return JournalStorage(_Journal(path, lock))


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a run folder; StudyConflictError when another process runs it."""
    lock = FileLock(folder / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StudyConflictError(
            fault("the output folder", "be run by one process at a time", f"{folder}, which another one runs")
        ) from None
    try:
        yield
    finally:
        lock.release()


def _cut_torn_line(path: Path) -> None:
    """A process killed while it wrote leaves half a line, and the next one would be appended to it."""
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(data.rfind(b"\n") + 1)
