"""Processes that are killed while a checkpoint is written.

As in victims: a child is forked for each moment, which runs a study in a folder of its name and kills itself there.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import autoprune
from autoprune.records.run_folder import RunFolder
from autoprune.recovery.callbacks import Snapshot
from autoprune.study import checkpoints
from tests.faults.victims import before_rename, die
from tests.processes import is_killed
from tests.unit.recovery.watching import one_batch_task
from tests.unit.study.small import settings, space


def task() -> autoprune.Task:
    """Each step ends a pass."""
    return one_batch_task(flat=True)


def chosen() -> autoprune.StudySettings:
    """Dense, two uniform, one solved, one sampled; three checkpoints of each that trains."""
    return settings(trials=5, uniform_points=2, checkpoint_epochs=2, space=space(steps=6, names=("cubic",)))


def inside_checkpoints(name: str, nth: int) -> None:
    """Die when a file of a checkpoint is about to take its final name for the nth time."""
    count, original = 0, Path.replace

    def deadly(self: Path, target: Path) -> Path:
        nonlocal count
        path = Path(target)
        count += path.name == name and "checkpoints" in path.parts
        if count == nth:
            die()
        return original(self, target)

    Path.replace = deadly  # type: ignore[assignment,method-assign]


def after_storing(epoch: int, trial: int) -> None:
    """Die when a checkpoint has been stored."""
    original = checkpoints.write

    def deadly(folder: RunFolder, number: int, snapshot: Snapshot) -> Path:
        path = original(folder, number, snapshot)
        if (number, snapshot.epoch) == (trial, epoch):
            die()
        return path

    checkpoints.write = deadly


def while_clearing(trial: int) -> None:
    """Die after the first start of a trial, at the third checkpoint, and once more when the second start clears."""
    original = shutil.rmtree

    def deadly(path: Path, ignore_errors: bool = False) -> None:
        if Path(path).name == f"{trial:05d}" and Path(path).is_dir():
            original(sorted(Path(path).iterdir())[0])
            die()
        original(path, ignore_errors=ignore_errors)

    shutil.rmtree = deadly  # type: ignore[assignment]


#: Moment -> what is prepared before the study runs; several are deaths one after the other.
MOMENTS: dict[str, tuple[Callable[[], object], ...]] = {
    "weights-not-yet-named": (lambda: inside_checkpoints("weights.safetensors", 5),),
    "record-not-yet-named": (lambda: inside_checkpoints("checkpoint.json", 5),),
    "checkpoint-not-yet-named": (lambda: before_rename("00004", 2),),
    "stored": (lambda: after_storing(4, 2),),
    "twice-at-the-same": (lambda: after_storing(4, 2), lambda: after_storing(2, 2)),
    "while-clearing": (lambda: after_storing(6, 2), lambda: while_clearing(2)),
}


def run(prepare: Callable[[], object], out: Path) -> None:
    prepare()
    autoprune.Study.create(task(), chosen(), out=out).run()


def killed_moments(folder: Path) -> list[str]:
    """Run a study for each moment; the moments at each death of which its process was killed."""
    return [
        moment
        for moment, deaths in MOMENTS.items()
        if all(is_killed(functools.partial(run, prepare, folder / moment)) for prepare in deaths)
    ]
