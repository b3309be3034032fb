"""What one trial pays to prune, against Torch-Pruning's own way of doing the same.

    python -m benchmarks.torch_pruning_path [--repetitions 7]

One plan is: score every channel by its L2 norm, remove half of every group, leave the model of the study as it was.
Torch-Pruning's way is a deep copy, its dependency graph (which belongs to one copy), its magnitude pruner and a step;
ours is select() and cut() with a topology that is traced and proved once for a whole study. Both run in turn in one
process; peak memory, of the step alone, is taken in a process for each.
"""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import torch
import torch_pruning
import typer
from torch import nn

from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.resolve import select_channels
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecoveryPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.proof.discover import discover_structure
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from benchmarks.memory import with_peak
from benchmarks.models import UNet, densenet121, mobilenet_v2, resnet18, resnet20, resnet50, vgg16
from benchmarks.reporting import print_machine, print_table, spread

MODELS: Mapping[str, tuple[Callable[[], nn.Module], int]] = {
    "ResNet-20": (resnet20, 32),
    "ResNet-18": (resnet18, 64),
    "ResNet-50": (resnet50, 64),
    "VGG-16": (vgg16, 32),
    "MobileNetV2": (mobilenet_v2, 64),
    "DenseNet-121": (densenet121, 64),
    "U-Net": (UNet, 32),
}


def main(repetitions: int = 7, memory_of: str = "") -> None:
    """Time both in turn on every model. memory_of: "way:model", prints its peak in bytes and nothing else."""
    torch.set_num_threads(1)
    if memory_of:
        print(_peak(*memory_of.split(":")))
        return
    print_machine()
    rows, ratios = [], []
    for name in MODELS:
        model, inputs = _built(name)
        start = time.perf_counter()
        topology = discover_structure(model, inputs)
        once = time.perf_counter() - start
        ours, theirs = _in_turn(partial(_ours, model, topology), partial(_theirs, model, inputs), repetitions)
        ratio = [b / a for a, b in zip(ours, theirs, strict=True)]
        ratios.append(median(ratio))
        peaks = [_peak_in_process(way, name) for way in ("ours", "theirs")]
        rows.append(
            [
                name,
                f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M",
                f"{once:.2f}",
                spread(ours, 1),
                spread(theirs, 1),
                spread(ratio, 1),
                f"{peaks[0] / 2**20:.1f}",
                f"{peaks[1] / 2**20:.1f}",
            ]
        )
    columns = (
        *("model", "parameters", "trace and proof, once, s", "autoprune, ms", "Torch-Pruning, ms", "times as fast"),
        *("peak memory, MiB", "Torch-Pruning's, MiB"),
    )
    print_table("Pruning one plan, median (lowest to highest)", columns, rows)
    print(f"\nMedian over models: {median(ratios):.1f} times as fast.")


def _built(name: str) -> tuple[nn.Module, torch.Tensor]:
    factory, side = MODELS[name]
    torch.manual_seed(0)
    return factory().eval(), torch.randn(1, 3, side, side)


def _ours(model: nn.Module, topology: Topology) -> nn.Module:
    half = {name: GroupPlan(ratio=0.5, criterion="l2") for name in topology.widths}
    plan = ResolvedPlan.of(PruningPlan(groups=half, recovery=RecoveryPlan(steps=0), seed=0), topology)
    signals = gather_signals(model, (), (topology, KeptChannels.whole(topology)), (), nn.functional.mse_loss, 0)
    return cut(model, topology, select_channels(plan, topology, signals))


def _theirs(model: nn.Module, inputs: torch.Tensor) -> nn.Module:
    smaller = copy.deepcopy(model)
    head = [layer for layer in smaller.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    pruner = torch_pruning.pruner.MagnitudePruner(
        smaller,
        inputs,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[head],
    )
    pruner.step()
    return smaller


def _in_turn(
    ours: Callable[[], nn.Module], theirs: Callable[[], nn.Module], rounds: int
) -> tuple[list[float], list[float]]:
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for action, into in zip((ours, theirs), times, strict=True):
            gc.collect()
            start = time.perf_counter()
            result = action()
            elapsed = (time.perf_counter() - start) * 1000
            del result
            if number:
                into.append(elapsed)
    return times


def _peak_in_process(way: str, name: str) -> int:
    command = [sys.executable, "-m", "benchmarks.torch_pruning_path", "--memory-of", f"{way}:{name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def _peak(way: str, name: str) -> int:
    """Bytes that one plan needs on top of the model and what is kept for the study, by the kernel's count."""
    model, inputs = _built(name)
    action = (
        partial(_ours, model, discover_structure(model, inputs)) if way == "ours" else partial(_theirs, model, inputs)
    )
    action()  # the first call loads and allocates what later ones share
    return with_peak(action)[1]


if __name__ == "__main__":
    typer.run(main)
