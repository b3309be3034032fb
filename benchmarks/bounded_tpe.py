"""TPE that sees the best and the latest trials, against TPE that sees all of them: what is found, and time to ask.

    python -m benchmarks.bounded_tpe [--trials 1000] [--seeds 2] [--groups 30]

The synthetic problems of `benchmarks.search`, in the guided space with a scan. Up to 250 trials both are the same.
"""

from __future__ import annotations

from unittest import mock

import optuna
import typer

from autoprune.search.samplers import bounded_tpe
from benchmarks.reporting import print_table, spread
from benchmarks.search.problems import draw
from benchmarks.search.replay import Method, replay

_METHOD = Method(label="guided, TPE", space="guided", scan=True, sampler="tpe")
#: Problems on which TPE is not at its end after 200 trials.
_KINDS = ("interactions", "bad scan")
#: Name -> finished trials that it sees.
_SEEN = {f"best {bounded_tpe.BEST} and latest, {bounded_tpe.SEEN} in all": bounded_tpe.SEEN, "all": 10**9}


def main(trials: int = 1000, seeds: int = 2, groups: int = 30) -> None:
    """Run both on every problem and print."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = []
    for kind in _KINDS:
        problems = [draw(kind, groups, seed) for seed in range(seeds)]
        for name, seen in _SEEN.items():
            with mock.patch.object(bounded_tpe, "SEEN", seen):
                found = [replay(problem, _METHOD, trials, seed) for seed, problem in enumerate(problems)]
            shares, times = [one.share for one in found], [1e3 * one.ask_seconds for one in found]
            rows.append([kind, name, spread(shares), spread(times, 0)])
            print(*rows[-1], sep=" | ", flush=True)
    print_table(
        f"Share of the true front's hypervolume after {trials} trials, {groups} groups",
        ("problem", "trials that TPE sees", "share", "ask, ms of processor time"),
        rows,
    )


if __name__ == "__main__":
    typer.run(main)
