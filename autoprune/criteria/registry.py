"""Criteria for channels by name, and the groups that each of them can score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from autoprune.criteria import data_driven, learned, magnitude
from autoprune.criteria.signals import Signals, sanitize
from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.topology import Topology

#: Name of a criterion -> name of a group, weight or block that it cannot score -> the reason, in one sentence.
RefusalReasons = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """Score of each channel of a group; channels with higher scores stay.

    Attributes:
        function: Pure function of a group and the signals; returns float [remaining channels].
        signals: Names of the signals that the function needs besides the weights.
        needs_norm: Whether the criterion scores only groups with a BatchNorm.
    """

    function: Callable[[ChannelGroup, Signals], Tensor]
    signals: tuple[str, ...] = ()
    needs_norm: bool = False

    @property
    def needs_reader(self) -> bool:
        """Whether the criterion scores only groups that a layer reads, since it uses the layer's input."""
        return "activations" in self.signals or "activation_gradients" in self.signals

    def lacks(self, group: ChannelGroup) -> str:
        """Name the part that a group lacks to be scored.

        Args:
            group: Any group.

        Returns:
            Such as "a norm"; "" when nothing is known to be missing.
        """
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
    """Look up a criterion for channels.

    Args:
        name: Name of the criterion.

    Returns:
        The criterion.

    Raises:
        UnknownNameError: For another name; lists the known names.
    """
    if name not in CRITERIA:
        raise UnknownNameError("a criterion", name, CRITERIA)
    return CRITERIA[name]


def signals_for(names: Iterable[str]) -> tuple[str, ...]:
    """Collect the signals that some criteria for channels need.

    Args:
        names: Names of criteria.

    Returns:
        Names of signals, sorted.
    """
    return tuple(sorted({signal for name in names for signal in criterion(name).signals}))


def applicable_criteria(
    names: Iterable[str], group: ChannelGroup, refused: RefusalReasons | None = None
) -> tuple[str, ...]:
    """Select the criteria that can score a group.

    Args:
        names: Names of criteria.
        group: Group to score.
        refused: Reasons that a dry run found.

    Returns:
        The names that can score the group, in their order.
    """
    return tuple(name for name in names if not _why_not(name, group, refused or {}))


def check_applicable(
    names: Iterable[str], topology: Topology, *, per_group: bool = False, refused: RefusalReasons | None = None
) -> None:
    """Check that the criteria can score the groups of a topology.

    Args:
        names: Names of criteria.
        topology: Topology of the dense model.
        per_group: Whether each group chooses its criterion; then one criterion for each group is enough.
        refused: Reasons that a dry run found.

    Raises:
        ConfigurationError: When a criterion cannot score some group.
    """
    names = tuple(names)
    for group in topology.groups:
        faults = [why for name in names if (why := _why_not(name, group, refused or {}))]
        if faults and not (per_group and len(faults) < len(names)):
            raise ConfigurationError(
                f"{faults[0]} Leave it out of criteria, or let each group choose: criterion_per_group=True."
            )


def _why_not(name: str, group: ChannelGroup, refused: RefusalReasons) -> str:
    """Say why a criterion cannot score a group; "" when it can."""
    missing = criterion(name).lacks(group)
    if missing:
        return error_message(
            f"criterion {name!r}", f"be used on groups with {missing}", f"group {group.name!r} without one"
        )
    return refused.get(name, {}).get(group.name, "")


def score(name: str, group: ChannelGroup, signals: Signals) -> Tensor:
    """Score the remaining channels of a group.

    Args:
        name: Name of a criterion.
        group: Group to score.
        signals: Signals of the model, with those of `signals_for`.

    Returns:
        Scores, float32 [channels], finite; channels with higher scores stay.

    Raises:
        UnknownNameError: For an unknown criterion.
        ConfigurationError: For a group that the criterion cannot score.
    """
    return sanitize(criterion(name).function(group, signals))
