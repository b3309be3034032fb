"""Journal file: the lines of Optuna's journal storage, appended by one process and written several at once."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path

from filelock import FileLock
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from autoprune.errors import StorageError
from autoprune.records.atomic import cannot_write
from autoprune.search.journal_lines import MORE, Line, fold, write_lines


class JournalFile(BaseJournalBackend):
    """A journal that waits for the disk when a trial changes state, not for each of its parameters.

    A power cut in mid-trial loses that trial with or without its parameters. The wait at the end of a trial also saves
    everything written before, since it is one file. The process that appends reads no line again that it wrote itself.

    Args:
        path: The file.
        lock: Lock of the file; the kernel frees it when its process dies, unlike Optuna's own lock files.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self._path, self._lock = path, lock
        self._pending: list[dict[str, object]] | None = None
        self._begin_anew()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, object]]:
        """Yield the lines that were not read yet.

        Args:
            log_number_from: Number of lines that the reader has; fewer than it was given begin anew.
        """
        if log_number_from != self._read_count:
            self._begin_anew()
        while self._own:
            self._read_count += 1
            yield self._own.popleft()
        if self._pending is None and self._path.stat().st_size > self._known_bytes:
            yield from self._from_file(log_number_from)

    def append_logs(self, logs: list[dict[str, object]]) -> None:
        """Append whole lines; none if not all can be written. Those of a transaction wait for its end.

        Args:
            logs: The lines, as data.

        Raises:
            StorageError: They cannot be written.
        """
        if self._pending is not None:
            self._pending += logs
        elif not self._append(logs):
            return  # the reader finds them in the file, behind those of another process
        self._own.extend(json.loads(json.dumps(log)) for log in logs)

    @property
    def state(self) -> tuple[int, int]:
        """What changes with each line, of this process or another one: lines that are known, and bytes of the file."""
        size = self._known_bytes if self._pending is not None else self._path.stat().st_size
        return self._read_count + len(self._own), size

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction has begun."""
        return self._pending is not None

    def begin(self) -> None:
        """Keep the lines to come, until `commit`."""
        self._pending = []

    def commit(self, trials: int) -> None:
        """Append the lines since `begin`, all or none, in fewer lines than readers were given.

        Args:
            trials: Trials of the journal with these lines.

        Raises:
            StorageError: They cannot be written, or another process wrote meanwhile.
        """
        logs, self._pending = self._pending or [], None
        if logs:
            self._append(fold(logs, trials), handed_out=True)

    def cancel(self) -> None:
        """Forget the lines since `begin`. Readers have to read anew."""
        self._pending = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget what was read."""
        self._known_bytes, self._read_count = 0, 0
        self._own: deque[dict[str, object]] = deque()  # lines of this process that nobody has read

    def _from_file(self, first: int) -> Iterator[dict[str, object]]:
        with self._path.open("rb") as file:
            file.seek(self._known_bytes)
            for line in file:
                if not line.endswith(b"\n"):  # another process is writing it
                    return
                found = json.loads(line)
                self._known_bytes += len(line)
                self._read_count += 1
                if self._read_count > first:
                    yield found

    def _append(self, logs: Sequence[Line], *, handed_out: bool = False) -> bool:
        """Append lines under the lock, and return whether all lines before them are known.

        handed_out: readers have them already, so that those of another process may not come before them.
        """
        try:
            with self._lock, self._path.open("ab", buffering=0) as file:  # no unwritten rest may follow on closing
                alone = os.fstat(file.fileno()).st_size == self._known_bytes
                if handed_out and not alone:
                    raise StorageError(f"Another process wrote to {self._path} meanwhile. Run a study by one process.")
                lines = write_lines(logs, alone=alone)
                _write(file, lines, wait=any("state" in log for log in logs))
        except OSError as error:
            raise StorageError(cannot_write(self._path, error)) from error
        if alone:
            self._known_bytes += len(lines)
        return alone


class RunStorage(JournalStorage):
    """Storage of a run, whose transactions are whole or not there.

    Args:
        journal: Its file.
    """

    def __init__(self, journal: JournalFile) -> None:
        self._journal = journal
        self._shared = _Shared()
        self._listed: dict[object, list[FrozenTrial]] = {}  # of the lines that are read
        self._listed_at: tuple[int, int] | None = None
        super().__init__(journal)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """List trials; the lists are the same until a line is written, as an ask needs some of them again and again.

        Args:
            study_id: Number of the study.
            deepcopy: Whether they may be changed.
            states: States to list; all trials when None.
        """
        if deepcopy:
            return super().get_all_trials(study_id, deepcopy, states)
        if self._listed_at != self._journal.state:
            self._listed, self._listed_at = {}, self._journal.state
        key = study_id, None if states is None else tuple(state for state in TrialState if state in states)
        if key not in self._listed:
            self._listed[key] = super().get_all_trials(study_id, deepcopy, states)
            self._shared.look_at(self._replay_result._trials)
            self._listed_at = self._journal.state  # with those of other processes
        return list(self._listed[key])

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Append the lines of a block at once. After an error there is none of them, and the storage is as before.

        Within another transaction the block is a part of that one.
        """
        if self._journal.in_transaction:
            yield
            return
        self._journal.begin()
        try:
            yield
            self._journal.commit(len(self._replay_result._trials))
        except BaseException:
            self._journal.cancel()
            self._listed_at, self._shared = None, _Shared()
            self.__setstate__(self.__getstate__())  # knows no trial, as after unpickling, and reads them all
            raise


class _Shared:
    """Names and distributions of parameters that trials have in common, which are most of their size.

    Optuna reads those of each trial anew.
    """

    def __init__(self) -> None:
        self._count = 0
        self._open: list[int] = []
        self._known: dict[tuple[str, BaseDistribution], tuple[str, BaseDistribution]] = {}

    def look_at(self, trials: Mapping[int, FrozenTrial]) -> None:
        """Share what finished trials have in common.

        Args:
            trials: All trials by their number in the storage.
        """
        new = [*self._open, *range(self._count, len(trials))]
        self._count, self._open = len(trials), []
        for number in new:
            if trials[number].state.is_finished():
                self._share(trials[number])
            else:
                self._open.append(number)

    def _share(self, trial: FrozenTrial) -> None:
        params, distributions = trial._params, trial._distributions
        pairs = [self._known.setdefault(pair, pair) for pair in distributions.items()]
        trial._params = {name: params[name] for name, _ in pairs}
        trial._distributions = dict(pairs)


def transaction(storage: BaseStorage) -> contextlib.AbstractContextManager[None]:
    """Return the transaction of a storage; without effect for one in memory.

    Args:
        storage: Any storage.
    """
    return storage.transaction() if isinstance(storage, RunStorage) else contextlib.nullcontext()


def finished_length(data: bytes) -> int:
    """Return the length of a journal without a torn last line and without the transaction that ends unfinished.

    Args:
        data: Content of the file.
    """
    end, left = data.rfind(b"\n") + 1, None
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        more = _lines_left(data[start:end])
        if not more or (left is not None and more != left + 1):
            break
        end, left = start, more
    return end


def _lines_left(line: bytes) -> int:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return 0
    more = found.get(MORE, 0) if isinstance(found, dict) else 0
    return more if isinstance(more, int) else 0


def _write(file: FileIO, lines: bytes, *, wait: bool) -> None:
    """Append to a file, all or nothing. wait: until the disk has it."""
    before = os.fstat(file.fileno()).st_size
    try:
        written = 0
        while written < len(lines):
            written += file.write(lines[written:])
        if wait:
            os.fsync(file.fileno())
    except OSError:
        file.truncate(before)
        raise
