"""What people write themselves: Torch-Pruning for the cut, a loop or an Optuna study around it."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import optuna
import torch
import torch_pruning
from torch import nn

from autoprune.front.dominance import hypervolume, non_dominated
from autoprune.measure.cost import count_multiply_adds
from autoprune.measure.quality import evaluate
from autoprune.plan.recovery import RecoveryPlan
from autoprune.records.atomic import write_atomically
from autoprune.recovery.batch_norm import recalibrate
from autoprune.recovery.fine_tune import fine_tune
from autoprune.task.prepare import PreparedTask

#: Torch-Pruning's criteria by the names that a hand-written study would sample.
IMPORTANCES: dict[str, Callable[[], object]] = {
    "l1": lambda: torch_pruning.importance.MagnitudeImportance(p=1),
    "l2": lambda: torch_pruning.importance.MagnitudeImportance(p=2),
    "random": torch_pruning.importance.RandomImportance,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One candidate. share: multiply-adds over dense. search, test: accuracies; that on test is not a number off the
    front. samples: trained and passed forward.

    work: multiply-adds of its training, forward and backward, with a backward taken as two forwards. latency: over
    dense, where it is measured.
    """

    share: float
    search: float
    test: float
    samples: int
    work: float
    latency: float = math.nan


class Bench:
    """The task with what every method shares: the fine-tune, and how a model is measured.

    timed: latency of a model over dense; None where multiply-adds are the cost.
    """

    def __init__(
        self, task: PreparedTask, recovery: RecoveryPlan, timed: Callable[[nn.Module], float] | None = None
    ) -> None:
        self.task, self.recovery, self.timed = task, recovery, timed
        inputs = task.example_inputs
        assert isinstance(inputs, torch.Tensor)
        self.inputs: torch.Tensor = inputs
        self.dense_cost = count_multiply_adds(task.dense, self.inputs)

    def recovered(self, model: nn.Module, steps: int, seed: int) -> Tried:
        """Recalibrate, fine-tune and measure a pruned model, in place; not on the test split."""
        task = self.task
        calibrated = recalibrate(model, task.calibration)
        done = fine_tune(model, task, replace(self.recovery, steps=steps), seed=seed)
        cost = count_multiply_adds(model, self.inputs)
        return Tried(
            share=cost / self.dense_cost,
            search=evaluate(task, model, task.search_split).value,
            test=math.nan,
            samples=calibrated + done.forward + done.trained,
            work=3.0 * done.trained * cost / len(self.inputs),
            latency=math.nan if self.timed is None else self.timed(model),
        )

    def cost(self, tried: Tried) -> float:
        """Cost of a candidate over dense."""
        return tried.share if self.timed is None else tried.latency

    def test(self, model: nn.Module) -> float:
        """Accuracy on the test split, which decides nothing."""
        assert self.task.test_split is not None
        return evaluate(self.task, model, self.task.test_split).value


def dense_point(bench: Bench) -> Tried:
    """The dense model, which every method has for nothing."""
    model = bench.task.dense
    search = evaluate(bench.task, model, bench.task.search_split).value
    return Tried(share=1.0, search=search, test=bench.test(model), samples=0, work=0.0, latency=1.0)


def front(tried: Sequence[Tried], cost: Callable[[Tried], float] = attrgetter("share")) -> list[int]:
    """Positions of what nothing beats on the search split."""
    points = np.array([[-each.search, cost(each)] for each in tried])
    return np.flatnonzero(non_dominated(points)).tolist()


def volume(tried: Sequence[Tried], cost: Callable[[Tried], float] = attrgetter("share")) -> float:
    """Hypervolume of the front's members on the test split."""
    points = np.array([[-tried[place].test, cost(tried[place])] for place in front(tried, cost)])
    return hypervolume(points, (-0.5, 1.0 + 1e-9)) / 0.5


def stored(path: Path, run: Callable[[], list[Tried]]) -> list[Tried]:
    """Candidates of a method from a file, which is written on first use."""
    if not path.is_file():
        write_atomically(path, json.dumps([asdict(each) for each in run()]).encode())
    return [Tried(**each) for each in json.loads(path.read_text())]


def tested(bench: Bench, found: Sequence[tuple[Tried, nn.Module]]) -> list[Tried]:
    """The candidates, with the test split for those that are on their front beside the dense model."""
    dense = dense_point(bench)
    on = front([*(tried for tried, _ in found), dense], bench.cost)
    return [
        replace(tried, test=bench.test(model)) if place in on else tried for place, (tried, model) in enumerate(found)
    ]


def sweep(bench: Bench, shares: list[float], steps: int, seed: int, *, ranking: str) -> list[Tried]:
    """Each share of the multiply-adds pruned from dense by L2 and fine-tuned.

    ranking: "uniform" (the same ratio everywhere), "global" or "isomorphic" (Fang et al. 2024), as Torch-Pruning has
    them.
    """
    found = []
    for number, share in enumerate(shares):
        model = copy.deepcopy(_at_share(bench, share, ranking))
        found.append((bench.recovered(model, steps, seed * 1000 + number), model))
    return tested(bench, found)


def search(bench: Bench, trials: int, steps: int, seed: int, *, sampler: str) -> list[Tried]:
    """An Optuna study over one ratio for each layer and the criterion, every trial pruned from dense."""
    layers = [name for name, layer in bench.task.dense.named_modules() if isinstance(layer, nn.Conv2d)]
    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=10),
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
    }
    found = []
    with _quiet():
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=samplers[sampler]())
        for number in range(trials):
            trial = study.ask()
            ratios = {name: trial.suggest_float(name, 0.0, 0.9) for name in layers}
            importance = trial.suggest_categorical("criterion", list(IMPORTANCES))
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(seed * 1000 + number)
                model = _pruned(bench, "uniform", 0.0, importance, ratios)
            tried = bench.recovered(model, steps, seed * 1000 + number)
            study.tell(trial, [tried.search, tried.share])
            found.append((tried, model))
    return tested(bench, found)


@functools.cache
def _at_share(bench: Bench, share: float, ranking: str) -> nn.Module:
    """By bisection over the one ratio that Torch-Pruning takes, to within 2 % of the share or as near as it comes."""
    low, high, nearest = 0.0, 0.99, (float("inf"), bench.task.dense)
    for _ in range(10):
        middle = (low + high) / 2
        model = _pruned(bench, ranking, middle, "l2")
        cost = count_multiply_adds(model, bench.inputs) / bench.dense_cost
        nearest = min(nearest, (abs(cost / share - 1.0), model), key=lambda found: found[0])
        if nearest[0] < 0.02:
            break
        low, high = (middle, high) if cost > share else (low, middle)
    return nearest[1]


def _pruned(
    bench: Bench, ranking: str, ratio: float, importance: str, ratios: dict[str, float] | None = None
) -> nn.Module:
    model = copy.deepcopy(bench.task.dense)
    modules = dict(model.named_modules())
    head = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    heads = [layer.num_heads for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        bench.inputs[:2],
        importance=IMPORTANCES[importance](),
        global_pruning=ranking != "uniform",
        isomorphic=ranking == "isomorphic",
        pruning_ratio=ratio,
        pruning_ratio_dict={modules[name]: value for name, value in (ratios or {}).items()},
        max_pruning_ratio=0.95,
        ignored_layers=[head],
        round_to=math.lcm(*heads) if heads else None,  # PyTorch's attention asks for whole heads
    )
    pruner.step()
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
