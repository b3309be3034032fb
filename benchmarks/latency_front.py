"""Accuracy against measured latency on Fashion-MNIST, at equal samples processed.

    python -m benchmarks.latency_front [--networks resnet14,vit] [--seeds 3] [--steps 600] [--methods latency,uniform]

- "latency": studies/fashion_mnist/lineage.py with budgets of latency, as a device profile predicts it, and with the
  profile's grain.
- "rounded": the same with budgets of multiply-adds.
- "multiply-adds": the same with budgets of multiply-adds, and no grain.
- "uniform": a sweep of one ratio everywhere, by Torch-Pruning.
- "isomorphic": Torch-Pruning's isomorphic ranking (Fang et al. 2024).

Each method has eight candidates beside the dense model, trained with STEPS optimizer steps of 128 samples in all; the
two studies with 0.6 of them, as their scans and the teacher's outputs count as samples, too. Afterwards every candidate
is timed by ONNX Runtime on one thread with BATCH images, in turn with the dense model, also those that a study has
timed itself. The search split and that latency decide each front; hypervolumes are those of the front's members on the
test split, over (accuracy from 0.5 to 1, latency from 0 to dense), as a share of the whole area.

What is done is kept under benchmarks/out, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Annotated

import torch
import typer
from torch import nn

import autoprune
from autoprune.measure.latency.comparer import LatencyComparer
from autoprune.records.profile import LatencyProfile
from autoprune.search.space.setting_groups import SearchSettings
from autoprune.search.space.settings import SpaceSettings
from autoprune.search.space.space import budgets
from autoprune.surgery.cut import cut
from autoprune.trial.context import TrialContext
from benchmarks.against.__main__ import BATCH, LOWEST, POINTS, task
from benchmarks.against.by_hand import Bench, Tried, dense_point, front, stored, sweep, volume
from benchmarks.against.networks import FOLDER, recovery
from benchmarks.reporting import print_machine, print_table, spread
from studies.fashion_mnist import lineage

#: Images of a call that is timed.
IMAGES = 16
#: Smallest share of the dense latency that the study by latency is asked for.
LOWEST_LATENCY = 0.1
_LATENCY: Callable[[Tried], float] = attrgetter("latency")
#: Narrower layers, and fewer heads where there are some.
_KINDS = ("channels", "heads")
#: What a study trains on at equal samples.
_TRAINED = 0.6


def main(
    networks: str = "resnet14,mobilenet,plain,vit",
    seeds: int = 3,
    steps: int = 600,
    methods: Annotated[str, typer.Option(help="Some of them, with commas between; all when not given.")] = "",
) -> None:
    """Run what has not been run yet, and print the table."""
    torch.set_num_threads(1)
    print_machine()
    chosen = methods.split(",") if methods else list(METHODS)
    rows = []
    for network in networks.split(","):
        for name in chosen:
            runs = [_once(network, name, steps, seed) for seed in range(seeds)]
            rows.append(
                [
                    network,
                    name,
                    spread([volume(run, _LATENCY) for run in runs], 4),
                    *(spread([accuracy_at(run, share) for run in runs]) for share in (0.25, 0.5, 0.75)),
                    spread([float(sum(each.samples for each in run)) for run in runs], 0),
                ]
            )
    heading = f"Fashion-MNIST, {steps} steps of {BATCH}, test split, median (lowest to highest)"
    columns = ("network", "method", "hypervolume", "accuracy at 0.25", "at 0.5", "at 0.75 of the latency", "samples")
    print_table(heading, columns, rows)


@functools.cache
def _bench(network: str) -> Bench:
    prepared = autoprune.prepare(replace(task(network), example_inputs=_images(network)))
    profile = LatencyProfile(name="deployed", backend="onnxruntime")
    comparer = LatencyComparer(prepared.dense, prepared.example_inputs, profile)

    def timed(model: nn.Module) -> float:
        return comparer.compare(model).ratio

    return Bench(prepared, recovery(network), timed)


def _images(network: str) -> torch.Tensor:
    inputs = task(network).example_inputs
    assert isinstance(inputs, torch.Tensor)
    return inputs[:IMAGES]


def _context(network: str) -> TrialContext:
    return TrialContext.of(_bench(network).task, kinds=_KINDS)


def _sweep(ranking: str, network: str, steps: int, seed: int) -> list[Tried]:
    settings = SpaceSettings(search=SearchSettings(min_budget=LOWEST))
    shares = budgets(settings, _context(network).topology, POINTS)
    return sweep(_bench(network), shares, steps // POINTS, seed, ranking=ranking)


def _study(changes: dict[str, object], network: str, steps: int, seed: int) -> list[Tried]:
    bench = _bench(network)
    common = {
        "seed": seed,
        "recovery.steps": round(_TRAINED * steps / POINTS),
        "recovery.length_exponent": 0.0,
        "recovery.learning_rate": None,
        "structure.kinds": _KINDS,
        "search.scan_samples": steps * BATCH // 10,
    }
    with tempfile.TemporaryDirectory() as folder:
        chosen = lineage.settings.changed({**common, **changes})
        study = autoprune.Study.create(bench.task, chosen, out=f"{folder}/run")
        study.run()
        return _tried(network, study)


def _tried(network: str, study: autoprune.Study) -> list[Tried]:
    """The candidates of a study, timed anew. What is evaluated on the search split is left out, as for every method."""
    bench, context, scan = _bench(network), study.context, study.folder.read_sensitivity()
    assert context is not None
    assert bench.timed is not None
    before = 0 if scan is None else scan.samples_forward + scan.samples_trained
    looked, found = bench.task.search_split.samples or 0, []
    for record in study.records:
        kept = record.channels
        found.append(
            Tried(
                share=record.search.multiply_adds / bench.dense_cost,
                search=record.search.quality,
                test=bench.test(study.rebuild(record.number)),
                samples=before + record.samples_forward + record.samples_trained - looked,
                work=3.0 * record.samples_trained * record.search.multiply_adds / len(bench.inputs),
                latency=bench.timed(cut(context.task.dense, context.topology, kept)),
            )
        )
        before = 0
    return found


#: What sets both studies apart from the one in studies/: all weights are kept, as each candidate is timed anew.
_KEPT: dict[str, object] = {"storage.collect_garbage": False}
_BY_LATENCY: dict[str, object] = {
    **_KEPT,
    "objectives": ("quality", "latency_ms"),
    "search.cost": "latency_ms",
    "search.min_budget": LOWEST_LATENCY,
    "structure.round_to": "device",
    "measure.latency_rounds": 30,
    "measure.latency_backend": "onnxruntime",
    "measure.latency_when": "front",
}
_ROUNDED: dict[str, object] = {
    **_KEPT,
    "structure.round_to": "device",
    "measure.latency_rounds": 30,
    "measure.latency_backend": "onnxruntime",
}
METHODS: dict[str, Callable[[str, int, int], list[Tried]]] = {
    "latency": functools.partial(_study, _BY_LATENCY),
    "rounded": functools.partial(_study, _ROUNDED),
    "multiply-adds": functools.partial(_study, _KEPT),
    "uniform": functools.partial(_sweep, "uniform"),
    "isomorphic": functools.partial(_sweep, "isomorphic"),
}


def _once(network: str, method: str, steps: int, seed: int) -> list[Tried]:
    path = FOLDER / "latency_front" / f"{network}-{method}-{steps}-{seed}.json"

    def run() -> list[Tried]:
        tried = [*METHODS[method](network, steps, seed), dense_point(_bench(network))]
        print(f"{network}, {method}, seed {seed}: {volume(tried, _LATENCY):.4f}", flush=True)
        return tried

    return stored(path, run)


def accuracy_at(tried: Sequence[Tried], share: float) -> float:
    """Test accuracy of the front's best member that takes at most that share of the dense latency; 0 for none."""
    members = [tried[place] for place in front(tried, _LATENCY)]
    return max((member.test for member in members if member.latency <= share), default=0.0)


if __name__ == "__main__":
    typer.run(main)
