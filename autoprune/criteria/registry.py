"""Criteria for channels by name, and which of them can score a group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from autoprune.criteria import data_driven, learned, magnitude
from autoprune.criteria.signals import Signals, sanitize
from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.trace.topology import ChannelGroup, Topology

#: Name of a criterion -> name of what it cannot score -> why, in one sentence.
RefusalReasons = Mapping[str, Mapping[str, str]]


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
        """What a group would have to have to be scored, "" when nothing is known that it lacks."""
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
    "hard_concrete": Criterion(function=learned.hard_concrete, signals=("gates",)),
    "movement": Criterion(function=learned.movement, signals=("movement",)),
}


def criterion(name: str) -> Criterion:
    """The criterion of that name; UnknownNameError lists the known ones."""
    if name not in CRITERIA:
        raise UnknownNameError("a criterion", name, CRITERIA)
    return CRITERIA[name]


def signals_for(names: Iterable[str]) -> tuple[str, ...]:
    """The signals that these criteria need together, sorted."""
    return tuple(sorted({signal for name in names for signal in criterion(name).signals}))


def applicable_criteria(
    names: Iterable[str], group: ChannelGroup, refused: RefusalReasons | None = None
) -> tuple[str, ...]:
    """Those of the criteria that can score a group, in their order. refused: what a rehearsal found out."""
    return tuple(name for name in names if not _why_not(name, group, refused or {}))


def check_applicable(
    names: Iterable[str], topology: Topology, *, per_group: bool = False, refused: RefusalReasons | None = None
) -> None:
    """Raise ConfigurationError when a criterion cannot score some group of the topology.

    per_group: each group needs only one criterion that fits it. refused: what a rehearsal found out.
    """
    names = tuple(names)
    for group in topology.groups:
        faults = [why for name in names if (why := _why_not(name, group, refused or {}))]
        if faults and not (per_group and len(faults) < len(names)):
            raise ConfigurationError(
                f"{faults[0]} Leave it out of criteria, or let each group choose: criterion_per_group=True."
            )


def _why_not(name: str, group: ChannelGroup, refused: RefusalReasons) -> str:
    """Why a criterion cannot score a group, "" when it can."""
    missing = criterion(name).lacks(group)
    if missing:
        return error_message(
            f"criterion {name!r}", f"be used on groups with {missing}", f"group {group.name!r} without one"
        )
    return refused.get(name, {}).get(group.name, "")


def score(name: str, group: ChannelGroup, signals: Signals) -> Tensor:
    """Scores of the channels alive, float [channels]. Raises UnknownNameError, ConfigurationError."""
    return sanitize(criterion(name).function(group, signals))
