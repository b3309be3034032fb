"""What a report takes: the whole page of a study of many trials, figures, tables and importances included.

    python -m benchmarks.report [--trials 3000] [--groups 20]

The run folder is made up: candidates of random widths whose quality follows their cost, with noisy latencies, rungs,
candidates that were stopped, failed or removed, and a scan.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import typer

from autoprune.front.run import Run
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.measurement import DEFAULT_PROFILE, Latency, Measurement
from autoprune.records.origins import Origin
from autoprune.records.run_folder import RunFolder
from autoprune.records.sensitivity import Sensitivity
from autoprune.report.html import write_report
from autoprune.search.settings import StudySettings
from benchmarks.reporting import print_machine, print_table

_CHANNELS = 64


def main(trials: int = 3000, groups: int = 20) -> None:
    """Write the report of a study of that many trials and print the processor time that it takes."""
    print_machine()
    rows = []
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(Path(path) / "run")
        records = random_records(trials, groups)
        write_run(folder, groups)
        run = replace(Run.open(folder.path), records=tuple(records))
        front = run.front()
        write_report(run)  # loads plotly and its template
        started = time.process_time()
        page = write_report(run)
        taken = time.process_time() - started
        rows.append([f"{trials:,}", str(groups), str(len(front.members)), f"{taken:.2f}", f"{page.stat().st_size:,}"])
    print_table("Report", ("trials", "groups", "front", "processor time, s", "bytes"), rows)


def random_records(count: int, groups: int = 20, seed: int = 0) -> list[CandidateRecord]:
    """The dense model and candidates whose quality follows their cost, of every kind that there is."""
    random = np.random.default_rng(seed)
    found = [_record(0, np.ones(groups), random)]
    for number in range(1, count):
        budget = 10 ** random.uniform(-1.5, 0.0)
        found.append(_record(number, np.clip(budget * random.lognormal(0.0, 0.3, groups), 1 / _CHANNELS, 1.0), random))
    return found


def write_run(folder: RunFolder, groups: int) -> None:
    """The description and the scan of a study of so many groups."""
    names = [f"layer{number}" for number in range(groups)]
    folder.write_study(
        {
            "name": "made up",
            "quality": "accuracy",
            "higher_is_better": True,
            "settings": StudySettings().to_dict(),
            "groups": [{"name": name, "channels": _CHANNELS} for name in names],
            "unprunable": [],
        }
    )
    shares = (0.75, 0.5, 0.25, 0.1)
    added = {name: tuple(0.01 * (1 + place) * (1 / share - 1) for share in shares) for place, name in enumerate(names)}
    folder.write_sensitivity(
        Sensitivity(keep_shares=shares, added_loss=added, criterion="l2", samples_forward=10_000, samples_trained=0)
    )


def _record(number: int, shares: np.ndarray, random: np.random.Generator) -> CandidateRecord:
    widths = np.maximum((shares * _CHANNELS).round().astype(int), 1)
    cost = float(np.mean(widths / _CHANNELS))
    quality = 0.95 - 0.02 / cost + 0.01 * random.normal()
    ratio, width = cost**0.5 * random.lognormal(0.0, 0.05), random.uniform(0.005, 0.05)
    share = float(random.choice([0.0, 0.25, 0.5], p=[0.1, 0.2, 0.7]))
    stopped = number > 0 and random.random() < 0.3
    names = [f"layer{place}" for place in range(len(widths))]
    criteria = {f"criterion/{name}": str(random.choice(["l1", "l2", "taylor"])) for name in names}
    plans = {name: GroupPlan(ratio=1 - float(kept), criterion="l2") for name, kept in zip(names, shares, strict=True)}
    return CandidateRecord(
        number=number,
        origin=Origin(
            "dense" if number == 0 else str(random.choice(["uniform", "solved", "polished", *["sampled"] * 17]))
        ),
        plan=PruningPlan(groups=plans),
        kept={name: tuple(range(width)) for name, width in zip(names, widths.tolist(), strict=True)},
        search=Measurement(
            split="search",
            quality=float(quality) if random.random() > 0.01 else float("nan"),
            quality_error=0.01,
            metrics={"accuracy": float(quality)},
            parameters=int(1e5 * cost),
            multiply_adds=int(1e6 * cost),
            size_bytes=int(4e5 * cost),
            latencies={} if random.random() < 0.2 else {DEFAULT_PROFILE: _latency(ratio, width)},
        ),
        parent=None if number == 0 else int(random.integers(number)),
        samples_forward=2_000,
        samples_trained=0 if number == 0 else 10_000,
        lineage_trained=0 if number == 0 else 30_000,
        seconds={"train": 1.0, "evaluate": 0.1},
        note="the loss is nan" if random.random() < 0.01 else "",
        rungs=((0.0, 0.3 + 0.1 * random.random()), (share, quality - 0.05)) if share and number else (),
        fidelity=max(share, 0.25) if stopped else 1.0,
        removed=number > 0 and random.random() < 0.3,
        parameters={"budget": cost, **criteria},
    )


def _latency(ratio: float, half_width: float) -> Latency:
    return Latency(
        latency_ms=10 * ratio,
        low_ms=10 * ratio * (1 - half_width),
        high_ms=10 * ratio * (1 + half_width),
        dense_ms=10.0,
        ratio=ratio,
        ratio_low=ratio * (1 - half_width),
        ratio_high=ratio * (1 + half_width),
        backend="eager",
        rounds=9,
    )


if __name__ == "__main__":
    typer.run(main)
