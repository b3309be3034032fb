"""What is left of the accuracy after a cut without any training: recalibration, reconstruction, both.

    python -m benchmarks.reconstruction [--seeds 5] [--samples 256]

Two networks for the digit scans, trained from `seeds` different draws of their weights: that of the digits study, which
has BatchNorm, and a plain one without norms. The same share of the channels of every group goes, those with the lowest
L2 norm. Running statistics and reconstruction see `samples` training scans. Accuracy is that on the 450 test scans.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
import typer
from torch import Tensor, nn

from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.resolve import select_channels
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.proof.discover import discover_structure
from autoprune.recovery.batch_norm import recalibrate
from autoprune.recovery.reconstruction import reconstruct
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.task.data import TensorSplit, first_batches
from benchmarks.reporting import print_machine, print_table, spread
from studies.digits.study import DigitNet, data

#: Shares of each group's channels that go.
RATIOS = (0.2, 0.4, 0.6, 0.8)
#: What is done after the cut, in this order.
STEPS: Mapping[str, tuple[str, ...]] = {
    "cut": (),
    "+ recalibration": ("recalibrate",),
    "+ reconstruction": ("reconstruct",),
    "+ reconstruction, recalibration": ("reconstruct", "recalibrate"),
}
_EPOCHS, _BATCH = 20, 64


def main(seeds: int = 5, samples: int = 256) -> None:
    """Cut and recover both networks at every ratio for each seed."""
    torch.set_num_threads(1)
    print_machine()
    splits = data()
    for title, build in (("With BatchNorm", DigitNet), ("Without norms", _plain)):
        found = [_one(build, seed, samples, splits) for seed in range(seeds)]
        rows = [
            [f"{ratio:.0%}", *(spread([accuracy[ratio, name] for accuracy, _ in found]) for name in STEPS)]
            for ratio in RATIOS
        ]
        dense = spread([accuracy[0.0, "cut"] for accuracy, _ in found])
        seconds = spread([1000 * each for _, times in found for each in times], 0)
        print_table(
            f"{title}, {seeds} seeds, dense accuracy {dense}, {seconds} ms of CPU time a reconstruction",
            ("channels cut", *STEPS),
            rows,
        )


def _one(
    build: Callable[[], nn.Module], seed: int, samples: int, splits: Mapping[str, tuple[Tensor, Tensor]]
) -> tuple[dict[tuple[float, str], float], list[float]]:
    """Accuracy by ratio and steps; CPU seconds of each reconstruction."""
    model = _trained(build, seed, *splits["train"])
    topology = discover_structure(model, splits["train"][0][:4])
    batches = first_batches(TensorSplit(*splits["train"], _BATCH), samples)
    whole = KeptChannels(groups={})
    accuracy, seconds = {(0.0, "cut"): _accuracy(model, *splits["test"])}, []
    for ratio in RATIOS:
        kept = _lowest_go(model, topology, ratio)
        for name, steps in STEPS.items():
            smaller = cut(model, topology, kept)
            if "reconstruct" in steps:
                start = time.process_time()
                reconstruct(smaller, model, topology, kept, whole, batches)
                seconds.append(time.process_time() - start)
            if "recalibrate" in steps:
                recalibrate(smaller, batches)
            accuracy[ratio, name] = _accuracy(smaller, *splits["test"])
    return accuracy, seconds


def _plain() -> nn.Module:
    """Three convolutions and two linear layers for [N, 1, 8, 8]."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def _trained(build: Callable[[], nn.Module], seed: int, images: Tensor, targets: Tensor) -> nn.Module:
    torch.manual_seed(seed)
    model = build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(_EPOCHS):
        for index in torch.randperm(len(images)).split(_BATCH)[: len(images) // _BATCH]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[index]), targets[index]).backward()
            optimizer.step()
    return model.eval()


def _lowest_go(model: nn.Module, topology: Topology, ratio: float) -> KeptChannels:
    half = {group.name: GroupPlan(ratio=ratio, criterion="l2") for group in topology.groups}
    plan = ResolvedPlan.of(PruningPlan(groups=half), topology)
    loss = nn.functional.cross_entropy  # L2 looks at weights alone
    return select_channels(plan, topology, gather_signals(model, (), (topology, KeptChannels(groups={})), [], loss, 0))


@torch.no_grad()
def _accuracy(model: nn.Module, images: Tensor, targets: Tensor) -> float:
    return float((model(images).argmax(1) == targets).double().mean())


if __name__ == "__main__":
    typer.run(main)
