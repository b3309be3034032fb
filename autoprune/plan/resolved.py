"""ResolvedPlan: a plan of which every amount is a number of channels or the name of a block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from autoprune.plan.allocation import GroupPlan
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecoveryPlan
from autoprune.plan.weights import WeightPlan
from autoprune.plan.widths import planned_widths
from autoprune.structure.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPlan:
    """A plan together with the architecture that it gives on one model.

    Attributes:
        asked: Plan as it was asked for; it may hold thresholds, rankings and numbers of blocks.
        plan: Equal plan without scores: ratios, numbers of channels and names of blocks.
        widths: Group name -> number of channels that stay, for every group.
        gone: Every block that is lost, also parts and combinations of the dropped ones.

    Example:
        >>> from autoprune.structure.topology import Topology
        >>> empty = Topology(groups=(), unprunable=(), products=(), tensors={})
        >>> ResolvedPlan.of(PruningPlan(seed=3), empty).seed
        3
    """

    asked: PruningPlan
    plan: PruningPlan
    widths: Mapping[str, int]
    gone: frozenset[str]

    @classmethod
    def of(cls, plan: PruningPlan, topology: Topology, asked: PruningPlan | None = None) -> ResolvedPlan:
        """Work out the architecture of a plan.

        Args:
            plan: Plan without scores.
            topology: Topology of the dense model.
            asked: Plan as it was asked for; `plan` when None.

        Returns:
            The resolved plan.

        Raises:
            ConfigurationError: The plan needs scores, or does not fit the model.
        """
        return cls(
            asked=plan if asked is None else asked,
            plan=plan,
            widths=MappingProxyType(planned_widths(plan, topology)),
            gone=topology.gone(plan.dropped),
        )

    @property
    def dropped(self) -> tuple[str, ...]:
        """Names of the fewest blocks that drop everything that goes."""
        return self.plan.dropped

    @property
    def weights(self) -> WeightPlan | None:
        """Masks; None without."""
        return self.plan.weights

    @property
    def recovery(self) -> RecoveryPlan:
        """Recovery settings."""
        return self.plan.recovery

    @property
    def seed(self) -> int:
        """Seed of the trial."""
        return self.plan.seed

    @property
    def first_channels(self) -> KeptChannels:
        """Kept set of the planned widths. Costs depend only on how many channels stay."""
        groups = {name: tuple(range(width)) for name, width in self.widths.items()}
        return KeptChannels(groups=groups, dropped=self.dropped)

    def criterion(self, group: str) -> str:
        """Return the criterion that chooses a group's channels.

        Args:
            group: Name of a group.

        Returns:
            Name of the criterion; the default for a group that the plan does not name.
        """
        return self.plan.groups.get(group, GroupPlan()).criterion

    def with_recovery(self, recovery: RecoveryPlan) -> ResolvedPlan:
        """Return the plan with other recovery settings.

        Args:
            recovery: Recovery settings.

        Returns:
            A resolved plan of the same architecture.
        """
        return replace(self, asked=replace(self.asked, recovery=recovery), plan=replace(self.plan, recovery=recovery))

    def with_widths(self, widths: Mapping[str, int], topology: Topology) -> ResolvedPlan:
        """Return the plan with other widths, which are then what is asked for.

        Args:
            widths: Group name -> number of channels that stay, for every group.
            topology: Topology of the dense model.

        Returns:
            The resolved plan.
        """
        whole = topology.widths
        groups = {
            name: GroupPlan(count=whole[name] - width, criterion=self.criterion(name))
            for name, width in widths.items()
            if name in self.plan.groups or width < whole[name]
        }
        return ResolvedPlan.of(replace(self.plan, groups=groups), topology)
