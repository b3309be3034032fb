"""Criteria by name: the function of each, the signals that it needs, and the groups that it can score."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.topology import Topology

#: Name of a criterion -> name of a group, weight or block that it cannot score -> the reason, in one sentence.
RefusalReasons = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """Score of each channel of a group, of each block, or of each entry of a weight; higher scores stay.

    Attributes:
        function: Module and name of a pure function in `autoprune.criteria`, imported on first use:
            (group, signals) -> float [remaining channels] for channels, (name of the weight, signals) -> float >= 0
            [shape of the weight] for single weights, and (block, topology, signals) -> float scalar >= 0 for blocks.
        signals: Names of the signals that the function needs besides the weights.
        needs_norm: Whether the criterion scores only groups with a BatchNorm.
    """

    function: str
    signals: tuple[str, ...] = ()
    needs_norm: bool = False

    def load(self) -> Callable[..., object]:
        """Import the function.

        Returns:
            The function.

        Example:
            >>> CRITERIA["l1"].load().__name__
            'l1'
        """
        module, _, name = self.function.rpartition(".")
        function: Callable[..., object] = getattr(importlib.import_module(f"autoprune.criteria.{module}"), name)
        return function

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


class Catalogue(Mapping[str, Criterion]):
    """Criteria of one kind by name.

    Args:
        what: Noun for the message about an unknown name.
        rows: Name -> criterion.

    Example:
        >>> WEIGHT_CRITERIA.signals_for(("l1", "snip"))
        ('gradients',)
    """

    def __init__(self, what: str, rows: Mapping[str, Criterion]) -> None:
        self._what, self._rows = what, dict(rows)

    def __getitem__(self, name: str) -> Criterion:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, name: str) -> Criterion:
        """Look up a criterion.

        Args:
            name: Name of the criterion.

        Returns:
            The criterion.

        Raises:
            UnknownNameError: For another name; lists the known names.
        """
        if name not in self._rows:
            raise UnknownNameError(self._what, name, self._rows)
        return self._rows[name]

    def signals_for(self, names: Iterable[str]) -> tuple[str, ...]:
        """Collect the signals that some criteria need.

        Args:
            names: Names of criteria.

        Returns:
            Names of signals, sorted.

        Raises:
            UnknownNameError: For an unknown name.
        """
        return tuple(sorted({signal for name in names for signal in self.find(name).signals}))


#: Criteria for channels.
CRITERIA = Catalogue(
    "a criterion",
    {
        "l1": Criterion(function="magnitude.l1"),
        "l2": Criterion(function="magnitude.l2"),
        "linf": Criterion(function="magnitude.linf"),
        "l0": Criterion(function="magnitude.l0"),
        "fpgm": Criterion(function="magnitude.fpgm"),
        "lamp": Criterion(function="magnitude.lamp"),
        "random": Criterion(function="magnitude.random"),
        "bn_scale": Criterion(function="magnitude.batch_norm_scale", needs_norm=True),
        "taylor": Criterion(function="data_driven.taylor", signals=("gradients",)),
        "taylor_weight": Criterion(function="data_driven.taylor_weight", signals=("gradients",)),
        "taylor_activation": Criterion(function="data_driven.taylor_activation", signals=("activation_gradients",)),
        "fisher": Criterion(function="data_driven.fisher", signals=("gradients",)),
        "snip": Criterion(function="data_driven.snip", signals=("gradients",)),
        "obd": Criterion(function="data_driven.obd", signals=("hessian",)),
        "mean_activation": Criterion(function="data_driven.mean_activation", signals=("activations",)),
        "mean_square_activation": Criterion(function="data_driven.mean_square_activation", signals=("activations",)),
        "activation_variance": Criterion(function="data_driven.activation_variance", signals=("activations",)),
        "apoz": Criterion(function="data_driven.apoz", signals=("activations",)),
        "wanda": Criterion(function="data_driven.wanda", signals=("activations",)),
        "hard_concrete": Criterion(function="learned.hard_concrete", signals=("gates",)),
        "movement": Criterion(function="learned.movement", signals=("movement",)),
    },
)

#: Criteria for single weights.
WEIGHT_CRITERIA = Catalogue(
    "a criterion for single weights",
    {
        "l1": Criterion(function="single_weights.l1"),
        "lamp": Criterion(function="single_weights.lamp"),
        "random": Criterion(function="single_weights.random"),
        "taylor_weight": Criterion(function="single_weights.taylor_weight", signals=("gradients",)),
        "fisher": Criterion(function="single_weights.fisher", signals=("gradients",)),
        "snip": Criterion(function="single_weights.snip", signals=("gradients",)),
        "obd": Criterion(function="single_weights.obd", signals=("weight_hessian",)),
        "wanda": Criterion(function="single_weights.wanda", signals=("activations",)),
        "hard_concrete": Criterion(function="single_weights.hard_concrete", signals=("weight_gates",)),
        "movement": Criterion(function="single_weights.movement", signals=("movement",)),
    },
)

#: Criteria for residual blocks and layers. The weights of a block are its parameters of two or more axes; norms and
#: biases count only where there are no others.
BLOCK_CRITERIA = Catalogue(
    "a criterion for blocks",
    {
        "block_influence": Criterion(function="block_scores.block_influence", signals=("blocks",)),
        "added_loss": Criterion(function="block_scores.added_loss", signals=("block_losses",)),
        "l1": Criterion(function="block_scores.l1"),
        "l2": Criterion(function="block_scores.l2"),
        "linf": Criterion(function="block_scores.linf"),
        "l0": Criterion(function="block_scores.l0"),
        "random": Criterion(function="block_scores.random"),
        "bn_scale": Criterion(function="block_scores.bn_scale"),
        "taylor_weight": Criterion(function="block_scores.taylor_weight", signals=("gradients",)),
        "taylor_activation": Criterion(function="block_scores.taylor_activation", signals=("block_gradients",)),
        "fisher": Criterion(function="block_scores.fisher", signals=("gradients",)),
        "snip": Criterion(function="block_scores.snip", signals=("gradients",)),
        "obd": Criterion(function="block_scores.obd", signals=("weight_hessian",)),
        "hard_concrete": Criterion(function="block_scores.hard_concrete", signals=("block_gates",)),
        "movement": Criterion(function="block_scores.movement", signals=("movement",)),
    },
)


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
    missing = CRITERIA.find(name).lacks(group)
    if missing:
        return error_message(
            f"criterion {name!r}", f"be used on groups with {missing}", f"group {group.name!r} without one"
        )
    return refused.get(name, {}).get(group.name, "")
