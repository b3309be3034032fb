"""The proof gate: a group is offered only if a cut and a mask of it compute the same on the example inputs."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.criteria.kept import KeptChannels
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask
from autoprune.task.data import Inputs, call
from autoprune.trace.topology import ChannelGroup, Topology
from autoprune.trace.tracer import tensors_in


def prove(model: nn.Module, topology: Topology, example_inputs: Inputs, *, seed: int = 0) -> Topology:
    """The topology with every group withdrawn that a cut would break.

    Two draws: every group loses a random half, and every group loses another random number (widths that have to
    stay equal to each other pass the first and fail the second). All groups together first, and one by one only
    if that differs or crashes. Both models run in eval mode on the example inputs, in float64 so that the
    comparison can be strict; a model that only runs in its own precision is compared in that.
    """
    if not topology.groups:
        return topology
    bench = _Bench.of(model, example_inputs)
    draws = [
        {group.name: _keep(group, share, seed + number) for number, group in enumerate(topology.groups)}
        for share in (0.5, None)
    ]
    # The sides of a grid can be right together and wrong alone.
    alone = {name for runs in topology.runs.values() for run in runs if len(run.groups) > 1 for name in run.groups}
    if any(bench.difference(topology, kept) is not None for kept in draws):
        alone = set(topology.widths)
    reasons = {}
    for name in sorted(alone):
        reason = _first(bench.difference(topology, {name: kept[name]}) for kept in draws)
        if reason is not None:
            reasons[name] = reason
    if not reasons:
        return topology
    proved = topology.without(reasons)
    if not proved.groups:
        return proved
    left = [{name: indices for name, indices in kept.items() if name not in reasons} for kept in draws]
    reason = _first(bench.difference(proved, kept) for kept in left)
    return proved if reason is None else proved.without(dict.fromkeys(left[0], f"{reason} together with other groups"))


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


@dataclass(frozen=True, slots=True)
class _Bench:
    """The copy of a model that proofs run on, its inputs, and the largest relative difference allowed."""

    model: nn.Module
    inputs: Inputs
    tolerance: float

    @classmethod
    def of(cls, model: nn.Module, example_inputs: Inputs) -> _Bench:
        double = _stirred(model, torch.float64)
        inputs: Inputs = _cast(example_inputs)  # type: ignore[assignment]
        try:
            with torch.no_grad():
                call(double, inputs)
        except Exception:  # a model that fixes its own precision, by a cast say, does not run in another
            return cls(_stirred(model, None), example_inputs, 1e-3)
        return cls(double, inputs, 1e-7)

    def difference(self, topology: Topology, kept: Mapping[str, tuple[int, ...]]) -> str | None:
        """None when cut and mask agree, else what went wrong."""
        chosen = KeptChannels(groups=kept)
        try:
            smaller = cut(self.model, topology, chosen)
            with torch.no_grad():
                outputs = tensors_in(call(smaller, self.inputs))
        except Exception as error:  # any failure of the cut model means the same: do not offer the group
            first = (str(error).splitlines() or [""])[0]
            return f"the model does not run once it is cut ({type(error).__name__}: {first[:160]})"
        with torch.no_grad():
            expected = tensors_in(call(mask(self.model, topology, chosen), self.inputs))
        worst = _distance(outputs, expected)
        if worst <= self.tolerance:
            return None
        return f"cutting it changes the outputs by {worst:.2g} more than silencing it"


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


def _keep(group: ChannelGroup, share: float | None, seed: int) -> tuple[int, ...]:
    """Random channels of a group: that share of them, or a random number when None; at least one, never all."""
    generator = torch.Generator().manual_seed(seed if share is not None else seed + 10_007)
    order = torch.randperm(group.channels, generator=generator)
    count = group.channels // 2
    if share is None:
        count = int(torch.randint(1, group.channels, (1,), generator=generator))
    return tuple(order[: max(1, count)].tolist())


def _stirred(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """A copy in eval mode whose norms have statistics of their own for every channel.

    Fresh ones are 0 and 1 everywhere and would hide channels in a wrong order.
    """
    scratch = copy.deepcopy(model).eval()
    if dtype is not None:
        scratch = scratch.to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in scratch.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                noise = torch.rand(module.running_mean.shape, generator=generator, dtype=torch.float64)
                module.running_mean += noise.to(module.running_mean)
    return scratch


def _cast(value: object) -> object:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _cast(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_cast(item) for item in value)
    return value
