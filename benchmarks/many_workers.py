"""Many workers at one search, simulated: proposals per second, where the proposing process saturates, what is found.

    python -m benchmarks.many_workers [--workers 1,8,64] [--trials 400] [--seeds 3] [--trial-seconds 60]

The trials are those of a model of numbers (`benchmarks.numbers_model`): nothing is trained, and their durations are
drawn from those of a recorded study (`tests/golden/runs`), scaled to a mean of `--trial-seconds`. The search is the
real one with its journal file. One process proposes: the clock of the simulation runs on by the processor time that
each `ask` and each `tell` really takes, and workers that are done wait for their turn. Early stopping is decided by
the workers.

Hypervolume is that of the front over (quality, logarithm of the multiply-adds from 1 % of dense up), by the qualities
without their noise, as a share of that of one worker with the same seed and as many trials.
"""

from __future__ import annotations

import heapq
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import typer

from autoprune.front.dominance import hypervolume
from autoprune.front.run import Run
from autoprune.records.candidate import CandidateRecord
from autoprune.search.ledger import Ledger
from autoprune.search.proposal import Proposal
from autoprune.search.search import Search
from autoprune.search.storage import open_journal
from benchmarks.commands import GOLDEN
from benchmarks.numbers_model import NumbersModel
from benchmarks.reporting import print_table, spread

T = TypeVar("T")
#: Smallest share of the multiply-adds on the logarithmic axis, and the quality at which the hypervolume is 0.
_LOWEST, _WORST = 0.01, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One simulated study.

    Attributes:
        seconds: Simulated time from the first ask to the last tell.
        proposing: Part of it in which the one process asked or told.
        used: Part of the workers' time in which they ran trials.
        asks: Seconds of each ask that gave a proposal.
        tells: Seconds of each tell.
        volume: Hypervolume that was found.
    """

    seconds: float
    proposing: float
    used: float
    asks: tuple[float, ...]
    tells: tuple[float, ...]
    volume: float


def main(
    workers: str = "1,8,64",
    trials: int = 400,
    seeds: int = 3,
    trial_seconds: float = 60.0,
    groups: int = 40,
    sampler: str = "auto",
) -> None:
    """Simulate every number of workers with several seeds and print."""
    shares = durations()
    rows: list[list[str]] = []
    single: list[float] = []
    for count in (int(one) for one in workers.split(",")):
        found = [simulate(count, trials, (seed, sampler, groups), trial_seconds * shares) for seed in range(seeds)]
        single = single or [one.volume for one in found]
        rows.append(row(count, found, single, trial_seconds))
        print(*rows[-1], sep=" | ", flush=True)
    print_table(
        f"{trials} trials of {trial_seconds:g} s on average, {groups} groups, sampler {sampler}: median (lowest to "
        f"highest) of {seeds} seeds",
        (
            "workers",
            "trials a second",
            "of what so many workers could do, %",
            "time of the proposing process that is taken, %",
            "ask, ms",
            "tell, ms",
            "saturated from, workers",
            "hypervolume against the first row",
        ),
        rows,
    )


def row(count: int, found: Sequence[Outcome], single: Sequence[float], trial_seconds: float) -> list[str]:
    """Return the row of one number of workers."""
    trials = len(found[0].tells)
    asks = statistics.median(seconds for one in found for seconds in one.asks)
    tells = statistics.median(seconds for one in found for seconds in one.tells)
    volumes = [one.volume / first for one, first in zip(found, single, strict=True)]
    return [
        f"{count:,}",
        spread([trials / one.seconds for one in found]),
        spread([100 * one.used for one in found], 0),
        spread([100 * one.proposing / one.seconds for one in found], 1),
        f"{1e3 * asks:.1f}",
        f"{1e3 * tells:.1f}",
        f"{trial_seconds / (asks + tells):,.0f}",
        spread(volumes),
    ]


def durations() -> np.ndarray:
    """Return the durations of the trials of a recorded study but the dense model's, relative to their mean."""
    seconds = np.array([sum(one.seconds.values()) for one in Run.open(GOLDEN).records[1:]])
    return np.asarray(seconds / seconds.mean())


def simulate(workers: int, trials: int, study: tuple[int, str, int], seconds: np.ndarray) -> Outcome:
    """Run one study. study: seed, sampler, groups; seconds: durations to draw from."""
    seed, sampler, groups = study
    numbers, luck = NumbersModel(groups, seed=seed), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.of(open_journal(Path(folder)), numbers.problem)
        search = Search(numbers.model, numbers.settings(sampler, trials, seed), ledger=ledger)
        now = proposing = busy = 0.0
        asks: list[float] = []
        tells: list[float] = []
        running: list[tuple[float, int, Proposal]] = []
        while len(tells) < trials:
            while len(running) < workers and len(running) + len(tells) < trials:
                took, proposal = _timed(search.ask)
                now, proposing = now + took, proposing + took
                if proposal is None:  # the dense model is out
                    break
                asks.append(took)
                duration = float(luck.choice(seconds))
                busy += duration
                heapq.heappush(running, (now + duration, proposal.number, proposal))
            end, _, proposal = heapq.heappop(running)
            result = numbers.result(search, proposal)
            took, _ = _timed(partial(search.tell, proposal, result))
            now, proposing = max(now, end) + took, proposing + took
            tells.append(took)
        return Outcome(
            seconds=now,
            proposing=proposing,
            used=busy / (workers * now),
            asks=tuple(asks),
            tells=tuple(tells),
            volume=volume(search.records),
        )


def volume(records: Sequence[CandidateRecord]) -> float:
    """Return the hypervolume of the candidates that were trained to the end."""
    whole = records[0].search.multiply_adds
    points = [
        (
            -record.search.metrics["accuracy"],
            1 - math.log(max(record.search.multiply_adds / whole, _LOWEST)) / math.log(_LOWEST),
        )
        for record in records
        if not record.stopped
    ]
    return hypervolume(np.array(points), (-_WORST, 1.0 + 1e-9))


def _timed(action: Callable[[], T]) -> tuple[float, T]:
    """Return the processor time of an action, and its result."""
    start = time.process_time()
    found = action()
    return time.process_time() - start, found


if __name__ == "__main__":
    typer.run(main)
