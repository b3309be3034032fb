"""The Optuna storage of a run: a journal file that survives kill -9."""

from __future__ import annotations

import contextlib
import logging
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
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


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
