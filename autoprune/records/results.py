"""Results of workers that the study has not learned yet: `results/` in the run folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autoprune.codec import LARGEST_JSON, read_bytes
from autoprune.errors import StorageError, error_message
from autoprune.records.atomic import atomic_folder, cannot_write, locked, write_atomically
from autoprune.records.candidate import CandidateRecord
from autoprune.records.run_folder import RESULTS, RunFolder

#: Files of a result that the study has not learned; the rest of its folder becomes the candidate's.
RESULT, PROPOSAL = "result.json", "proposal.json"
#: Seconds to wait for another worker that runs the same trial; it ends when its driver is found dead.
_PATIENCE = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Results:
    """Results of trials that ran in other processes, until the process of the study adopts them as candidates.

    Workers write them, each in one atomic step, and only the process that holds the run folder's lock adopts them: a
    result outlives its worker and the process of the study.

    Attributes:
        folder: Run folder.
    """

    folder: RunFolder

    @property
    def path(self) -> Path:
        """Folder of the results."""
        return self.folder.path / RESULTS

    def numbers(self) -> list[int]:
        """List the trials with a result, in ascending order."""
        names = [one.parent.name for one in self.path.glob(f"[0-9]*/{RESULT}")] if self.path.is_dir() else []
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def write(self, number: int, proposal: str, result: str, weights: bytes) -> None:
        """Store a result atomically.

        Args:
            number: Number of the trial.
            proposal: JSON of the proposal.
            result: JSON of the result.
            weights: Content of the file of weights.

        Raises:
            StorageError: It cannot be written.
        """
        with atomic_folder(self._place(number)) as temporary:
            self.folder.weights_file(number).write(weights, temporary)
            write_atomically(temporary / PROPOSAL, proposal.encode())
            write_atomically(temporary / RESULT, result.encode())

    def has(self, number: int) -> bool:
        """Tell whether a trial has a result, or is a candidate already.

        Args:
            number: Number of the trial.
        """
        return (self._place(number) / RESULT).is_file() or self.folder.holds_candidate(number)

    def read(self, number: int, name: str = RESULT) -> tuple[bytes, str]:
        """Read a file of a result.

        Args:
            number: Number of the trial.
            name: RESULT or PROPOSAL.

        Returns:
            Its JSON, and the path of the file for messages.

        Raises:
            StorageError: It cannot be read.
        """
        path = self._place(number) / name
        return read_bytes(path, LARGEST_JSON), str(path)

    def adopt(self, record: CandidateRecord) -> None:
        """Turn a result into a candidate with the same files of weights.

        After a crash the result is still there, or the candidate, or both, of which the candidate counts.

        Args:
            record: Record of the candidate.

        Raises:
            StorageError: It cannot be written.
        """
        place = self._place(record.number)
        own = (RESULT, PROPOSAL)
        self.folder.write_candidate(record, [path for path in sorted(place.iterdir()) if path.name not in own])
        self.remove(record.number)

    def remove(self, number: int) -> None:
        """Delete a result and what is known of its worker.

        Args:
            number: Number of the trial.
        """
        shutil.rmtree(self._place(number), ignore_errors=True)
        for path in (self._prepared(number), self._begun(number), self._lock(number)):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def claim(self, number: int) -> Iterator[None]:
        """Keep other workers from running a trial at the same time; wait for one that does. A dead worker's is free.

        Args:
            number: Number of the trial.

        Yields:
            Nothing; a result may be there by then.

        Raises:
            StorageError: The lock cannot be written.
        """
        busy = StorageError(
            error_message(f"trial {number}", "be run by one worker", f"another one in {self._lock(number)}")
        )
        self._make_folder()
        with locked(self._lock(number), busy, patience=_PATIENCE):
            yield

    def begin(self, number: int) -> None:
        """Tell the process of the study that this process begins a trial.

        Args:
            number: Number of the trial.

        Raises:
            StorageError: It cannot be written.
        """
        write_atomically(self._begun(number), _process())

    def prepare(self, number: int) -> None:
        """Tell the process of the study that this process makes the task, before it begins a trial.

        Args:
            number: Number of the trial.

        Raises:
            StorageError: It cannot be written.
        """
        self._make_folder()
        write_atomically(self._prepared(number), _process())

    def worker(self, number: int) -> str:
        """Return the process that has begun a trial, as host:process; "" where none has.

        Args:
            number: Number of the trial.
        """
        return _read(self._begun(number))

    def maker(self, number: int) -> str:
        """Return the process that makes or made the task for a trial, as host:process; "" where it was there.

        Args:
            number: Number of the trial.
        """
        return _read(self._prepared(number))

    def forget(self, number: int) -> None:
        """Forget which process has begun a trial, before another one is sent it.

        Args:
            number: Number of the trial.
        """
        for path in (self._prepared(number), self._begun(number)):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all of it, when no trial is out."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _make_folder(self) -> None:
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError(cannot_write(self.path, error)) from error

    def _place(self, number: int) -> Path:
        return self.path / f"{number:05d}"

    def _begun(self, number: int) -> Path:
        return self.path / f"{number:05d}.begun"

    def _prepared(self, number: int) -> Path:
        return self.path / f"{number:05d}.prepared"

    def _lock(self, number: int) -> Path:
        return self.path / f"{number:05d}.lock"


def _process() -> bytes:
    return f"{socket.gethostname()}:{os.getpid()}".encode()


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:200]
    except OSError:
        return ""
