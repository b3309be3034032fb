"""Loops around a SearchBackend that are killed at a chosen moment. Run as `python -m tests.faults.backend_victims DIR`.

For each moment a child is forked that searches in DIR/<moment> and kills itself there. Prints the moments whose child
was killed as it should be.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from autoprune.records.run_folder import RunFolder
from autoprune.search.backend import SearchBackend
from autoprune.search.ledger import Ledger
from tests.unit.search.test_backend import finish, quality, settings, structure


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def when_named(name: str) -> None:
    """Die when a file or folder is about to take its final name."""
    for method in ("rename", "replace"):
        original = getattr(Path, method)

        def deadly(self: Path, to: Path, original: Callable[[Path, Path], Path] = original) -> Path:
            if Path(to).name == name:
                die()
            return original(self, to)

        setattr(Path, method, deadly)


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
    "study-not-yet-named": (lambda: when_named("study.json"), 0),
    "structure-not-yet-named": (lambda: when_named("topology.json"), 0),
    "record-not-yet-named": (lambda: when_named("00005"), 5),
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


def main(folder: Path) -> None:
    for moment in MOMENTS:
        child = os.fork()
        if child == 0:
            try:
                run(moment, folder / moment)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            sys.stdout.write(f"{moment}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
