"""PruningPlan: how much of each group goes, by which criterion, and how the model recovers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType

from autoprune.errors import ConfigurationError, fault, raise_all

PLAN_VERSION = 2
OPTIMIZERS = ("sgd", "adamw")
#: What the norm of a weight is taken of, where norms are limited.
NORM_SCOPES = ("channel", "layer")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """What happens to one group of coupled channels.

    ratio: share of the dense group's channels to remove, in [0, 1). The achieved ratio differs by
        rounding and because one channel always stays; it is what reports show.
    criterion: name of the criterion that ranks the group's channels.
    """

    ratio: float
    criterion: str = "l2"

    def __post_init__(self) -> None:
        if not isinstance(self.criterion, str):
            raise ConfigurationError(fault("a group's criterion", "be a name", repr(self.criterion)))
        if not (isinstance(self.ratio, int | float) and 0.0 <= self.ratio < 1.0):
            raise ConfigurationError(
                fault("a group's ratio", "lie in [0, 1)", repr(self.ratio), "It is the share of channels to remove.")
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPlan:
    """How a cut model is brought back.

    steps: optimizer steps of the fine-tune, >= 0.
    optimizer: "sgd" (Nesterov momentum 0.9) or "adamw".
    learning_rate: peak of the one-cycle schedule, > 0.
    weight_decay: decoupled for adamw, L2 for sgd, >= 0.
    distillation_weight: share of the loss that follows the dense model's outputs, in [0, 1]; 0 is off.
    distillation_temperature: softening of both distributions (Hinton et al. 2015), > 0.
    batch_norm_samples: training samples to re-estimate running statistics with, >= 0.
    max_norm: weights whose L2 norm exceeds it are scaled back to it, before the fine-tune and after each of its steps;
        >= 0, and 0 is off. max_norm_per: "channel" (each filter) or "layer" (each weight tensor).
    """

    steps: int = 40
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    weight_decay: float = 5e-4
    distillation_weight: float = 0.0
    distillation_temperature: float = 2.0
    batch_norm_samples: int = 256
    max_norm: float = 0.0
    max_norm_per: str = "channel"

    def __post_init__(self) -> None:
        checks = (
            (_is_count(self.steps), "recovery steps", "be an integer >= 0", self.steps),
            (self.optimizer in OPTIMIZERS, "the optimizer", f"be one of {', '.join(OPTIMIZERS)}", self.optimizer),
            (
                _is_finite(self.learning_rate) and self.learning_rate > 0,
                "the learning rate",
                "be > 0",
                self.learning_rate,
            ),
            (_is_finite(self.weight_decay) and self.weight_decay >= 0, "weight_decay", "be >= 0", self.weight_decay),
            (
                _is_finite(self.distillation_weight) and 0 <= self.distillation_weight <= 1,
                "distillation_weight",
                "lie in [0, 1]",
                self.distillation_weight,
            ),
            (
                _is_finite(self.distillation_temperature) and self.distillation_temperature > 0,
                "distillation_temperature",
                "be > 0",
                self.distillation_temperature,
            ),
            (_is_finite(self.max_norm) and self.max_norm >= 0, "max_norm", "be >= 0", self.max_norm),
            (
                self.max_norm_per in NORM_SCOPES,
                "max_norm_per",
                f"be one of {', '.join(NORM_SCOPES)}",
                self.max_norm_per,
            ),
            (_is_count(self.batch_norm_samples), "batch_norm_samples", "be an integer >= 0", self.batch_norm_samples),
        )
        raise_all("the recovery plan", [fault(what, want, repr(got)) for ok, what, want, got in checks if not ok])


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """The whole decision of one trial; replays without Optuna.

    groups: group name -> GroupPlan. A group that is not named keeps all its channels.
    dropped: names of residual blocks that go whole.
    recovery: how the model recovers after the cut.
    seed: drives data order and every random choice of the trial, >= 0.
    """

    groups: Mapping[str, GroupPlan]
    dropped: tuple[str, ...] = ()
    recovery: RecoveryPlan = field(default_factory=RecoveryPlan)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, group in self.groups.items():
            if not isinstance(group, GroupPlan):
                raise ConfigurationError(fault(f"group {name!r} of a plan", "be a GroupPlan", repr(group)))
        if not isinstance(self.dropped, tuple | list) or not all(isinstance(name, str) for name in self.dropped):
            raise ConfigurationError(fault("the dropped blocks of a plan", "be a tuple of names", repr(self.dropped)))
        object.__setattr__(self, "groups", MappingProxyType(dict(self.groups)))
        object.__setattr__(self, "dropped", tuple(sorted(set(self.dropped))))
        if not _is_count(self.seed):
            raise ConfigurationError(fault("a plan's seed", "be an integer >= 0", repr(self.seed)))

    def to_json(self) -> str:
        """Versioned JSON that `from_json` of this and every later release reads."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)

    def to_dict(self) -> dict[str, object]:
        """The plan as JSON-ready data."""
        return {
            "version": PLAN_VERSION,
            "groups": {name: asdict(group) for name, group in self.groups.items()},
            "dropped": list(self.dropped),
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
        if not isinstance(version, int) or not 1 <= version <= PLAN_VERSION:
            later = isinstance(version, int) and version > PLAN_VERSION
            remedy = "A later autoprune wrote it: upgrade." if later else ""
            raise ConfigurationError(fault("a plan's version", f"be 1 to {PLAN_VERSION}", repr(version), remedy))
        try:
            return cls(
                groups={name: _group(name, group) for name, group in data["groups"].items()},
                dropped=tuple(data.get("dropped", ())),
                recovery=RecoveryPlan(**data.get("recovery", {})),
                seed=data.get("seed", 0),
            )
        except (TypeError, AttributeError) as error:
            raise ConfigurationError(fault("a plan", "hold the fields of PruningPlan", f"others ({error})")) from None


def _group(name: str, fields: Mapping[str, object]) -> GroupPlan:
    try:
        return GroupPlan(**fields)  # type: ignore[arg-type]  # checked by the class
    except TypeError as error:
        message = fault(f"group {name!r} of a plan", "hold the fields of GroupPlan", f"others ({error})")
        raise ConfigurationError(message) from None
    except ConfigurationError as error:
        raise ConfigurationError(f"group {name!r} of the plan: {error}") from None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
