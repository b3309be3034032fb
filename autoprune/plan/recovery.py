"""Recovery settings of a plan, and the pruning schedule.

Each recovery step has a dataclass of settings and a field of `RecoveryPlan`. The first field of such a dataclass is the
step's strength: its default 0 switches the step off, and it is what a study chooses from. Its class variable `needs`
says what the step makes up for or acts in: "cut", "training", or "" for neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, ClassVar, cast

from autoprune.codec import Format, stored
from autoprune.plan.rules import (
    FRACTION,
    NAME,
    NON_NEGATIVE,
    PART,
    POSITIVE,
    SHARE,
    at_least,
    check_fields,
    instance_of,
    one_of,
)

OPTIMIZERS = ("sgd", "adamw")
#: Optimizer -> learning rate where none is given. Suits a constant rate with weight averaging at the end.
DEFAULT_LEARNING_RATES: Mapping[str, float] = {"sgd": 0.015, "adamw": 0.001}
#: Slices of a weight whose norms max-norm limits.
NORM_SCOPES = ("channel", "layer")
#: Names of the pruning schedules.
SCHEDULES = ("one_shot", "iterative", "cubic", "exponential", "learning_rate")
#: Number formats of the forward of a training step.
PRECISIONS = ("float32", "bfloat16", "float16")


@stored(Format(what="a schedule", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulePlan:
    """When pruning is applied during the fine-tune.

    Attributes:
        name: One of SCHEDULES. "one_shot" prunes before the fine-tune; the others prune during it.
        updates: Number of pruning steps, >= 1. The last one reaches exactly the planned amount. "one_shot" has a single
            one unless masks regrow.
        end: Fraction of the fine-tune in which pruning happens, in (0, 1]; the rest is recovery only. "learning_rate"
            follows the learning rate alone and ignores `end`.
        regrowth: Share of the masked layers' non-zero weights that each update exchanges for the weights with the
            largest gradients, in [0, 1); it falls to 0 over the updates. 0 is off. For masks of single weights. An
            update before the first optimizer step exchanges nothing, as there are no gradients yet.

    Example:
        >>> SchedulePlan(name="cubic", updates=8).end
        0.75
    """

    name: Annotated[str, one_of(SCHEDULES)] = "one_shot"
    updates: Annotated[int, at_least(1)] = 4
    end: Annotated[float, PART] = 0.75
    regrowth: Annotated[float, SHARE] = 0.0

    def __post_init__(self) -> None:
        check_fields("the schedule", self, "schedule")


@stored(Format(what="a reconstruction", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class ReconstructionPlan:
    """Least-squares solution of the layers behind each cut.

    Attributes:
        samples: Training samples from which the layers are solved and running statistics re-estimated, >= 0; 0 is off.

    Example:
        >>> ReconstructionPlan(samples=512).samples
        512
    """

    needs: ClassVar[str] = "cut"

    samples: Annotated[int, at_least(0)] = 0

    def __post_init__(self) -> None:
        check_fields("the reconstruction", self, "reconstruction")


@stored(Format(what="a recalibration", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class RecalibrationPlan:
    """New running statistics of the norms after pruning.

    Attributes:
        samples: Training samples from which running statistics are re-estimated, >= 0; 0 is off.

    Example:
        >>> RecalibrationPlan(samples=256).samples
        256
    """

    needs: ClassVar[str] = ""

    samples: Annotated[int, at_least(0)] = 0

    def __post_init__(self) -> None:
        check_fields("the recalibration", self, "recalibration")


@stored(Format(what="a max-norm", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class MaxNormPlan:
    """Limit on the norms of weights.

    Attributes:
        limit: Largest L2 norm of a weight, >= 0; 0 is off. Larger weights are scaled back before the fine-tune and
            after each of its steps.
        per: Slice whose norm is limited: "channel" (each filter) or "layer" (each weight tensor).

    Example:
        >>> MaxNormPlan(limit=2.0).per
        'channel'
    """

    needs: ClassVar[str] = ""

    limit: Annotated[float, NON_NEGATIVE] = 0.0
    per: Annotated[str, one_of(NORM_SCOPES)] = "channel"

    def __post_init__(self) -> None:
        check_fields("the max-norm", self, "max_norm")


@stored(Format(what="a distillation", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationPlan:
    """Loss that compares with the dense model's outputs.

    Attributes:
        weight: Share of the loss that compares with the dense model's outputs, in [0, 1]; 0 is off.
        temperature: Softening of both distributions (Hinton et al. 2015), > 0.

    Example:
        >>> DistillationPlan(weight=0.9).temperature
        2.0
    """

    needs: ClassVar[str] = "training"

    weight: Annotated[float, FRACTION] = 0.0
    temperature: Annotated[float, POSITIVE] = 2.0

    def __post_init__(self) -> None:
        check_fields("the distillation", self, "distillation")


@stored(Format(what="an averaging", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class AveragingPlan:
    """Average of the weights of the last steps.

    Attributes:
        share: Share of the steps, at the end, whose weights are averaged into the candidate's, in [0, 1); 0 takes the
            weights of the last step.

    Example:
        >>> AveragingPlan(share=0.6).share
        0.6
    """

    needs: ClassVar[str] = "training"

    share: Annotated[float, SHARE] = 0.0

    def __post_init__(self) -> None:
        check_fields("the averaging", self, "averaging")


#: Field of RecoveryPlan -> (field of an earlier version, name of the same value in today's settings of the step).
_EARLIER_FIELDS: Mapping[str, Mapping[str, str]] = {
    "reconstruction": {"reconstruction_samples": "samples"},
    "recalibration": {"batch_norm_samples": "samples"},
    "max_norm": {"max_norm": "limit", "max_norm_per": "per"},
    "distillation": {"distillation_weight": "weight", "distillation_temperature": "temperature"},
    "averaging": {"averaging": "share"},
}


def _nested(data: Mapping[str, object]) -> Mapping[str, object]:
    """Group the fields of a recovery plan before version 5, which were flat."""
    found = dict(data)
    for step, earlier in _EARLIER_FIELDS.items():
        flat = {now: found.pop(then) for then, now in earlier.items() if not isinstance(found.get(then, {}), Mapping)}
        if flat:
            found[step] = flat
    return found


@stored(Format(what="a recovery plan", optional=None, refuses_unknown=True, lift=_nested))
@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPlan:
    """How a pruned model recovers its quality.

    Attributes:
        steps: Optimizer steps of the fine-tune, >= 0.
        optimizer: "sgd" (Nesterov momentum 0.9) or "adamw".
        learning_rate: Peak learning rate, > 0.
        scheduler: Name of the learning-rate scheduler: a built-in one or one of the task's.
        weight_decay: Decoupled for adamw, L2 for sgd, >= 0.
        precision: Number format of the forward of a training step: "float32", or mixed with "bfloat16" or "float16".
        schedule: When pruning is applied during the fine-tune.
        reconstruction: Least-squares solution of the layers behind each cut.
        recalibration: New running statistics of the norms; from 256 samples by default.
        max_norm: Limit on the norms of weights.
        distillation: Loss that compares with the dense model's outputs.
        averaging: Average of the weights of the last steps.

    Example:
        >>> RecoveryPlan(steps=100, optimizer="adamw", averaging=AveragingPlan(share=0.6)).schedule.name
        'one_shot'
    """

    steps: Annotated[int, at_least(0)] = 40
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = "sgd"
    learning_rate: Annotated[float, POSITIVE] = 0.05
    scheduler: Annotated[str, NAME] = "one_cycle"
    weight_decay: Annotated[float, NON_NEGATIVE] = 5e-4
    precision: Annotated[str, one_of(PRECISIONS)] = "float32"
    schedule: Annotated[SchedulePlan, instance_of(SchedulePlan)] = field(default_factory=SchedulePlan)
    reconstruction: Annotated[ReconstructionPlan, instance_of(ReconstructionPlan)] = field(
        default_factory=ReconstructionPlan
    )
    recalibration: Annotated[RecalibrationPlan, instance_of(RecalibrationPlan)] = field(
        default_factory=lambda: RecalibrationPlan(samples=256)
    )
    max_norm: Annotated[MaxNormPlan, instance_of(MaxNormPlan)] = field(default_factory=MaxNormPlan)
    distillation: Annotated[DistillationPlan, instance_of(DistillationPlan)] = field(default_factory=DistillationPlan)
    averaging: Annotated[AveragingPlan, instance_of(AveragingPlan)] = field(default_factory=AveragingPlan)

    def __post_init__(self) -> None:
        check_fields("the recovery plan", self)

    def strength(self, step: str) -> float:
        """Read the strength of a recovery step.

        Args:
            step: Name of the step, a field of the plan.

        Returns:
            Value of the first field of the step's settings; 0 when the step is off.
        """
        settings = getattr(self, step)
        return cast("float", getattr(settings, strength_field(type(settings))))


#: Names of the recovery steps, fields of RecoveryPlan -> class of their settings.
STEP_SETTINGS: Mapping[str, type] = {
    "reconstruction": ReconstructionPlan,
    "max_norm": MaxNormPlan,
    "distillation": DistillationPlan,
    "averaging": AveragingPlan,
    "recalibration": RecalibrationPlan,
}


def strength_field(settings: type) -> str:
    """Name the field of a recovery step's settings that switches the step on.

    Args:
        settings: Dataclass of the settings.

    Returns:
        Name of its first field.
    """
    return fields(settings)[0].name
