"""Optuna storage of a run: a journal file that survives kill -9."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from autoprune.errors import StorageError, StudyConflictError, error_message
from autoprune.records.atomic import cannot_write, locked, sync_folder, write_atomically
from autoprune.search.journal_file import JournalFile, RunStorage, finished_length

JOURNAL, RUN_LOCK = "journal.log", "run.lock"
_LOGGER = logging.getLogger("autoprune")


def open_journal(
    folder: Path,
    is_right: Callable[[RunStorage], bool] = lambda _: True,
    restore: Callable[[RunStorage], None] = lambda _: None,
) -> RunStorage:
    """Open the journal of a run folder; create it if it does not exist.

    A torn last line is cut off, and a transaction that was not written to its end. If a journal cannot be read or is
    not the study's, its invalid lines are left out; if that does not help, it is rebuilt. The old file is kept as
    journal.broken.

    Args:
        folder: Run folder, locked by this process.
        is_right: Whether a readable journal matches the run folder.
        restore: Writes the run folder's trials into an empty journal.

    Raises:
        StorageError: The file cannot be read or written.
    """
    path, lock = folder / JOURNAL, FileLock(folder / f"{JOURNAL}.lock")
    try:
        path.touch()
        with lock:
            data = _cut_unfinished(path)
        # Optuna takes an invalid last line for one that is being written, and fails on the next.
        last = data.rstrip(b"\n").rpartition(b"\n")[2]
        found = _loaded(path, lock, is_right) if _sound(last) == last else None
        return found if found is not None else _repaired(path, data, lock, (is_right, restore))
    except OSError as error:
        raise StorageError(cannot_write(path, error)) from error


def _repaired(
    path: Path,
    data: bytes,
    lock: FileLock,
    known: tuple[Callable[[RunStorage], bool], Callable[[RunStorage], None]],
) -> RunStorage:
    """Return the journal without its invalid lines if the rest is right, else a rebuilt one.

    known: is_right and restore, as for `open_journal`.
    """
    is_right, restore = known
    broken = free_name(path.with_name("journal.broken"))
    if data:
        write_atomically(broken, data)
    rest = sound_lines(data)
    if rest != data:
        write_atomically(path, rest)
        found = _loaded(path, lock, is_right)
        if found is not None:
            _LOGGER.warning("%s had invalid lines. It goes on without them; %s holds all lines.", path, broken)
            return found
    fresh = path.with_name(f".{JOURNAL}.{os.getpid()}.tmp")
    fresh.unlink(missing_ok=True)
    fresh.touch()
    restore(RunStorage(JournalFile(fresh, lock)))
    fresh.replace(path)
    sync_folder(path.parent)
    kept = f"; {broken} holds the one that was there" if data else ""
    _LOGGER.warning("%s was missing or could not be read. It is made anew from the stored candidates%s.", path, kept)
    return RunStorage(JournalFile(path, lock))


def _loaded(path: Path, lock: FileLock, is_right: Callable[[RunStorage], bool]) -> RunStorage | None:
    """Return the storage of a journal; None if it cannot be read or is not right."""
    try:
        storage = RunStorage(JournalFile(path, lock))
        return storage if is_right(storage) else None
    except OSError:
        raise
    except Exception:  # Optuna replays any line, and fails in many ways
        return None


def sound_lines(data: bytes) -> bytes:
    """Return the valid lines of a journal; of half a line with another behind it, the other.

    Args:
        data: Content of the journal.
    """
    lines = (_sound(line) for line in data.splitlines())
    return b"".join(line + b"\n" for line in lines if line)


def _sound(line: bytes) -> bytes:
    for start in (0, line.rfind(b'{"op_code":')):
        entry = line[max(start, 0) :]
        try:
            found = json.loads(entry)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and "op_code" in found:
            return entry
    return b""


def free_name(path: Path) -> Path:
    """Return the path, or the first of path.2, path.3, ... that does not exist.

    Args:
        path: A path.
    """
    names = itertools.chain([path], (path.with_name(f"{path.name}.{number}") for number in itertools.count(2)))
    return next(name for name in names if not name.exists())


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lock a run folder for this process.

    Args:
        folder: Run folder.

    Raises:
        StudyConflictError: Another process runs it.
        StorageError: The lock cannot be written.
    """
    got = f"{folder}, which another one runs"
    busy = StudyConflictError(error_message("the output folder", "be run by one process at a time", got))
    with locked(folder / RUN_LOCK, busy):
        yield


def _cut_unfinished(path: Path) -> bytes:
    """Cut off the half line of a killed process, which others would follow, and its transaction; return the rest."""
    data = path.read_bytes()
    length = finished_length(data)
    if length < len(data):
        with path.open("rb+") as file:
            file.truncate(length)
    return data[:length]
