"""Starts of a study in which one trial always ends its process; each start is a child that is forked."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import autoprune
from autoprune.errors import AutopruneError
from autoprune.records.candidate import CandidateRecord
from autoprune.records.run_folder import RunFolder
from autoprune.trial.context import TrialContext
from tests.processes import forked
from tests.tasks import flat_task
from tests.unit.study.small import settings, space

#: Candidates to reach: the dense model, and one in place of the point of the sweep that never comes to its end.
TRIALS = 2
#: Ways to leave that no except clause sees.
WAYS: Sequence[Callable[[], object]] = (
    lambda: os.kill(os.getpid(), signal.SIGKILL),
    lambda: os.kill(os.getpid(), signal.SIGSEGV),
    lambda: os._exit(0),
)
#: Study -> (number of the trial that ends its process, starts).
STUDIES = {"dense": (0, 5), "uniform": (1, 4)}


def deadly(number: int, die: Callable[[], object]) -> None:
    """End the process at the end of a trial, just before its candidate is stored."""
    write = RunFolder.write_candidate

    def dying(self: RunFolder, record: CandidateRecord, weights: bytes) -> None:
        if record.number == number:
            die()
        write(self, record, weights)

    RunFolder.write_candidate = dying  # type: ignore[method-assign]


def start(out: Path, number: int, die: Callable[[], object]) -> str:
    deadly(number, die)
    chosen = settings(trials=TRIALS, uniform_points=2, solved_points=0, space=space(scan=False))
    study = autoprune.Study.create(flat_task(test=None), chosen, out=out)
    said: list[str] = []
    try:
        study.run(on_progress=lambda progress: said.append(progress.failed))
    except AutopruneError as error:
        said.append(str(error))
    return " ".join(filter(None, said))


def ended(out: Path, number: int, die: Callable[[], object]) -> str:
    """What became of one start."""
    read, write = os.pipe()

    def work() -> None:
        faulthandler.disable()  # a dump of the stack would be told as if the tests had crashed
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.write(write, f"done: {start(out, number, die)}".encode())

    status = forked(work)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return said or f"exit {os.WEXITSTATUS(status)}"


def starts_of_each(folder: Path) -> dict[str, list[str]]:
    """Study -> how its starts ended: "signal 9", "exit 0" where one left by itself, "done: " and what it said."""
    TrialContext.of(flat_task(test=None))  # trains and discovers the model that all children share
    return {
        name: [ended(folder / name, number, WAYS[attempt % len(WAYS)]) for attempt in range(starts)]
        for name, (number, starts) in STUDIES.items()
    }
