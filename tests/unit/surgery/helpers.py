"""The property that carries everything: a cut computes what a mask computes."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask
from autoprune.task.data import Inputs, call
from tests.zoo.registry import random_kept


@torch.no_grad()
def stirred(model: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode, with no two channels alike: fresh norms and biases are 0 and 1 everywhere."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim < 2:
            parameter += torch.randn(parameter.shape, generator=generator).to(parameter) / 4
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer += torch.rand(buffer.shape, generator=generator).to(buffer)
    return model.eval()


def doubled(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: doubled(item) for key, item in value.items()}
    return tuple(doubled(item) for item in value) if isinstance(value, tuple) else value


@torch.no_grad()
def assert_cut_is_mask(
    model: nn.Module,
    topology: Topology,
    inputs: Inputs,
    *,
    only: Iterable[str] | None = None,
    dropped: tuple[str, ...] = (),
    draws: int = 6,
) -> None:
    """In float64, for random channels of the groups `only`, or of all."""
    double, inputs = copy.deepcopy(model).eval().double(), doubled(inputs)  # type: ignore[assignment]
    names = set(topology.widths if only is None else only)
    for seed in range(draws):
        kept = random_kept(topology, seed)
        kept = replace(kept, groups={name: kept.groups[name] for name in names}, dropped=dropped)
        torch.testing.assert_close(
            call(cut(double, topology, kept), inputs), call(mask(double, topology, kept), inputs), msg=str(kept)
        )
