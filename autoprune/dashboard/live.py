"""Run folders as they are now: each is read again when its files have changed, and what follows is kept until then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from autoprune.display import printable_lines
from autoprune.errors import AutopruneError
from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.records.annotations import Annotations

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run at one moment.

    Attributes:
        run: The run.
        front: Its front.
        annotations: What a person wrote about it.
        version: Number that rises with each change.
        found: What was worked out from it: key -> result.
    """

    run: Run
    front: Front
    annotations: Annotations
    version: int
    found: dict[Hashable, object] = field(default_factory=dict)

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """Work something out once for this moment.

        Args:
            key: Name of the result, with all that it depends on beside the run.
            work: Function that gives the result.

        Returns:
            The result, which must not be changed.
        """
        if key not in self.found:
            self.found[key] = work()
        return cast("T", self.found[key])


class LiveRun:
    """A run folder that may change, vanish and come back while it is looked at.

    Args:
        path: Run folder.

    Raises:
        AutopruneError: The folder holds no study that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fault = ""
        self._state = _state(path)
        self.now = _snapshot(path, 0)

    def refresh(self) -> None:
        """Read the folder again if its files have changed; keep the last snapshot, with the fault, if that fails."""
        state = _state(self.path)
        if state == self._state and not self.fault:
            return
        try:
            self.now, self._state, self.fault = _snapshot(self.path, self.now.version + 1), state, ""
        except (AutopruneError, OSError) as error:
            self.fault = printable_lines(error)


class LiveRuns:
    """All runs of a dashboard.

    Args:
        paths: Run folders, one or more.

    Raises:
        AutopruneError: A folder holds no study that can be read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.runs = tuple(LiveRun(path) for path in paths)
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Read again what has changed. Requests of several windows wait for each other."""
        with self._lock:
            for one in self.runs:
                one.refresh()

    @property
    def version(self) -> str:
        """State of all runs as a text, which differs whenever something that is shown differs."""
        return ";".join(f"{one.now.version}{'!' if one.fault else ''}" for one in self.runs)

    @property
    def faults(self) -> list[str]:
        """What is wrong with folders that cannot be read any more."""
        return [one.fault for one in self.runs if one.fault]

    def snapshots(self) -> list[Snapshot]:
        """List the runs as they are now."""
        return [one.now for one in self.runs]

    def place(self, wanted: object) -> int:
        """Read the position of a run as a client gives it.

        Args:
            wanted: Position of the run; any other value is the first run.

        Returns:
            The position.
        """
        known = isinstance(wanted, int) and not isinstance(wanted, bool)
        return wanted if isinstance(wanted, int) and known and 0 <= wanted < len(self.runs) else 0


def _snapshot(path: Path, version: int) -> Snapshot:
    run = Run.open(path)
    return Snapshot(run=run, front=run.front(), annotations=run.annotations, version=version)


def _state(path: Path) -> tuple[object, ...]:
    """Collect when the folder, its files and those of its candidates were changed."""
    entries = [path, *path.glob("*.json"), *path.glob("candidates/*")]
    found = []
    for entry in sorted(entries):
        try:
            stat = entry.stat()
            found.append((entry.name, stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append((entry.name, 0, 0))
    return tuple(found)
