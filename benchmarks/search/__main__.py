"""Samplers and spaces on synthetic problems with a known front: share of its hypervolume, and time to ask.

    python -m benchmarks.search [--trials 200] [--seeds 3] [--groups 30 --groups 50 --groups 100] [--quick]

The problems are in problems.py, the searches in replay.py. Every search gets the dense model and a uniform sweep of
eight points, and with a scan ten solved allocations; all count as trials. The sampler was tuned on problem seeds 10 to
12; the tables are of seeds 0, 1, ... A GP takes seconds to ask where there are many groups and is shown for 30.
"""

from __future__ import annotations

import functools
from typing import Annotated

import optuna
import torch
import typer

from benchmarks.reporting import print_machine, print_table, spread
from benchmarks.search.problems import KINDS, Problem, draw
from benchmarks.search.replay import Method, ask_seconds, replay

#: The searches that the goals are about.
MAIN = (
    Method(label="uniform sweep", space="guided", scan=False, sampler=""),
    Method(label="sensitivity sweep", space="guided", scan=True, sampler=""),
    Method(label="guided, TPE", space="guided", scan=True, sampler="tpe"),
    Method(label="guided, evolution", space="guided", scan=True, sampler="evolution"),
    Method(label="guided without scan, evolution", space="guided", scan=False, sampler="evolution"),
    Method(label="reduced without scan, evolution", space="reduced", scan=False, sampler="evolution"),
    Method(label="direct, evolution", space="direct", scan=False, sampler="evolution"),
)
SAMPLED = ("tpe", "evolution", "nsga2", "nsga3", "gp", "qmc", "random")
#: A GP is shown for at most so many groups and trials.
_GP_GROUPS, _GP_TRIALS = 30, 60

drawn = functools.cache(draw)


def main(
    trials: int = 200,
    seeds: int = 3,
    groups: Annotated[list[int] | None, typer.Option()] = None,
    quick: Annotated[bool, typer.Option(help="One seed, 30 groups, no table of all samplers.")] = False,
) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print_machine()
    sizes = [30] if quick else groups or [30, 50, 100]
    repeats = 1 if quick else seeds
    for kind in KINDS:
        _of_kind(kind, sizes, repeats, trials)
    if not quick:
        _of_samplers(min(sizes), repeats, trials)
        _of_time(max(sizes))


def _of_kind(kind: str, sizes: list[int], seeds: int, trials: int) -> None:
    rows = []
    for method in MAIN:
        shares = [[_share(drawn(kind, size, seed), method, trials, seed) for seed in range(seeds)] for size in sizes]
        rows.append([method.label, *(spread(values) for values in shares)])
    print_table(
        f"{kind.capitalize()}: share of the true front's hypervolume after {trials} trials, median of {seeds} (range)",
        ("search", *(f"{size} groups" for size in sizes)),
        rows,
    )


def _of_samplers(size: int, seeds: int, trials: int) -> None:
    rows = []
    for name in SAMPLED:
        slow = name == "gp"
        if slow and size > _GP_GROUPS:
            continue
        row = [f"{name}, {_GP_TRIALS} trials" if slow else name]
        for space, scan in (("guided", True), ("guided", False), ("direct", False)):
            method = Method(label=name, space=space, scan=scan, sampler=name)
            shares = [
                _share(drawn("separable", size, seed), method, _GP_TRIALS if slow else trials, seed)
                for seed in range(1 if slow else seeds)
            ]
            row.append(spread(shares))
        rows.append(row)
    print_table(
        f"Every sampler, separable, {size} groups, {trials} trials",
        ("sampler", "guided", "guided without scan", "direct"),
        rows,
    )


def _of_time(size: int) -> None:
    rows = []
    for name in ("tpe", "evolution", "nsga2", "nsga3", "qmc", "random"):
        method = Method(label=name, space="direct", scan=False, sampler=name)
        seconds = ask_seconds(drawn("separable", size, 0), method, 1000, 0)
        rows.append([name, f"{1e3 * seconds:.0f}"])
    print_table(f"One ask at 1,000 trials and {size} groups, processor time", ("sampler", "ms"), rows)


def _share(problem: Problem, method: Method, trials: int, seed: int) -> float:
    return replay(problem, method, trials, seed).share


if __name__ == "__main__":
    typer.run(main)
