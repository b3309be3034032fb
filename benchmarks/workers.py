"""How much more several workers do in the same time, and what that costs the result.

    python -m benchmarks.workers [--trials 24] [--steps 60] [--repetitions 3]   # one process, one worker, two workers
    python -m benchmarks.workers --trivial [--trials 120]             # trials that train nothing, at 1, 2, 4, 8 workers

First form: the digits study without latency, in turn with the same seed, in each repetition with another one. Trials
a minute are counted from the third finished trial to the last, so that the start of the processes is left out; the
seconds of the whole run hold it. The hypervolume is that of the front on the search split, over (accuracy from 0.5 to
1, share of the dense multiply-adds), as a share of the area. Second form: what the driver and the file system allow.
The machine has to be idle, and have as many cores as workers.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import typer

import autoprune
from autoprune.study.progress import Progress
from benchmarks.reporting import print_machine, print_table, spread
from studies.digits.study import settings, task

#: Finished trials before the count begins.
_FIRST = 3


@dataclass(slots=True)
class Timing:
    """Times at which trials finished.

    Attributes:
        begun: Time at which the run began.
        finished: Time of each finished trial.
        hypervolume: That of the front.
    """

    begun: float = field(default_factory=time.monotonic)
    finished: list[float] = field(default_factory=list)
    hypervolume: float = 0.0

    def follow(self, progress: Progress) -> None:
        """Note the trials that have finished."""
        if progress.stage == "trial":
            self.finished += [time.monotonic()] * (progress.done - len(self.finished))

    @property
    def a_minute(self) -> float:
        """Trials a minute, without the first ones."""
        counted = self.finished[_FIRST - 1 :]
        return 60.0 * (len(counted) - 1) / (counted[-1] - counted[0])

    @property
    def seconds(self) -> float:
        """Seconds of the whole run."""
        return self.finished[-1] - self.begun


def timed(prepared: autoprune.PreparedTask, given: autoprune.StudySettings, workers: int | None) -> Timing:
    """Run a study."""
    with tempfile.TemporaryDirectory() as folder:
        study = autoprune.Study.create(prepared, given, out=Path(folder) / "run")
        found = Timing()
        front = study.run(workers=workers, on_progress=found.follow)
        found.hypervolume = front.hypervolume(worst_quality=0.5)
    return found


def compare(trials: int, steps: int, repetitions: int) -> None:
    """Run the digits study in one process, with one worker, and with two."""
    prepared = autoprune.prepare(task())
    off = {"measure.latency_rounds": 0, "trials": trials, "objectives": ("quality", "multiply_adds")}
    off["recovery.steps"] = steps
    found: dict[str, list[Timing]] = {}
    for seed in range(repetitions):
        for name, workers in {"in one process": None, "1 worker": 1, "2 workers": 2}.items():
            found.setdefault(name, []).append(timed(prepared, settings.changed({**off, "seed": seed}), workers))
            print(name, seed, f"{found[name][-1].a_minute:.1f} trials a minute", flush=True)
    base = [one.a_minute for one in found["1 worker"]]

    def ratios(rows: list[Timing]) -> str:
        return spread([one.a_minute / other for one, other in zip(rows, base, strict=True)], 2)

    columns: dict[str, Callable[[list[Timing]], str]] = {
        "trials a minute": lambda rows: spread([one.a_minute for one in rows], 1),
        "of one worker": ratios,
        "seconds": lambda rows: spread([one.seconds for one in rows], 1),
        "hypervolume": lambda rows: spread([one.hypervolume for one in rows]),
    }
    rows = [[name, *(show(timings) for show in columns.values())] for name, timings in found.items()]
    print_table(f"Digits, {trials} trials of {steps} steps, {os.cpu_count()} cores", ["", *columns], rows)


def scale(trials: int, repetitions: int) -> None:
    """Run a study whose trials train nothing, with more and more workers."""
    prepared = autoprune.prepare(task())
    brief = {"recovery.steps": 0, "search.scan": False, "search.sampler": "random", "search.solved_points": 0}
    off = {"measure.latency_rounds": 0, "trials": trials, "objectives": ("quality", "multiply_adds")}
    rows = []
    for workers in (1, 2, 4, 8):
        timings = [timed(prepared, settings.changed({**brief, **off, "seed": s}), workers) for s in range(repetitions)]
        rows.append([str(workers), spread([one.a_minute / 60 for one in timings], 1)])
        print(*rows[-1], flush=True)
    print_table(f"Trials that train nothing, {os.cpu_count()} cores", ["workers", "trials a second"], rows)


def main(trials: int = 24, steps: int = 60, repetitions: int = 3, trivial: bool = False) -> None:
    """Run one form of the benchmark."""
    torch.set_num_threads(1)
    print_machine()
    if trivial:
        scale(trials, repetitions)
    else:
        compare(trials, steps, repetitions)


if __name__ == "__main__":
    typer.run(main)
