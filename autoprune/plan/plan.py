"""PruningPlan: how much of each group goes, by which criterion, and how the model recovers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import TypeVar

from autoprune.errors import ConfigurationError, UnknownNameError, fault
from autoprune.plan.amounts import BlockPlan, GroupPlan, RankingPlan
from autoprune.plan.checks import is_count
from autoprune.plan.recovery import RecoveryPlan, SchedulePlan
from autoprune.plan.weights import WeightPlan

PLAN_VERSION = 3

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """The whole decision of one trial; replays without Optuna.

    groups: group name -> GroupPlan. A group that is not named keeps all its channels, unless there is a ranking.
    ranking: one ranking of the channels of all groups that are not named; None for none.
    dropped: names of residual blocks that go whole.
    blocks: how many more blocks go, by a criterion; None for none.
    weights: masks of single weights of what stays; None for none.
    recovery: how the model recovers.
    seed: drives data order and every random choice of the trial, >= 0.
    """

    groups: Mapping[str, GroupPlan] = field(default_factory=dict)
    ranking: RankingPlan | None = None
    dropped: tuple[str, ...] = ()
    blocks: BlockPlan | None = None
    weights: WeightPlan | None = None
    recovery: RecoveryPlan = field(default_factory=RecoveryPlan)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, group in self.groups.items():
            if not isinstance(group, GroupPlan):
                raise ConfigurationError(fault(f"group {name!r} of a plan", "be a GroupPlan", repr(group)))
        for name, kind in (("ranking", RankingPlan), ("blocks", BlockPlan), ("weights", WeightPlan)):
            part = getattr(self, name)
            if part is not None and not isinstance(part, kind):
                raise ConfigurationError(fault(f"the {name} of a plan", f"be a {kind.__name__} or None", repr(part)))
        if not isinstance(self.dropped, tuple | list) or not all(isinstance(name, str) for name in self.dropped):
            raise ConfigurationError(fault("the dropped blocks of a plan", "be a tuple of names", repr(self.dropped)))
        object.__setattr__(self, "groups", MappingProxyType(dict(self.groups)))
        object.__setattr__(self, "dropped", tuple(sorted(set(self.dropped))))
        if not is_count(self.seed):
            raise ConfigurationError(fault("a plan's seed", "be an integer >= 0", repr(self.seed)))

    @property
    def needs_scores(self) -> bool:
        """How much goes of what depends on scores: on thresholds, a ranking, or blocks by a criterion."""
        by_threshold = any(group.threshold is not None for group in self.groups.values())
        return by_threshold or self.ranking is not None or (self.blocks is not None and self.blocks.count > 0)

    def to_json(self) -> str:
        """Versioned JSON that `from_json` of this and every later release reads."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)

    def to_dict(self) -> dict[str, object]:
        """The plan as JSON-ready data."""
        weights = self.weights
        return {
            "version": PLAN_VERSION,
            "groups": {name: asdict(group) for name, group in self.groups.items()},
            "ranking": None if self.ranking is None else asdict(self.ranking),
            "dropped": list(self.dropped),
            "blocks": None if self.blocks is None else asdict(self.blocks),
            "weights": None
            if weights is None
            else {name: getattr(weights, name) for name in weights.__slots__} | {"layers": dict(weights.layers)},
            "recovery": asdict(self.recovery),
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, text: str) -> PruningPlan:
        """Read a plan. Raises ConfigurationError for text that is no plan or is of a later version."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigurationError(
                fault("a plan", "be a JSON object", f"text that does not parse ({error})")
            ) from None
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: object) -> PruningPlan:
        """Read a plan from parsed JSON; raises ConfigurationError like `from_json`."""
        if not isinstance(data, Mapping) or "groups" not in data:
            raise ConfigurationError(fault("a plan", "be a JSON object with 'groups'", type(data).__name__))
        version = data.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= PLAN_VERSION:
            later = isinstance(version, int) and version > PLAN_VERSION
            remedy = "A later autoprune wrote it: upgrade." if later else ""
            raise ConfigurationError(fault("a plan's version", f"be 1 to {PLAN_VERSION}", repr(version), remedy))
        known = ("version", *(field.name for field in fields(cls)))
        for name in data:
            if name not in known:
                raise UnknownNameError("a field of a plan", str(name), known)
        try:
            return cls(
                groups={name: _part(GroupPlan, f"group {name!r}", part) for name, part in data["groups"].items()},
                ranking=_optional(RankingPlan, "the ranking", data.get("ranking")),
                dropped=data.get("dropped", ()),
                blocks=_optional(BlockPlan, "the blocks", data.get("blocks")),
                weights=_optional(WeightPlan, "the weights", data.get("weights")),
                recovery=_recovery(data.get("recovery", {})),
                seed=data.get("seed", 0),
            )
        except (TypeError, AttributeError) as error:
            raise ConfigurationError(fault("a plan", "hold the fields of PruningPlan", f"others ({error})")) from None


def _recovery(fields: Mapping[str, object]) -> RecoveryPlan:
    schedule = fields.get("schedule")
    if isinstance(schedule, Mapping):
        fields = {**fields, "schedule": _part(SchedulePlan, "the schedule", schedule)}
    return RecoveryPlan(**fields)  # type: ignore[arg-type]  # checked by the class


def _optional(make: Callable[..., Part], what: str, fields: Mapping[str, object] | None) -> Part | None:
    return None if fields is None else _part(make, what, fields)


def _part(make: Callable[..., Part], what: str, fields: Mapping[str, object]) -> Part:
    try:
        return make(**fields)
    except TypeError as error:
        name = getattr(make, "__name__", "its class")
        message = fault(f"{what} of a plan", f"hold the fields of {name}", f"others ({error})")
        raise ConfigurationError(message) from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{what} of the plan: {error}") from None
