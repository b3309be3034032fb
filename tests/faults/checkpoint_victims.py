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
from autoprune.study.checkpoint_state import STATE_TENSORS, remove_state
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


def after_storing(epoch: int, trial: int, then: Callable[[Path], None] = lambda path: None) -> None:
    """Die when a checkpoint has been stored."""
    original = checkpoints.write

    def deadly(folder: RunFolder, number: int, snapshot: Snapshot) -> Path:
        path = original(folder, number, snapshot)
        if (number, snapshot.epoch) == (trial, epoch):
            then(path)
            die()
        return path

    checkpoints.write = deadly


def spoil_state(path: Path) -> None:
    """Flip a bit of the state of a checkpoint."""
    data = bytearray((path / STATE_TENSORS).read_bytes())
    data[-1] ^= 1
    (path / STATE_TENSORS).write_bytes(data)


def before_forgetting(epoch: int, trial: int) -> None:
    """Die when a checkpoint is in its place, and the one before it still has its state."""

    def deadly(path: Path) -> None:
        if path.parts[-2:] == (f"{trial:05d}", f"{epoch:05d}"):
            die()
        remove_state(path)

    checkpoints.remove_state = deadly  # type: ignore[attr-defined]


def while_clearing(trial: int) -> None:
    """Die when the second start of a trial, which can use none of its checkpoints, has deleted the first of them."""
    original = shutil.rmtree

    def deadly(path: Path, ignore_errors: bool = False) -> None:
        if Path(path).parent.name == f"{trial:05d}":
            original(path)
            die()
        original(path, ignore_errors=ignore_errors)

    shutil.rmtree = deadly  # type: ignore[assignment]


#: Moment -> what is prepared before the study runs; several are deaths one after the other.
MOMENTS: dict[str, tuple[Callable[[], object], ...]] = {
    "weights-not-yet-named": (lambda: inside_checkpoints("weights.safetensors", 5),),
    "record-not-yet-named": (lambda: inside_checkpoints("checkpoint.json", 5),),
    "checkpoint-not-yet-named": (lambda: before_rename("00004", 2),),
    "state-not-yet-named": (lambda: inside_checkpoints("state.sha256", 5),),
    "stored": (lambda: after_storing(4, 2),),
    "two-states": (lambda: before_forgetting(2, 2),),
    "twice": (lambda: after_storing(2, 2), lambda: after_storing(4, 2)),
    "stored-and-spoilt": (lambda: after_storing(4, 2, spoil_state),),
    "while-clearing": (lambda: after_storing(6, 2, spoil_state), lambda: while_clearing(2)),
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
