"""autoprune against hand-written searches and sweeps on Fashion-MNIST, at equal samples processed.

    python -m benchmarks.against [--network resnet14] [--seeds 3] [--steps 1600] [--methods autoprune,uniform]

"autoprune" is studies/fashion_mnist/lineage.py with fine-tunes of another length, and "autoprune by default" is
StudySettings() with as many trials. Every method gets the same range of costs and STEPS optimizer steps of 128 samples,
but for four rows: these two train for 0.6 of them, as what they pass forward only (a scan, a teacher's outputs,
reconstruction) counts as samples too; two more are at the training multiply-adds of the uniform sweep, and at a quarter
of them, where cheaper models are trained for longer. The search split decides each front; hypervolumes are those of the
front's members on the test split, over (accuracy from 0.5 to 1, multiply-adds from 0 to dense), as a share of the whole
area. The last column adds what is passed forward only, all of it as if through the dense model.

What is done is kept under benchmarks/out, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
import typer

import autoprune
from autoprune.search.space.setting_groups import RecoverySettings, SearchSettings, StructureSettings
from autoprune.search.space.settings import SpaceSettings
from autoprune.search.space.space import budgets
from autoprune.task.task import Task
from autoprune.trial.context import TrialContext
from benchmarks.against.by_hand import Bench, Tried, dense_point, front, search, stored, sweep, volume
from benchmarks.against.networks import FOLDER, dense, recovery
from benchmarks.reporting import print_machine, print_table, spread
from studies.fashion_mnist import lineage
from studies.fashion_mnist.data import datasets

BATCH = 128
#: Smallest share of the multiply-adds that a method is asked for.
LOWEST = lineage.settings.search.min_budget
#: Points of a sweep, and trials of a hand-written search.
POINTS, TRIALS = lineage.POINTS, 40
#: What a study of ours trains on at equal samples; the rest pays for the scan, the teacher's outputs, reconstruction.
_TRAINED = 0.6


def main(
    network: str = "resnet14",
    seeds: int = 3,
    steps: int = 1600,
    methods: Annotated[str, typer.Option(help="Some of them, with commas between; all when not given.")] = "",
) -> None:
    """Run what has not been run yet, and print the table."""
    torch.set_num_threads(1)
    print_machine()
    chosen = methods.split(",") if methods else list(METHODS)
    found = {name: [_once(network, name, steps, seed) for seed in range(seeds)] for name in chosen}
    _print(network, found, steps)


def task(network: str) -> Task:
    """Fashion-MNIST with that network; search is a third of what was kept apart, so that evaluating is brief."""
    data = datasets()
    images, targets = data["search"]
    return autoprune.Task(
        model=dense(network),
        example_inputs=data["test"][0][:64],
        train=data["train"],
        search=(images[:2000], targets[:2000]),
        test=data["test"],
        loss=torch.nn.functional.cross_entropy,
        metrics=("accuracy",),
        quality="accuracy",
        batch_size=BATCH,
    )


@functools.cache
def _bench(network: str) -> Bench:
    return Bench(autoprune.prepare(task(network)), recovery(network))


def _shares(network: str) -> list[float]:
    """The same points for every sweep: those of autoprune's own."""
    topology = TrialContext.of(_bench(network).task, kinds=("channels",)).topology
    return budgets(SpaceSettings(search=SearchSettings(min_budget=LOWEST)), topology, POINTS)


def _own(share: float, exponent: float, network: str, steps: int, seed: int) -> list[Tried]:
    """studies/fashion_mnist/lineage.py with fine-tunes of another length.

    share: of the training multiply-adds of a sweep from dense over the same points. exponent: of the lengths.
    """
    shares = np.array(_shares(network))
    steps_at_dense = share * steps / POINTS * shares.sum() / (shares ** (1.0 - exponent)).sum()
    chosen = lineage.settings.changed(
        {
            "recovery.steps": round(steps_at_dense),
            "recovery.length_exponent": exponent,
            "recovery.learning_rate": None,
            "search.scan_samples": steps * BATCH // 10,
        }
    )
    return _study(network, seed, chosen)


def _default(network: str, steps: int, seed: int) -> list[Tried]:
    """The settings that a study has by itself, with the trials of a sweep and lengths that come to as many samples."""
    settings = autoprune.StudySettings(trials=POINTS + 1)
    lengths = (np.array(_shares(network)) ** -settings.recovery.length_exponent).sum()
    return _study(network, seed, settings.changed({"recovery.steps": round(_TRAINED * steps / lengths)}))


