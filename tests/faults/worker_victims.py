"""Workers that end at a chosen moment of a trial, once or each time; what a study script calls in its task()."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch

from autoprune.records import atomic, results
from autoprune.records.results import Results
from autoprune.search.proposal import Proposal
from autoprune.study import trials
from autoprune.study.executors.task_worker import TaskWorker
from autoprune.trial import candidate

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def in_worker() -> bool:
    main = sys.modules["__main__"]
    of_ray = str(getattr(main, "__file__", "")).endswith("default_worker.py")
    return of_ray or (main.__spec__ is not None and main.__spec__.name == "autoprune.study.executors.worker")


def arm(arguments: dict[str, object], victim: str, folder: str) -> None:
    """Prepare a worker for what shall happen to it; called by task(), with the arguments of the Task."""
    if not in_worker():
        return
    name, _, number = victim.partition(" ")
    place = Path(folder)
    match name:
        case "train":
            arguments["loss"] = dying_loss(cast("Loss", arguments["loss"]), place)
        case "poison":
            at_trial(int(number), lambda: os.kill(os.getpid(), signal.SIGKILL))
        case "stop":
            at_trial(int(number), stop)
        case "memory":
            at_trial(int(number), out_of_memory)
        case "wait":
            wait_for_ever(place)
        case "note":
            at_trial(int(number), lambda: (place / "trained").open("a").write(f"{number} "))
        case _:
            die_at(name, place)


def wait_for_ever(place: Path) -> None:
    """Wait in task(), in all workers but the first one."""
    if not once(place / "made"):
        (place / "waits").write_text(str(os.getpid()))
        while True:
            time.sleep(60)


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def once(marker: Path) -> bool:
    """Whether this is the first time, in any process."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def kill_once(marker: Path) -> None:
    if once(marker):
        os.kill(os.getpid(), signal.SIGKILL)


def before(place: object, name: str, act: Callable[..., object]) -> None:
    """Call a function with the same arguments before another one."""
    original = getattr(place, name)

    def replacement(*args: object, **kwargs: object) -> object:
        act(*args)
        return original(*args, **kwargs)

    setattr(place, name, replacement)


def die_at(phase: str, folder: Path) -> None:
    """Prepare the death of the first worker that comes to a phase."""

    def kill(*_: object) -> None:
        kill_once(folder / f"died-{phase}")

    def kill_at_a_result(place: Path) -> None:  # its folder is about to be synced, and has its name already
        if place.name == "results":
            kill()

    write = Results.write

    def die_after(self: Results, *args: object) -> None:
        write(self, *args)  # type: ignore[arg-type]
        kill()

    prepare: dict[str, Callable[[], None]] = {
        "cut": lambda: before(trials, "evaluate_resolved", kill),
        "measure": lambda: before(candidate, "evaluate", kill),
        "store": lambda: before(results, "write_atomically", kill),
        "named": lambda: before(atomic, "sync_folder", kill_at_a_result),
        "stored": lambda: setattr(Results, "write", die_after),
    }
    prepare[phase]()


def at_trial(number: int, act: Callable[[], object]) -> None:
    """Act when a worker begins one trial."""

    def when_it_is(_: TaskWorker, proposal: Proposal, *__: object) -> None:
        if proposal.number == number:
            act()

    before(TaskWorker, "run", when_it_is)


def dying_loss(loss: Loss, folder: Path) -> Loss:
    """A loss that ends the first worker that has trained three steps."""
    steps = 0

    def dying(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += outputs.requires_grad
        if steps == 3:
            kill_once(folder / "died-train")
        return loss(outputs, targets)

    return dying


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(0.01)
