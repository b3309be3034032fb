"""One search on one synthetic problem, as a study would run it but for the training."""

from __future__ import annotations

import statistics
import time
import warnings
from dataclasses import dataclass

import numpy as np
import optuna

from autoprune.front.dominance import hypervolume
from autoprune.plan.widths import planned_widths
from autoprune.search.samplers.registry import sampler
from autoprune.search.space.setting_groups import RecoverySettings, SearchSettings, StructureSettings
from autoprune.search.space.settings import SpaceSettings
from autoprune.search.space.space import Space, budgets, build_space
from benchmarks.search.problems import REFERENCE, Problem

#: Warm starts beside the dense model: points of the uniform sweep, and solved allocations where there is a scan.
UNIFORM, SOLVED = 8, 10


@dataclass(frozen=True, kw_only=True)
class Method:
    """How to search.

    label: for people. space: kind of the space. scan: whether it knows the scan. sampler: its name; "" goes through
    the solved allocations of as many budgets as there are trials, or without a scan through the uniform sweep.
    """

    label: str
    space: str
    scan: bool
    sampler: str


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What a search reached.

    share: of the true front's hypervolume. ask_seconds: median of the last ten asks.
    """

    share: float
    ask_seconds: float


def space_of(problem: Problem, kind: str, scan: bool) -> tuple[SpaceSettings, Space]:
    """The real space on the problem's topology; widths are all there is to choose."""
    settings = SpaceSettings(
        structure=StructureSettings(criteria=("l2",)),
        recovery=RecoverySettings(learning_rate=0.05),
        search=SearchSettings(space=kind, scan=scan),
    )
    return settings, build_space(settings, problem.topology, problem.scan if scan else None)


def replay(problem: Problem, method: Method, trials: int, seed: int) -> Replayed:
    """Run one search of so many trials, warm starts included."""
    settings, space = space_of(problem, method.space, method.scan)

    def evaluate(parameters: dict[str, float | int | str | bool]) -> tuple[float, float]:
        return problem.evaluate(planned_widths(space.decode(parameters, seed=0), problem.topology))

    if not method.sampler:
        point = space.solved if method.scan else space.uniform
        swept = [point(budget) for budget in budgets(settings, problem.topology, trials - 1)]
        found = [(0.0, 1.0), *(evaluate(parameters) for parameters in swept if parameters is not None)]
        return Replayed(share=_share(found, problem), ask_seconds=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler(method.sampler, seed))
    study.enqueue_trial(space.uniform(1.0))
    for budget in budgets(settings, problem.topology, UNIFORM):
        study.enqueue_trial(space.uniform(budget))
    for budget in budgets(settings, problem.topology, SOLVED) if method.scan else ():
        study.enqueue_trial(space.solved(budget) or {})
    found, asked = [], []
    for _ in range(trials):
        start = time.process_time()
        trial = study.ask(dict(space.distributions))
        asked.append(time.process_time() - start)
        values = evaluate(trial.params)
        # The limit that a user sets who has no use for what lies beyond it; hypervolume counts nothing there.
        trial.set_constraint("max_drop", values[0] - REFERENCE[0])
        found.append(values)
        study.tell(trial, values)
    return Replayed(share=_share(found, problem), ask_seconds=statistics.median(asked[-10:]))


def ask_seconds(problem: Problem, method: Method, trials: int, seed: int) -> float:
    """Median processor time of ten asks of a study that holds so many finished trials, drawn at random."""
    _, space = space_of(problem, method.space, method.scan)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=optuna.samplers.RandomSampler(seed=seed))
    distributions, drawn = dict(space.distributions), []
    for _ in range(trials):
        trial = study.ask(distributions)
        drawn.append(trial)
        study.tell(trial, problem.evaluate(planned_widths(space.decode(trial.params, seed=0), problem.topology)))
    study.sampler = sampler(method.sampler, seed)
    study.ask(distributions)
    asked = []
    for _ in range(10):
        start = time.process_time()
        trial = study.ask(distributions)
        asked.append(time.process_time() - start)
        study.tell(trial, problem.evaluate(planned_widths(space.decode(trial.params, seed=0), problem.topology)))
    return statistics.median(asked)


def _share(found: list[tuple[float, float]], problem: Problem) -> float:
    return hypervolume(np.array(found), REFERENCE) / problem.best
