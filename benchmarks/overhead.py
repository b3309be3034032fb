"""What the framework costs: everything in a trial but training, evaluation and latency measurement.

    python -m benchmarks.overhead [--repetitions 3]

Runs the digits study from nothing and takes the wall-clock between finished trials; what the phases "train",
"evaluate" and "latency" do not account for is overhead: asking, decoding, loading the parent, scoring, cutting,
recalibrating, counting, storing, telling.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from itertools import pairwise

import torch
import typer

import autoprune
from benchmarks.reporting import print_machine, print_table, spread
from studies.digits.study import settings, task

_WORK = ("train", "evaluate", "latency")


def main(repetitions: int = 3) -> None:
    """Run the study `repetitions` times with other seeds."""
    torch.set_num_threads(1)
    print_machine()
    rows = []
    for seed in range(repetitions):
        shares, phases = _one(seed)
        rows.append([str(seed), spread(shares, 3), ", ".join(f"{name} {share:.1%}" for name, share in phases.items())])
    print_table(
        "Overhead as a share of a trial's time, median (lowest to highest) over trials",
        ("seed", "overhead", "phases, share of all time"),
        rows,
    )


def _one(seed: int) -> tuple[list[float], dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        study = autoprune.Study.create(task(), replace(settings, seed=seed), out=f"{folder}/run")
        marks: list[float] = []

        def mark(progress: autoprune.Progress) -> None:
            # A proposal that is answered from the record is no trial; its time is part of the next one's.
            if progress.stage == "trial" and progress.done > len(marks):
                marks.append(time.perf_counter())

        study.run(on_progress=mark)
        # The first trial (dense) has no training and marks the start.
        trials = study.records[1:]
        times = [after - before for before, after in pairwise(marks)]
        work = [sum(record.seconds[name] for name in _WORK) for record in trials]
        total = sum(times)
        phases = {name: sum(r.seconds.get(name, 0.0) for r in trials) / total for name in trials[0].seconds}
        return [1 - done / whole for done, whole in zip(work, times, strict=True)], phases


if __name__ == "__main__":
    typer.run(main)
