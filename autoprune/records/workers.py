"""What the workers of a running study do: a small file that dashboards read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoprune.codec import Format, load_dataclass, stored, to_plain
from autoprune.records.atomic import write_atomically

WORKERS = "workers.json"


@stored(Format(what="a worker"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What one worker does.

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
    """What the workers of a run do.

    Attributes:
        workers: Those that run a trial, in the order of their names.
    """

    workers: tuple[Worker, ...]


def write_workers(folder: Path, workers: Sequence[Worker]) -> None:
    """Write what the workers do.

    Args:
        folder: Run folder.
        workers: Those that run a trial.

    Raises:
        StorageError: It cannot be written.
    """
    write_atomically(folder / WORKERS, json.dumps(to_plain(Workers(workers=tuple(workers)))).encode())


def read_workers(folder: Path) -> Sequence[Worker]:
    """Read what the workers of a run do.

    Args:
        folder: Run folder.

    Returns:
        Those that ran a trial when the file was written; none where trials run in one process, or no longer.

    Raises:
        StorageError: The file cannot be read.
    """
    path = folder / WORKERS
    return load_dataclass(Workers, path).workers if path.exists() else ()
