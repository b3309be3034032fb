"""PruningPlan: how much of each group goes, by which criterion, and how the model recovers."""

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

PLAN_VERSION = 4

_OPTIONAL = ("ranking", "dropped", "blocks", "layers", "weights", "recovery", "seed")


@stored(Format(what="a plan", version=PLAN_VERSION, optional=_OPTIONAL, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """The whole decision of one trial; replays without Optuna.

    groups: group name -> GroupPlan. A group that is not named keeps all its channels, unless there is a ranking.
    ranking: one ranking of the channels of all groups that are not named; None for none.
    dropped: names of residual blocks and layers that go whole.
    blocks, layers: how many more residual blocks and layers go, each by a criterion; None for none.
    weights: masks of single weights of what stays; None for none.
    recovery: how the model recovers.
    seed: drives data order and every random choice of the trial, >= 0.
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
        """How much goes of what depends on scores: on thresholds, a ranking, or blocks or layers by a criterion."""
        by_threshold = any(group.threshold is not None for group in self.groups.values())
        return by_threshold or self.ranking is not None or len(self.block_plans) > 0

    @property
    def block_plans(self) -> dict[str, BlockPlan]:
        """How many layers and how many blocks go by a criterion, where any do."""
        plans = {"layers": self.layers, "blocks": self.blocks}
        return {kind: plan for kind, plan in plans.items() if plan is not None and plan.count > 0}

    def to_json(self) -> str:
        """Versioned JSON that `from_json` of this and every later release reads."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)

    def to_dict(self) -> dict[str, object]:
        """The plan as JSON-ready data."""
        return to_plain_object(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> PruningPlan:
        """Read a plan. Raises ConfigurationError for text that is no plan or is of a later version."""
        return cls.from_dict(parse(text, "a plan", ConfigurationError))

    @classmethod
    def from_dict(cls, data: object) -> PruningPlan:
        """Read a plan from parsed JSON; raises ConfigurationError like `from_json`."""
        return from_plain(cls, data, "a plan", ConfigurationError)
