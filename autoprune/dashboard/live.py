"""Current state of run folders: each is read again when its files have changed, and results are kept until then."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from autoprune.display import printable_lines
from autoprune.errors import AutopruneError
from autoprune.front.front import Front
from autoprune.front.live import RunWatcher
from autoprune.front.run import Run
from autoprune.front.run_state import RunState, state_of
from autoprune.records.annotations import Annotations

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run at one moment.

    Attributes:
        run: The run.
        front: Its front.
        annotations: What a person wrote about it.
        state: How far it is.
        version: Number that rises with each change.
        found: What was worked out from it: key -> result.
    """

    run: Run
    front: Front
    annotations: Annotations
    state: RunState
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
    """A run folder with what follows from it, which may change, vanish and come back while it is looked at.

    Args:
        path: Run folder.

    Attributes:
        now: The run as it was when it could last be read.

    Raises:
        AutopruneError: The folder holds no study that can be read.
    """

    def __init__(self, path: str | Path) -> None:
        self._watcher = RunWatcher(path)
        self._fault = ""
        self.now = self._snapshot(None)

    def refresh(self) -> None:
        """Read what has changed; keep the last state, and the fault, where that fails."""
        if not self._watcher.refresh() and not self._fault:
            return
        try:
            self.now, self._fault = self._snapshot(self.now), ""
        except AutopruneError as error:
            self._fault = str(error)

    @property
    def fault(self) -> str:
        """Why the folder cannot be read now; "" where it can."""
        return printable_lines(self._watcher.trouble or self._fault)

    def _snapshot(self, before: Snapshot | None) -> Snapshot:
        run = self._watcher.run
        earlier = None if before is None else before.front
        front = run.front(earlier) if before is None or _differ(before.run, run) else before.front
        return Snapshot(
            run=run,
            front=front,
            annotations=run.annotations,
            state=state_of(run, front.numbers.columns),
            version=self._watcher.version,
        )


def _differ(before: Run, now: Run) -> bool:
    """Tell whether the front may have changed; a note or a worker changes none."""
    same = len(before.records) == len(now.records) and all(map(operator.is_, before.records, now.records))
    return not same or before.manifest is not now.manifest


class LiveRuns:
    """All runs of a dashboard.

    Args:
        paths: Run folders, one or more.

    Raises:
        AutopruneError: A folder holds no study that can be read.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
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
        """Faults of the folders that cannot be read any more."""
        return [one.fault for one in self.runs if one.fault]

    def snapshots(self) -> list[Snapshot]:
        """List the current state of each run."""
        return [one.now for one in self.runs]

    def place(self, wanted: object) -> int:
        """Read the position of a run as a client gives it.

        Args:
            wanted: Position of the run; any other value is the first run.

        Returns:
            The position.
        """
        return wanted if type(wanted) is int and 0 <= wanted < len(self.runs) else 0  # True is an int
