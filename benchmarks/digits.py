"""The digits study against two baselines at equal samples processed.

    python -m benchmarks.digits [--seeds 3] [--steps 150] [--trials 16] [--samplers tpe,evolution]

With --samplers these are compared in place of the baselines, without polish and early stopping, so that all that is
not a warm start is theirs. Else
- autoprune: guided space, TPE, lineage, as in studies/digits;
- uniform: the budgets of autoprune's own chain, each pruned uniformly from dense by L2 and fine-tuned longer;
- NSGA-II: Optuna's NSGA-II over one ratio for each group, each trial pruned from dense.

Each baseline's steps are set so that it processes at least as many samples as autoprune did, its scan and its
recalibrations included. The search split decides each front; the hypervolume is that of the front's members on the
test split, over (accuracy from 0.5 to 1, cost from 0 to dense), as a share of the whole area. The cost axis is the
share of dense multiply-adds, linear, and again in its logarithm from 0.5 % up, where small models count as much as
large ones.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer

import autoprune
from autoprune.front.dominance import hypervolume
from autoprune.search.space.setting_groups import RecoverySettings, SearchSettings
from autoprune.search.space.settings import SpaceSettings
from benchmarks.reporting import print_machine, print_table, spread
from studies.digits.study import settings, task

#: Smallest share of the multiply-adds on the logarithmic axis.
_LOWEST = 0.005


class Result(NamedTuple):
    """One method, one seed: hypervolumes, samples processed, candidates on the front."""

    linear: float
    logarithmic: float
    samples: int
    front: int


def main(
    seeds: int = 3,
    steps: int = settings.recovery.lengths[1],
    trials: int = settings.trials,
    samplers: Annotated[str, typer.Option(help="Compare these, with commas between.")] = "",
) -> None:
    """Run the three methods for each seed."""
    torch.set_num_threads(1)
    print_machine()
    if samplers:
        off = {"search.polish": 0.0, "search.early_stopping": "none"}
        ours_at = [_ours(steps).changed({**off, "search.sampler": name}) for name in samplers.split(",")]
        _print({space.search.sampler: [_run(seed, space, trials) for seed in range(seeds)] for space in ours_at})
        return
    found: dict[str, list[Result]] = {"autoprune": [], "uniform from dense": [], "NSGA-II from dense": []}
    for seed in range(seeds):
        ours = _run(seed, _ours(steps), trials)
        found["autoprune"].append(ours)
        points = settings.search.solved_points
        off = {"search.solved_points": 0, "search.lineage": False, "search.early_stopping": "none"}
        from_dense = _direct(steps).changed(off)
        uniform = _longer(from_dense, ours.samples, points).changed({"search.uniform_points": points})
        found["uniform from dense"].append(_run(seed, uniform, points + 1))
        plain = _longer(from_dense, ours.samples, trials - 1).changed({"search.sampler": "nsga2"})
        found["NSGA-II from dense"].append(_run(seed, plain, trials))
    _print(found)


def _print(found: Mapping[str, list[Result]]) -> None:
    rows = [
        [
            name,
            spread([r.linear for r in results], 4),
            spread([r.logarithmic for r in results], 4),
            f"{min(r.samples for r in results):,}",
            spread([float(r.front) for r in results], 0),
        ]
        for name, results in found.items()
    ]
    columns = ("method", "hypervolume, linear", "hypervolume, logarithmic", "samples processed, least", "front")
    print_table(
        f"Digits, {len(next(iter(found.values())))} seeds, test split, median (lowest to highest)", columns, rows
    )


def _ours(steps: int) -> SpaceSettings:
    return settings.changed({"recovery.steps": steps})


def _direct(steps: int) -> SpaceSettings:
    """One ratio per group, L2, and what suits a long fine-tune from dense: a one-cycle rate with a peak of 0.1."""
    return SpaceSettings(
        recovery=RecoverySettings(
            steps=steps,
            length_exponent=0.0,
            schedulers=("one_cycle",),
            learning_rate=0.1,
            averaging=(0.0,),
            distillation=(0.5,),
        ),
        search=SearchSettings(space="direct", min_budget=settings.search.min_budget),
    )


def _longer(space: SpaceSettings, samples: int, trials: int) -> SpaceSettings:
    """As many steps a trial as bring `trials` trials to at least `samples` samples, recalibration included."""
    batch = 64
    steps = math.ceil((samples / trials - space.recovery.recalibration[0]) / batch)
    return space.changed({"recovery.steps": max(steps, 1)})


def _run(seed: int, space: SpaceSettings, trials: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        own = {one.name: getattr(space, one.name) for one in fields(SpaceSettings)}
        objectives = ("quality", "multiply_adds")
        given = {"seed": seed, "trials": trials, "objectives": objectives, "measure.latency_rounds": 0}
        chosen = replace(settings, **own).changed(given)
        study = autoprune.Study.create(task(), chosen, out=f"{folder}/run")
        front = study.run()
        dense = front.get(0).search.multiply_adds
        points = np.array([[-(r.test or r.search).quality, r.search.multiply_adds / dense] for r in front.strict])
        logarithmic = points.copy()
        logarithmic[:, 1] = 1 - np.log(np.maximum(points[:, 1], _LOWEST)) / math.log(_LOWEST)
        work = study.samples()
        assert study.context is not None
        evaluated = len(study.records) * (study.context.task.search_split.samples or 0)
        return Result(
            linear=hypervolume(points, (-0.5, 1.0 + 1e-9)) / 0.5,
            logarithmic=hypervolume(logarithmic, (-0.5, 1.0 + 1e-9)) / 0.5,
            # Every method evaluates each candidate on the search split; that is left out for all of them.
            samples=work.total - evaluated,
            front=len(front.strict),
        )


if __name__ == "__main__":
    typer.run(main)
