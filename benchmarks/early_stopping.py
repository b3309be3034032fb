"""Rules of early stopping, replayed on recorded studies.

    python -m benchmarks.early_stopping [--seeds 3] [--trials 70] [--steps 40] [--orders 20]

Each study (the network and space of the digits study, polish left out, since it is never stopped) runs with the rule
"audit": every candidate passes its rungs and is trained to the end. Each rule then decides over what was recorded: warm
starts first, which are never stopped, then the rest in the order of the study and in shuffled orders. A candidate that
is stopped costs its training up to the rung, and is missing from the front and from what the rule learns from. What
would have been proposed without it, and whose parent it was, is left as it was recorded.

Shares: training saved, of the steps of all candidates; spent on looks, of the training, a trained sample counted as
three forward passes; hypervolume of what is left on the search split over (accuracy, logarithm of the multiply-adds
from 0.5 % of dense up), of that with all; members of the front with all that were stopped.
"""

from __future__ import annotations

import functools
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import typer

import autoprune
from autoprune.front import dominance
from autoprune.front.rung_audit import audit_rungs
from autoprune.records.candidate import CandidateRecord
from autoprune.records.problem import Problem
from autoprune.search.early_stopping import RULES, FinishedTrial, RungContext, costs_of, finished_trials
from benchmarks.reporting import print_machine, print_table, spread
from studies.digits.study import settings, task

#: Smallest share of the multiply-adds on the logarithmic axis.
_LOWEST = 0.005
PROBLEM = Problem(objectives=("quality", "multiply_adds"), metric="accuracy", higher_is_better=True)


class Result(NamedTuple):
    """One rule, one order: shares."""

    saved: float
    looks: float
    kept: float
    lost: float


def main(seeds: int = 3, trials: int = 70, steps: int = 40, orders: int = 20) -> None:
    """Record, replay, and print."""
    torch.set_num_threads(1)
    print_machine()
    studies = [record(seed, trials, steps, settings.search.rungs) for seed in range(seeds)]
    print_table(
        f"Rank correlation of the rungs with the end, {seeds} studies of {trials} candidates with {steps} steps",
        ("training done", *(f"study {seed}" for seed in range(seeds))),
        [
            [f"{rows[0].share:.0%}", *(f"{row.correlation:.2f} ({row.low:.2f} to {row.high:.2f})" for row in rows)]
            for rows in zip(*(audit_rungs(records) for records in studies), strict=True)
        ],
    )
    columns = ("rule", *(f"{what}, %" for what in ("training saved", "spent on looks", "hypervolume", "front stopped")))
    for title, seen in (("the order of the study", range(1)), (f"{orders} other orders", range(1, orders + 1))):
        rows = []
        for name in RULES:
            found = [replay(name, ordered(records, order), records) for records in studies for order in seen]
            shares = zip(*found, strict=True)
            rows.append([f"`{name}`", *(spread([100 * share for share in column], 1) for column in shares)])
        print_table(f"Replayed in {title}: median (lowest to highest)", columns, rows)


def record(seed: int, trials: int, steps: int, rungs: tuple[float, ...]) -> list[CandidateRecord]:
    """A study in which everything is looked at and nothing is stopped."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = settings.changed(
            {
                "seed": seed,
                "trials": trials,
                "objectives": PROBLEM.objectives,
                "recovery.steps": steps,
                "search.polish": 0.0,
                "search.early_stopping": "audit",
                "search.rungs": rungs,
                "measure.latency_rounds": 0,
            }
        )
        study = autoprune.Study.create(task(), chosen, out=f"{folder}/run")
        study.run()
        return list(study.records)


def ordered(records: Sequence[CandidateRecord], seed: int) -> list[CandidateRecord]:
    """Warm starts, then the rest in an order of its own for each seed; 0 is that of the study."""
    first = [r for r in records if not r.origin.is_stoppable]
    rest = [r for r in records if r.origin.is_stoppable]
    if seed:
        random.Random(seed).shuffle(rest)
    return [*first, *rest]


def replay(name: str, records: Sequence[CandidateRecord], everything: Sequence[CandidateRecord]) -> Result:
    """What a rule would have done with these candidates in this order."""
    seen = finished_trials(records, costs_of(records, PROBLEM), PROBLEM.quality)
    past: list[FinishedTrial] = []
    ended: list[float] = []
    for candidate, whole in zip(records, seen, strict=True):
        stop = _stopped_at(name, candidate, whole, past)
        past.append(whole if stop is None else _cut_short(whole, stop))
        ended.append(1.0 if stop is None else stop)
    steps = np.array([candidate.plan.recovery.steps for candidate in records], dtype=float)
    kept = [candidate for candidate, share in zip(records, ended, strict=True) if share == 1.0]
    points = PROBLEM.losses(everything)
    best = {record.number for record, on in zip(everything, dominance.non_dominated(points), strict=True) if on}
    return Result(
        saved=float(((1.0 - np.array(ended)) * steps).sum() / steps.sum()),
        looks=0.0 if name == "none" else _looked_at(records, ended) / (3 * sum(r.samples_trained for r in records)),
        kept=volume(kept, everything) / volume(everything, everything),
        lost=len(best - {record.number for record in kept}) / len(best),
    )


def _looked_at(records: Sequence[CandidateRecord], ended: Sequence[float]) -> int:
    """Samples passed through a model at rungs."""
    looks = sum(share <= end for record, end in zip(records, ended, strict=True) for share, _ in record.rungs)
    return looks * _samples_of_a_look()


@functools.cache
def _samples_of_a_look() -> int:
    return min(
        settings.search.rung_samples, autoprune.prepare(task()).search_split.samples or settings.search.rung_samples
    )


def _stopped_at(
    name: str, candidate: CandidateRecord, whole: FinishedTrial, past: Sequence[FinishedTrial]
) -> float | None:
    if not candidate.origin.is_stoppable:
        return None
    for share, loss in whole.rungs.items():
        if RULES[name](RungContext(share=share, loss=loss, costs=whole.costs, past=tuple(past))):
            return share
    return None


def _cut_short(whole: FinishedTrial, at: float) -> FinishedTrial:
    rungs = {share: loss for share, loss in whole.rungs.items() if share <= at}
    return replace(whole, rungs=rungs, loss=rungs[at], stopped=True)


def volume(records: Sequence[CandidateRecord], everything: Sequence[CandidateRecord]) -> float:
    """Hypervolume over (accuracy, logarithm of the share of the multiply-adds)."""
    dense = next(record for record in everything if record.origin == "dense").search
    worst = min(record.search.quality for record in everything)
    points = [
        (
            -record.search.quality,
            1 - math.log(max(record.search.multiply_adds / dense.multiply_adds, _LOWEST)) / math.log(_LOWEST),
        )
        for record in records
    ]
    return dominance.hypervolume(np.array(points), (-worst, 1.0 + 1e-9))


if __name__ == "__main__":
    typer.run(main)
