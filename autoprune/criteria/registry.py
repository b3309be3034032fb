"""Criteria by name, and the step from scores to kept channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.criteria import data_driven, magnitude
from autoprune.criteria.kept import KeptChannels
from autoprune.criteria.signals import Signals
from autoprune.errors import ConfigurationError, UnknownNameError, fault
from autoprune.plan.plan import PruningPlan
from autoprune.trace.topology import ChannelGroup, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """A score per channel, higher = keep.

    function: pure, (group, signals) -> float [channels alive]. signals: names of the signals it needs
    besides the weights. needs_norm: only for groups with a BatchNorm.
    """

    function: Callable[[ChannelGroup, Signals], Tensor]
    signals: tuple[str, ...] = ()
    needs_norm: bool = False

    @property
    def needs_reader(self) -> bool:
        """Only for groups that a layer reads: what it reads is looked at."""
        return "activations" in self.signals or "activation_gradients" in self.signals

    def lacks(self, group: ChannelGroup) -> str:
        """What a group would have to have to be scored, "" when it can be."""
        roles = {member.role for member in group.members}
        if self.needs_norm and "scale" not in roles:
            return "a norm"
        return "a layer that reads it" if self.needs_reader and "in" not in roles else ""


CRITERIA: Mapping[str, Criterion] = {
    "l1": Criterion(function=magnitude.l1),
    "l2": Criterion(function=magnitude.l2),
    "linf": Criterion(function=magnitude.linf),
    "l0": Criterion(function=magnitude.l0),
    "fpgm": Criterion(function=magnitude.fpgm),
    "lamp": Criterion(function=magnitude.lamp),
    "random": Criterion(function=magnitude.random),
    "bn_scale": Criterion(function=magnitude.batch_norm_scale, needs_norm=True),
    "taylor": Criterion(function=data_driven.taylor, signals=("gradients",)),
    "taylor_weight": Criterion(function=data_driven.taylor_weight, signals=("gradients",)),
    "taylor_activation": Criterion(function=data_driven.taylor_activation, signals=("activation_gradients",)),
    "fisher": Criterion(function=data_driven.fisher, signals=("gradients",)),
    "snip": Criterion(function=data_driven.snip, signals=("gradients",)),
    "obd": Criterion(function=data_driven.obd, signals=("hessian",)),
    "mean_activation": Criterion(function=data_driven.mean_activation, signals=("activations",)),
    "mean_square_activation": Criterion(function=data_driven.mean_square_activation, signals=("activations",)),
    "activation_variance": Criterion(function=data_driven.activation_variance, signals=("activations",)),
    "apoz": Criterion(function=data_driven.apoz, signals=("activations",)),
    "wanda": Criterion(function=data_driven.wanda, signals=("activations",)),
}


def criterion(name: str) -> Criterion:
    """The criterion of that name; UnknownNameError lists the known ones."""
    if name not in CRITERIA:
        raise UnknownNameError("a criterion", name, CRITERIA)
    return CRITERIA[name]


def signals_for(names: Iterable[str]) -> tuple[str, ...]:
    """The signals that these criteria need together, sorted."""
    return tuple(sorted({signal for name in names for signal in criterion(name).signals}))


def fitting(names: Iterable[str], group: ChannelGroup) -> tuple[str, ...]:
    """Those of the criteria that can score a group, in their order."""
    return tuple(name for name in names if not criterion(name).lacks(group))


def check_applicable(names: Iterable[str], topology: Topology, *, per_group: bool = False) -> None:
    """Raise ConfigurationError when a criterion can not score some group of the topology.

    per_group: each group needs only one criterion that fits it.
    """
    names = tuple(names)
    for group in topology.groups:
        fits = fitting(names, group)
        if len(fits) < (1 if per_group else len(set(names))):
            wrong = next(name for name in names if name not in fits)
            missing = criterion(wrong).lacks(group)
            raise ConfigurationError(
                fault(
                    f"criterion {wrong!r}",
                    f"be used on groups with {missing}",
                    f"group {group.name!r} without one",
                    "Leave it out of criteria, or let each group choose: criterion_per_group=True.",
                )
            )


def keep_count(channels: int, ratio: float) -> int:
    """Channels that stay when `ratio` of them goes: rounded to nearest, at least one."""
    return max(1, round(channels * (1.0 - ratio)))


def width_of(group: ChannelGroup, ratio: float) -> int:
    """Channels of a group that stay when `ratio` of them goes: never fewer than it needs."""
    return max(group.least, keep_count(group.channels, ratio))


def planned_widths(plan: PruningPlan, topology: Topology) -> dict[str, int]:
    """Group name -> channels that the plan keeps. Raises ConfigurationError for a group that does not exist."""
    topology.check_names(plan.groups)
    return {
        group.name: width_of(group, plan.groups[group.name].ratio) if group.name in plan.groups else group.channels
        for group in topology.groups
    }


def select(plan: PruningPlan, topology: Topology, signals: Signals) -> KeptChannels:
    """Score the channels still alive and keep the best, as many as the plan says.

    A parent narrower than the plan is an error of the caller: AssertionError.
    """
    kept: dict[str, tuple[int, ...]] = {}
    gone = {tensor for name in plan.dropped for tensor in topology.block(name).tensors}
    for name, width in planned_widths(plan, topology).items():
        group = topology.group(name)
        alive = signals.alive(group)
        assert width <= len(alive), f"{name}: {width} channels planned, {len(alive)} alive"
        if width == len(alive) or gone.issuperset(member.tensor for member in group.members):
            kept[name] = tuple(alive[:width].tolist())  # whole, or in blocks that go: nothing to choose
            continue
        scores = score(plan.groups[name].criterion, group, signals)
        best = torch.topk(scores, width).indices
        kept[name] = tuple(alive[best.cpu()].tolist())
    return KeptChannels(groups=kept, dropped=plan.dropped)


def score(name: str, group: ChannelGroup, signals: Signals) -> Tensor:
    """Scores of the channels alive, float [channels]. Raises UnknownNameError, ConfigurationError."""
    scores = criterion(name).function(group, signals).detach()
    return torch.nan_to_num(scores.float(), nan=0.0, posinf=torch.finfo(torch.float32).max)
