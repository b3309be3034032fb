"""Processes that are killed with SIGKILL at a chosen moment of a study.

For each moment a child is forked that runs a study in a folder of the moment's name and kills itself there.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch

import autoprune
from autoprune.records.candidate import CandidateRecord
from autoprune.records.run_folder import RunFolder
from autoprune.study.progress import Progress
from tests.processes import is_killed
from tests.tasks import flat_task
from tests.unit.study.small import Switch, settings, space


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DeadlySwitch(Switch):
    """A loss that kills the process in its third step, once it is armed."""

    def __init__(self) -> None:
        super().__init__()
        self.armed, self.steps = False, 0

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self.armed and outputs.requires_grad:
            self.steps += 1
            if self.steps == 3:
                die()
        return super().__call__(outputs, targets)


LOSS = DeadlySwitch()


def arm_at(done: int) -> Callable[[Progress], None]:
    def on_progress(progress: Progress) -> None:
        LOSS.armed = progress.done >= done

    return on_progress


def before_rename(name: str, nth: int = 1) -> None:
    """Die when a file or folder is about to take its final name for the nth time."""
    count = 0
    for method in ("rename", "replace"):
        original = getattr(Path, method)

        def deadly(self: Path, target: Path, original: Callable[[Path, Path], Path] = original) -> Path:
            nonlocal count
            count += Path(target).name == name
            if count == nth:
                die()
            return original(self, target)

        setattr(Path, method, deadly)


def after_storing(number: int, then: Callable[[RunFolder], None] = lambda folder: None) -> None:
    """Die when a candidate has been stored and Optuna has not been told."""
    original = RunFolder.write_candidate

    def deadly(self: RunFolder, record: CandidateRecord, weights: bytes) -> None:
        original(self, record, weights)
        if record.number == number:
            then(self)
            die()

    RunFolder.write_candidate = deadly  # type: ignore[method-assign]


def tear_journal(folder: RunFolder) -> None:
    with (folder.path / "journal.log").open("ab") as file:
        file.write(b'{"op_code":6,"worker_id":"')


#: Moment -> what is prepared before the study runs.
MOMENTS: dict[str, Callable[[], object]] = {
    "study-not-yet-named": lambda: before_rename("study.json"),
    "scan-not-yet-named": lambda: before_rename("sensitivity.json"),
    "training-a-warm-start": lambda: arm_at(2),
    "training-a-sampled-one": lambda: arm_at(6),
    "weights-not-yet-named": lambda: before_rename("weights.safetensors", 4),
    "record-not-yet-named": lambda: before_rename("candidate.json", 4),
    "candidate-not-yet-named": lambda: before_rename("00005"),
    "stored-and-not-told": lambda: after_storing(6),
    "journal-torn": lambda: after_storing(5, tear_journal),
    "test-not-yet-named": lambda: before_rename("test.json", 2),
}


def brief() -> autoprune.StudySettings:
    """Eight trials like those of `settings`, whose work is brief."""
    return settings(space=space(criteria=("l2",), reconstruction=(0,), recalibration=(50,)))


def run(moment: str, out: Path) -> None:
    prepared = MOMENTS[moment]()
    study = autoprune.Study.create(flat_task(loss=LOSS), brief(), out=out)
    study.run(on_progress=prepared if callable(prepared) else None)  # type: ignore[arg-type]


def killed_moments(folder: Path) -> list[str]:
    """Run a study for each moment; the moments at which its process was killed."""
    return [moment for moment in MOMENTS if is_killed(functools.partial(run, moment, folder / moment))]
