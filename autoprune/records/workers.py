"""The workers of a running study and their trials: a small file that dashboards read."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoprune.codec import Format, load_dataclass, stored, to_plain
from autoprune.records.atomic import is_process, write_atomically

WORKERS = "workers.json"


@stored(Format(what="a worker"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker and the trial that it runs.

    Attributes:
        name: Host and process.
        trial: Number of the trial that it runs.
        since: Unix time at which it began.
    """

    name: str
    trial: int
    since: float


@stored(Format(what="the workers of a run", version=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The workers of a run and their trials.

    Attributes:
        workers: Those that run a trial, in the order of their names.
        host: Machine of the process of the study, which writes the file.
        process: Number of that process; 0 where it is not known.
    """

    workers: tuple[Worker, ...]
    host: str = ""
    process: int = 0


def write_workers(folder: Path, workers: Sequence[Worker]) -> None:
    """Write which workers have which trials.

    Args:
        folder: Run folder.
        workers: Those that run a trial.

    Raises:
        StorageError: It cannot be written.
    """
    found = Workers(workers=tuple(workers), host=socket.gethostname(), process=os.getpid())
    write_atomically(folder / WORKERS, json.dumps(to_plain(found)).encode())


def read_workers(folder: Path) -> Sequence[Worker]:
    """Read which workers of a run have which trials.

    Args:
        folder: Run folder.

    Returns:
        Those that ran a trial when the file was written; none where trials run in one process, or no longer, and where
        the process of the study has been killed, which can be told on its machine.

    Raises:
        StorageError: The file cannot be read.
    """
    path = folder / WORKERS
    if not path.exists():
        return ()
    found = load_dataclass(Workers, path)
    is_left = found.process > 0 and found.host == socket.gethostname() and not is_process(found.process)
    return () if is_left else found.workers
