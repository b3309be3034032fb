"""Starts of a study in which one trial always ends its process. Run as `python -m tests.faults.trial_victims DIR`.

Each start is a child that is forked, which saves importing torch for each. Prints a line for each start: the study, and
how its child ended: "signal 9", "exit 0" where the trial left by itself, or "done: " and what the run said.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import autoprune
from autoprune.errors import AutopruneError
from autoprune.records.candidate import CandidateRecord
from autoprune.records.run_folder import RunFolder
from autoprune.trial.context import TrialContext
from tests.discoveries import kept_for_the_run
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
    child = os.fork()
    if child == 0:
        try:
            os.write(write, f"done: {start(out, number, die)}".encode())
        finally:
            os._exit(0)
    os.close(write)
    _, status = os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return said or f"exit {os.WEXITSTATUS(status)}"


def main(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)
    with kept_for_the_run():
        TrialContext.of(flat_task(test=None))  # trains and discovers the model that all children share
        for name, (number, starts) in STUDIES.items():
            for attempt in range(starts):
                sys.stdout.write(f"{name} {ended(folder / name, number, WAYS[attempt % len(WAYS)])}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
