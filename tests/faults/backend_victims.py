"""Loops around a SearchBackend that are killed with SIGKILL at a chosen moment, each in a child of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from autoprune.records.run_folder import RunFolder
from autoprune.search.backend import SearchBackend
from autoprune.search.ledger import Ledger
from tests.faults.victims import before_rename, die
from tests.processes import is_killed
from tests.unit.search.test_backend import finish, quality, settings, structure


def before(kind: type, name: str, nth: int) -> None:
    """Die when a method is called for the nth time."""
    original, calls = getattr(kind, name), []

    def deadly(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == nth:
            die()
        return original(*args, **kwargs)

    setattr(kind, name, deadly)


#: Moment -> what is prepared before the search, and how many results are left.
MOMENTS: dict[str, tuple[Callable[[], None], int]] = {
    "study-not-yet-named": (lambda: before_rename("study.json"), 0),
    "structure-not-yet-named": (lambda: before_rename("topology.json"), 0),
    "record-not-yet-named": (lambda: before_rename("00005"), 5),
    "stored-and-not-told": (lambda: before(Ledger, "tell", 6), 6),
    "asking": (lambda: before(SearchBackend, "ask", 8), 7),
    "failing": (lambda: before(RunFolder, "write_failure", 1), 4),
}


def run(moment: str, out: Path) -> None:
    """Search; the fifth proposal fails where that is the moment."""
    MOMENTS[moment][0]()
    backend = SearchBackend(structure(), settings(), out)
    finish(backend, most=4)
    proposal = backend.ask()
    assert proposal is not None
    if moment == "failing":
        backend.tell_failed(proposal, "a crash")
    backend.tell(proposal, quality=quality(proposal))
    finish(backend)


def killed_moments(folder: Path) -> list[str]:
    """Run a search for each moment; the moments at which its process was killed."""
    return [moment for moment in MOMENTS if is_killed(functools.partial(run, moment, folder / moment))]
