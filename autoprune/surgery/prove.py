"""The proof gate: a group is offered only if a cut and a mask of it compute the same on the example inputs."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from autoprune.criteria.kept import KeptChannels
from autoprune.surgery.cut import cut, mask
from autoprune.task.data import Inputs, call
from autoprune.trace.topology import ChannelGroup, Topology
from autoprune.trace.tracer import tensors_in


def prove(model: nn.Module, topology: Topology, example_inputs: Inputs, *, seed: int = 0) -> Topology:
    """The topology with every group withdrawn that a cut would break.

    Each group loses a random half; all groups together first, and only if that differs or crashes one by
    one. Both models run in eval mode on the example inputs, in float64 so that the comparison can be strict.
    """
    if not topology.groups:
        return topology
    double = _double(model)
    inputs: Inputs = _cast(example_inputs)  # type: ignore[assignment]
    halves = {group.name: _half(group, seed + number) for number, group in enumerate(topology.groups)}
    if _difference(double, topology, KeptChannels(groups=halves), inputs) is None:
        return topology
    reasons: dict[str, str] = {}
    for name, half in halves.items():
        reason = _difference(double, topology, KeptChannels(groups={name: half}), inputs)
        if reason is not None:
            reasons[name] = reason
    proved = topology.without(reasons)
    together = KeptChannels(groups={name: half for name, half in halves.items() if name not in reasons})
    if together.groups:
        reason = _difference(double, proved, together, inputs)
        if reason is not None:
            return proved.without(dict.fromkeys(together.groups, f"{reason} together with other groups"))
    return proved


def _difference(model: nn.Module, topology: Topology, kept: KeptChannels, inputs: Inputs) -> str | None:
    """None when cut and mask agree, else what went wrong."""
    try:
        smaller = cut(model, topology, kept)
        with torch.no_grad():
            outputs = tensors_in(call(smaller, inputs))
    except Exception as error:  # any failure of the cut model means the same: do not offer the group
        first = (str(error).splitlines() or [""])[0]
        return f"the model does not run once it is cut ({type(error).__name__}: {first[:160]})"
    with torch.no_grad():
        expected = tensors_in(call(mask(model, topology, kept), inputs))
    worst = _distance(outputs, expected)
    return None if worst <= 1e-7 else f"cutting it changes the outputs by {worst:.2g} more than silencing it"


def _distance(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference relative to the largest value; infinite for other shapes or values that are not finite."""
    if len(outputs) != len(expected) or any(a.shape != b.shape for a, b in zip(outputs, expected, strict=True)):
        return math.inf
    worst = 0.0
    for a, b in zip(outputs, expected, strict=True):
        if a.numel() == 0:
            continue
        scale = max(float(b.double().abs().max()), 1e-12)
        distance = float((a.double() - b.double()).abs().max()) / scale
        worst = max(worst, distance if math.isfinite(distance) else math.inf)
    return worst


def _half(group: ChannelGroup, seed: int) -> tuple[int, ...]:
    order = torch.randperm(group.channels, generator=torch.Generator().manual_seed(seed))
    return tuple(order[: max(1, group.channels // 2)].tolist())


def _double(model: nn.Module) -> nn.Module:
    double = copy.deepcopy(model).eval().double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in double.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                # Fresh statistics are 0 and 1 for every channel and would hide a wrong order of channels.
                noise = torch.rand(module.running_mean.shape, generator=generator, dtype=torch.float64)
                module.running_mean += noise.to(module.running_mean.device)
    return double


def _cast(value: object) -> object:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _cast(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_cast(item) for item in value)
    return value