def _random(network: str, steps: int, seed: int) -> list[Tried]:
    """Random ratios for each group of channels, from dense."""
    each = steps // TRIALS
    settings = autoprune.StudySettings(
        trials=TRIALS + 1,
        structure=StructureSettings(max_ratio=0.9, criteria=("l2", "l1", "taylor")),
        recovery=RecoverySettings(
            steps=each,
            length_exponent=0.0,
            learning_rate=0.05,
            schedulers=("one_cycle",),
            averaging=(0.0,),
            distillation=(0.0,),
            reconstruction=(256,),
        ),
        search=SearchSettings(
            space="direct", sampler="random", solved_points=0, polish=0.0, lineage=False, early_stopping="none"
        ),
    )
    return _study(network, seed, settings)


def _study(network: str, seed: int, settings: autoprune.StudySettings) -> list[Tried]:
    """The candidates of a study. What is evaluated on the search split is left out, as for every method."""
    bench = _bench(network)
    with tempfile.TemporaryDirectory() as folder:
        chosen = settings.changed(
            {"seed": seed, "objectives": ("quality", "multiply_adds"), "measure.latency_rounds": 0}
        )
        study = autoprune.Study.create(bench.task, chosen, out=f"{folder}/run")
        study.run()
        scan = study.folder.read_sensitivity()
        # What is passed forward through the dense model or one like it; the scan before all else.
        before = 0 if scan is None else scan.samples_forward + scan.samples_trained
        looked = bench.task.search_split.samples or 0
        found = []
        for record in study.records:
            found.append(
                Tried(
                    share=record.search.multiply_adds / bench.dense_cost,
                    search=record.search.quality,
                    test=float("nan") if record.test is None else record.test.quality,
                    samples=before + record.samples_forward + record.samples_trained - looked,
                    work=3.0 * record.samples_trained * record.search.multiply_adds / len(bench.inputs),
                )
            )
            before = 0
        return found


def _sweep(ranking: str, network: str, steps: int, seed: int) -> list[Tried]:
    return sweep(_bench(network), _shares(network), steps // POINTS, seed, ranking=ranking)


def _search(sampler: str, network: str, steps: int, seed: int) -> list[Tried]:
    return search(_bench(network), TRIALS, steps // TRIALS, seed, sampler=sampler)


METHODS: dict[str, Callable[[str, int, int], list[Tried]]] = {
    "autoprune": functools.partial(_own, _TRAINED, 0.0),
    "autoprune at equal training": functools.partial(_own, 1.0, 0.5),
    "autoprune at a quarter of the training": functools.partial(_own, 0.25, 0.5),
    "autoprune by default": _default,
    "uniform sweep": functools.partial(_sweep, "uniform"),
    "global ranking": functools.partial(_sweep, "global"),
    "isomorphic ranking": functools.partial(_sweep, "isomorphic"),
    "NSGA-II by hand": functools.partial(_search, "nsga2"),
    "TPE by hand": functools.partial(_search, "tpe"),
    "random in the direct space": _random,
}


def _once(network: str, method: str, steps: int, seed: int) -> list[Tried]:
    path = FOLDER / "against" / f"{network}-{method.replace(' ', '-')}-{steps}-{seed}.json"

    def run() -> list[Tried]:
        tried = [*METHODS[method](network, steps, seed), dense_point(_bench(network))]
        print(f"{network}, {method}, seed {seed}: {volume(tried):.4f}", flush=True)
        return tried

    return stored(path, run)


def accuracy_at(tried: Sequence[Tried], share: float) -> float:
    """Test accuracy of the front's best member that costs at most that share."""
    return max((tried[place].test for place in front(tried) if tried[place].share <= share * 1.01), default=0.0)


def _accuracies(found: list[float]) -> str:
    """With "none" where the front has no member that is small enough."""
    return spread(found).replace("0.000", "none") if any(found) else "none"


def _at_most(network: str, tried: Tried) -> float:
    """Multiply-adds of a candidate, what was passed forward only included, as if all of that went through dense."""
    dense = _bench(network).dense_cost / len(_bench(network).inputs)
    trained = tried.work / (3.0 * tried.share * dense)
    return tried.work + (tried.samples - trained) * dense


def _print(network: str, found: dict[str, list[list[Tried]]], steps: int) -> None:
    rows = []
    for name, runs in found.items():
        work = [sum(each.work for each in run) / 1e12 for run in runs]
        samples = [float(sum(each.samples for each in run)) for run in runs]
        most = [sum(_at_most(network, each) for each in run) / 1e12 for run in runs]
        rows.append(
            [
                name,
                spread([volume(run) for run in runs], 4),
                *(_accuracies([accuracy_at(run, share) for run in runs]) for share in (0.06, 0.12, 0.24)),
                spread(samples, 0),
                spread(work, 2),
                spread(most, 2),
            ]
        )
    columns = (
        "method",
        "hypervolume",
        "accuracy at 6 %",
        "at 12 %",
        "at 24 %",
        "samples",
        "training, 10^12",
        "with forwards",
    )
    print_table(f"{network}, {steps} steps of {BATCH}, test split, median (lowest to highest)", columns, rows)


if __name__ == "__main__":
    typer.run(main)
