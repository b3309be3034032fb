"""What a cut costs, against a copy of the weights that it keeps (the least that any cut must do).

    python -m benchmarks.cut [--repetitions 15]

Half of every group's channels goes. Four things are timed in turn in one process: cut(); a copy of the very weights
that stay, picked axis by axis by their indices; a copy of as many weights out of the dense model, the first half of
each axis, which needs no index; a copy of the tensors of a model that is already cut, which lie together and partly in
the cache.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

import torch
import typer
from torch import Tensor, nn

from autoprune.plan.kept import KeptChannels
from autoprune.surgery.cut import cut
from autoprune.surgery.positions import alive_positions
from autoprune.trace.trace import trace
from benchmarks.models import resnet18, resnet20, resnet50
from benchmarks.reporting import print_machine, print_table, spread


def main(repetitions: int = 15) -> None:
    """Time cut and both copies in turn."""
    torch.set_num_threads(1)
    print_machine()
    rows = []
    for name, model, size in (
        ("ResNet-20", resnet20(), 32),
        ("ResNet-18", resnet18(), 64),
        ("ResNet-50", resnet50(), 64),
    ):
        start = time.perf_counter()
        topology = trace(model, torch.randn(1, 3, size, size))
        traced = time.perf_counter() - start
        kept = KeptChannels(groups={g.name: tuple(range(0, g.channels, 2)) for g in topology.groups})
        halves = {key: len(stays) for key, stays in alive_positions(topology, kept).items()}
        alive = alive_positions(topology, kept)
        actions = (
            partial(cut, model, topology, kept),
            partial(_copy_picked, model, alive),
            partial(_copy_kept, model, halves),
            partial(_copy_all, cut(model, topology, kept)),
        )
        cuts, picked, from_dense, from_cut = _in_turn(actions, repetitions)
        rows.append(
            [
                name,
                f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M",
                f"{traced:.2f}",
                spread(cuts, 2),
                spread([a / b for a, b in zip(cuts, picked, strict=True)], 2),
                spread(from_dense, 2),
                spread([a / b for a, b in zip(cuts, from_dense, strict=True)], 2),
                f"{median([a / b for a, b in zip(cuts, from_cut, strict=True)]):.2f}",
            ]
        )
    columns = (
        "model",
        "parameters",
        "trace once, s",
        "cut, ms",
        "ratio to a copy of the kept weights",
        "block copy, ms",
        "ratio to a block copy",
        "ratio to a copy of the cut model",
    )
    print_table("cut() against a copy of the kept weights, median (lowest to highest)", columns, rows)


def _copy_picked(model: nn.Module, alive: Mapping[tuple[str, int], Tensor]) -> list[Tensor]:
    copies = []
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        part = tensor.detach()
        axes = [axis for axis in range(part.ndim) if (name, axis) in alive]
        for axis in axes:
            part = part.index_select(axis, alive[name, axis])
        copies.append(part if axes else part.clone())
    return copies


def _copy_kept(model: nn.Module, halves: Mapping[tuple[str, int], int]) -> list[Tensor]:
    copies = []
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        part = tensor.detach()
        for axis in range(part.ndim):
            part = part.narrow(axis, 0, halves.get((name, axis), part.shape[axis]))
        copies.append(part.clone(memory_format=torch.contiguous_format))
    return copies


def _copy_all(model: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in (*model.parameters(), *model.buffers())]


def _in_turn(actions: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in actions]
    for number in range(rounds + 2):
        for action, into in zip(actions, times, strict=True):
            gc.collect()
            start = time.perf_counter()
            result = action()
            elapsed = (time.perf_counter() - start) * 1000
            del result
            if number >= 2:
                into.append(elapsed)
    return times


if __name__ == "__main__":
    typer.run(main)
