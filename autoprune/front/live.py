"""A run folder that is looked at while it changes: what has changed is read again, and the last good state stays."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune.errors import AutopruneError, StorageError, error_message
from autoprune.front.run import Run
from autoprune.records.annotations import ANNOTATIONS, Annotations, read_annotations
from autoprune.records.candidate import CandidateRecord
from autoprune.records.manifest import Manifest
from autoprune.records.run_folder import (
    CANDIDATES,
    DEVICE_PROFILE,
    ENDING,
    FAILURES,
    LATENCIES,
    RECORD,
    SENSITIVITY,
    STUDY,
    TEST,
    TOPOLOGY,
    RunFolder,
)
from autoprune.records.weights_file import REMOVED
from autoprune.records.workers import WORKERS, read_workers

#: State of a file or folder: inode, time of the last change, size; None where there is none.
State = tuple[int, int, int] | None
#: Candidates whose folders are looked at in each refresh, beside new and young ones; the next refresh looks at the next
#: ones.
_AT_ONCE = 200
#: Seconds after a change in which another one may leave the same time behind.
_YOUNG = 3.0
#: Files and folders of a run that are shown.
_SHOWN = (STUDY, ANNOTATIONS, ENDING, SENSITIVITY, DEVICE_PROFILE, TOPOLOGY, CANDIDATES, FAILURES, WORKERS)
#: Those that change with each trial and each note, which leave the other candidates as they were.
_OFTEN = (ANNOTATIONS, CANDIDATES, FAILURES, WORKERS)
#: Files of a candidate.
_FILES = (RECORD, TEST, LATENCIES, REMOVED)


@dataclass(frozen=True, slots=True)
class _Known:
    """A candidate as it was read.

    Attributes:
        record: The candidate.
        folder: State of its folder.
        files: States of its files, while the folder is young; else empty.
    """

    record: CandidateRecord
    folder: State
    files: tuple[State, ...]


class RunWatcher:
    """A run folder that may change, become unreadable and come back while it is looked at.

    Args:
        out: Run folder.

    Attributes:
        run: The run as it was when it could last be read.
        annotations: Its notes and chosen candidate by then.
        version: Number that rises with each change of the folder.
        trouble: Why the folder cannot be read now, in a sentence or two; "" where it can.

    Raises:
        NotFoundError: `out` holds no study.
        StorageError: A file of the run cannot be read, or does not fit the others.
    """

    def __init__(self, out: str | Path) -> None:
        self._folder = RunFolder(Path(out).absolute())
        self._candidates = str(self._folder.path / CANDIDATES)
        self._manifest: tuple[State, Manifest] | None = None
        self._known: dict[str, _Known] = {}
        self._root: dict[str, State] = {}
        self._next = 0
        self.version, self.trouble = 0, ""
        self.run, self.annotations = self._read(_states(self._folder.path))

    def refresh(self) -> bool:
        """Read what has changed. Where that fails, the run stays as it was and `trouble` says why.

        Returns:
            Whether the run or the trouble changed.
        """
        before = (self.version, self.trouble)
        try:
            root, some = _states(self._folder.path), self._next_names()
            changed = {name for name, state in root.items() if state != self._root[name]}
            if changed <= {*_OFTEN} and not self.trouble:
                if changed or self._has_changed(some):
                    self.run, self.annotations = self._read(root, some)
                    self.version += 1
            else:
                self.run, self.annotations = self._read(root)
                self.version += 1
            self.trouble = ""
        except (AutopruneError, OSError) as error:
            self.trouble = str(error)
        return (self.version, self.trouble) != before

    def _read(self, root: dict[str, State], some: Collection[str] | None = None) -> tuple[Run, Annotations]:
        """Read what has changed since the last time; keep nothing of it unless all can be read.

        Args:
            root: States of the files of the run.
            some: Names of the candidates that are looked at, beside new ones; None for all.
        """
        manifest = self._read_manifest(root)
        folders = self._folders(some)
        known, read = {}, set()
        for name, state in folders.items():
            found = self._known.get(name)
            if found is None or not self._is_unchanged(name, found, state):
                found = self._read_candidate(name, state)
                read.add(found.record.number)
            elif found.files and not _is_young(state):
                found = _Known(found.record, state, ())
            known[name] = found
        records = tuple(sorted((one.record for one in known.values()), key=lambda record: record.number))
        again = self._manifest is None or self._manifest[1] is not manifest or self._known.keys() - known.keys()
        manifest.check_records(records, self._candidates, None if again else read)
        annotations = read_annotations(self._folder.path)
        self._manifest, self._known, self._root = (root[STUDY], manifest), known, root
        return Run(folder=self._folder, manifest=manifest, records=records), annotations

    def _read_manifest(self, root: dict[str, State]) -> Manifest:
        if self._manifest is not None and self._manifest[0] == root.get(STUDY):
            return self._manifest[1]
        return self._folder.read_study()

    def _read_candidate(self, name: str, state: State) -> _Known:
        files = self._files(name)
        number = self._folder.candidate_number(name)
        record = self._folder.read_candidate(number)
        if record is None:
            place = f"{self._candidates}/{name}"
            raise StorageError(error_message(place, "be a folder that can be read", "one that is not there any more"))
        return _Known(record, state, files if _is_young(state) else ())

    def _next_names(self) -> Collection[str]:
        """Choose young candidates and some of the others, as a new file in a candidate changes its folder alone."""
        names = [*self._known]
        some = names[self._next : self._next + _AT_ONCE]
        self._next = self._next + _AT_ONCE if self._next + _AT_ONCE < len(names) else 0
        return dict.fromkeys((*(name for name, one in self._known.items() if one.files), *some))

    def _has_changed(self, some: Collection[str]) -> bool:
        """Look at these candidates, and for others where the time of their folder does not tell."""
        if _is_young(self._root[CANDIDATES]) and self._folder.candidate_names() != [*self._known]:
            return True
        for name in some:
            state = _state(f"{self._candidates}/{name}")
            if not self._is_unchanged(name, self._known[name], state):
                return True
        return False

    def _is_unchanged(self, name: str, found: _Known, state: State) -> bool:
        return found.folder == state and (not found.files or found.files == self._files(name))

    def _files(self, name: str) -> tuple[State, ...]:
        return tuple(_state(f"{self._candidates}/{name}/{file}") for file in _FILES)

    def _folders(self, some: Collection[str] | None) -> Mapping[str, State]:
        """List the folders of candidates, as they were the last time but for `some` and new ones."""
        known = {} if some is None else {name: one for name, one in self._known.items() if name not in some}
        return {
            name: known[name].folder if name in known else _state(f"{self._candidates}/{name}")
            for name in self._folder.candidate_names()
        }


def _states(folder: Path) -> dict[str, State]:
    """Return the states of the files and folders of a run that are shown, beside the folders of its candidates."""
    found = {name: _state(f"{folder}/{name}") for name in _SHOWN}
    if found[WORKERS] is not None and not read_workers(folder):
        found[WORKERS] = None  # the process that wrote it was killed, which changes no file
    return found


def _state(path: str) -> State:
    try:
        found = os.stat(path)  # noqa: PTH116  # a path object for each of thousands takes longer than the question
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _is_young(state: State) -> bool:
    return state is not None and abs(time.time() - state[1] / 1e9) < _YOUNG
