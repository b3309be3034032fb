"""PruningPlan: the complete decision of one trial."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from autoprune.codec import Format, from_plain, parse, stored, to_plain_object
from autoprune.errors import ConfigurationError, error_message
from autoprune.plan.allocation import BlockPlan, GroupPlan, RankingPlan
from autoprune.plan.recovery import RecoveryPlan
from autoprune.plan.validation import is_count
from autoprune.plan.weights import WeightPlan

PLAN_VERSION = 5

_OPTIONAL = ("ranking", "dropped", "blocks", "layers", "weights", "recovery", "seed")


@stored(Format(what="a plan", version=PLAN_VERSION, optional=_OPTIONAL, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """Complete decision of one trial: what is pruned, by which criterion, and how the model recovers.

    A plan replays without Optuna.

    Attributes:
        groups: Group name -> its plan. A group that is not named keeps all its channels, unless there is a ranking.
        ranking: One ranking of the channels of all groups that are not named; None for no ranking.
        dropped: Names of the residual blocks and layers to drop whole.
        blocks: How many further residual blocks to drop by a criterion; None for no further ones.
        layers: How many further layers to drop by a criterion; None for no further ones.
        weights: Masks of single weights in the layers that stay; None for no masks.
        recovery: How the model recovers.
        seed: Seed of the data order and of every random choice of the trial, >= 0.

    Example:
        >>> plan = PruningPlan(groups={"conv1": GroupPlan(ratio=0.5)}, seed=1)
        >>> PruningPlan.from_json(plan.to_json()) == plan
        True
    """

    groups: Mapping[str, GroupPlan] = field(default_factory=dict)
    ranking: RankingPlan | None = None
    dropped: tuple[str, ...] = ()
    blocks: BlockPlan | None = None
    layers: BlockPlan | None = None
    weights: WeightPlan | None = None
    recovery: RecoveryPlan = field(default_factory=RecoveryPlan)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, group in self.groups.items():
            if not isinstance(group, GroupPlan):
                raise ConfigurationError(error_message(f"group {name!r} of a plan", "be a GroupPlan", repr(group)))
        kinds = {"ranking": RankingPlan, "blocks": BlockPlan, "layers": BlockPlan, "weights": WeightPlan}
        for name, kind in kinds.items():
            part = getattr(self, name)
            if part is not None and not isinstance(part, kind):
                raise ConfigurationError(
                    error_message(f"the {name} of a plan", f"be a {kind.__name__} or None", repr(part))
                )
        if not isinstance(self.dropped, tuple | list) or not all(isinstance(name, str) for name in self.dropped):
            raise ConfigurationError(
                error_message("the dropped blocks of a plan", "be a tuple of names", repr(self.dropped))
            )
        object.__setattr__(self, "groups", MappingProxyType(dict(self.groups)))
        object.__setattr__(self, "dropped", tuple(sorted(set(self.dropped))))
        if not is_count(self.seed):
            raise ConfigurationError(error_message("a plan's seed", "be an integer >= 0", repr(self.seed)))

    @property
    def needs_scores(self) -> bool:
        """Whether the amounts depend on scores: on a threshold, a ranking, or blocks chosen by a criterion."""
        by_threshold = any(group.threshold is not None for group in self.groups.values())
        return by_threshold or self.ranking is not None or len(self.block_plans) > 0

    @property
    def block_plans(self) -> dict[str, BlockPlan]:
        """Plans that drop blocks or layers by a criterion, by kind: "blocks" or "layers"."""
        plans = {"layers": self.layers, "blocks": self.blocks}
        return {kind: plan for kind, plan in plans.items() if plan is not None and plan.count > 0}

    def to_json(self) -> str:
        """Write the plan as versioned JSON, which `from_json` of this and every later release reads.

        Returns:
            JSON text.
        """
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)

    def to_dict(self) -> dict[str, object]:
        """Convert the plan to JSON-ready data.

        Returns:
            Field name -> value, and the version.
        """
        return to_plain_object(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> PruningPlan:
        """Read a plan from JSON.

        Args:
            text: JSON that `to_json` wrote.

        Returns:
            The plan.

        Raises:
            ConfigurationError: For text that is no plan, or that a later version wrote.
        """
        return cls.from_dict(parse(text, "a plan", ConfigurationError))

    @classmethod
    def from_dict(cls, data: object) -> PruningPlan:
        """Read a plan from parsed JSON.

        Args:
            data: What `to_dict` returned.

        Returns:
            The plan.

        Raises:
            ConfigurationError: For data that is no plan, or that a later version wrote.
        """
        return from_plain(cls, data, "a plan", ConfigurationError)
