"""Time to look at a run of many trials: opening, refreshing, the front, and a choice.

    python -m benchmarks.looking [--trials 3000] [--groups 20]

The run folder is made up like that of `benchmarks.report`, with a quality of 200 folds of samples for each candidate.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import typer

from autoprune.front.front import Front
from autoprune.front.live import RunWatcher
from autoprune.records.candidate import CandidateRecord
from autoprune.records.limits import Limits
from autoprune.records.run_folder import CANDIDATES, RECORD, RunFolder
from autoprune.records.weights_file import REMOVED
from benchmarks.report import random_records, write_run
from benchmarks.reporting import print_machine, print_table

T = TypeVar("T")
_FOLDS = 200
#: Calls of a brief look.
_TIMES = 10


def main(trials: int = 3000, groups: int = 20) -> None:
    """Make a run folder of that many trials and print the processor time that each look takes, in milliseconds."""
    print_machine()
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(Path(path) / "run")
        write_candidates(folder, trials, groups)
        rows = [[f"{trials:,}", what, f"{1000 * taken:.1f}"] for what, taken in _looks(folder)]
    print_table("Looking at a run", ("trials", "what", "processor time, ms"), rows)


def write_candidates(folder: RunFolder, trials: int, groups: int) -> None:
    """Write a study whose candidates have noise in common, without weights."""
    write_run(folder, groups)
    random = np.random.default_rng(1)
    common = random.normal(size=_FOLDS)
    for record in random_records(trials, groups):
        deviations = common + random.normal(size=_FOLDS)
        deviations *= 0.01 / np.linalg.norm(deviations)
        search = replace(record.search, deviations=tuple(deviations.tolist()))
        _write(folder, replace(record, search=search))


def _write(folder: RunFolder, record: CandidateRecord) -> None:
    place = folder.path / CANDIDATES / f"{record.number:05d}"
    place.mkdir(parents=True)
    (place / RECORD).write_text(record.to_json())
    if record.removed:
        (place / REMOVED).touch()
    os.utime(place, (1e9, 1e9))  # as if it had been finished long ago


def _looks(folder: RunFolder) -> Iterator[tuple[str, float]]:
    """Yield the name of each look, and the processor time that it takes in seconds."""
    watcher, taken = _timed(lambda: RunWatcher(folder.path))
    yield "open", taken
    yield "refresh without change", _timed(watcher.refresh, _TIMES)[1]
    last = watcher.run.records[-1]
    _write(folder, replace(last, number=last.number + 1, removed=False))
    yield "refresh with a new candidate", _timed(watcher.refresh)[1]
    shutil.rmtree(folder.path / CANDIDATES / f"{last.number + 1:05d}")
    front, taken = _timed(watcher.run.front)
    yield "front", taken
    yield from _choices(front)


def _choices(front: Front) -> Iterator[tuple[str, float]]:
    limits = Limits(max_drop=0.02)
    yield "first choice within a limit", _timed(lambda: front.choice(limits))[1]
    yield "choice within a limit", _timed(lambda: front.choice(limits), _TIMES)[1]
    yield "candidates within a limit", _timed(lambda: front.within(limits), _TIMES)[1]
    weights = {"quality": 1.0, "latency_ms": 1.0}
    yield "choice by weights", _timed(lambda: front.weighted(weights), _TIMES)[1]


def _timed(call: Callable[[], T], times: int = 1) -> tuple[T, float]:
    started = time.process_time()
    found = [call() for _ in range(times)]
    return found[-1], (time.process_time() - started) / times


if __name__ == "__main__":
    typer.run(main)
