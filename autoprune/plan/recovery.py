"""Recovery settings of a plan, and the pruning schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autoprune.codec import Format, stored
from autoprune.plan.validation import is_count, is_finite, is_non_negative, is_share, validate

OPTIMIZERS = ("sgd", "adamw")
#: Optimizer -> learning rate where none is given. Suits a constant rate with weight averaging at the end.
DEFAULT_LEARNING_RATES: Mapping[str, float] = {"sgd": 0.015, "adamw": 0.001}
#: Slices of a weight whose norms `max_norm` limits.
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

    name: str = "one_shot"
    updates: int = 4
    end: float = 0.75
    regrowth: float = 0.0

    def __post_init__(self) -> None:
        validate(
            "the schedule",
            (
                (self.name in SCHEDULES, "the schedule", f"be one of {', '.join(SCHEDULES)}", self.name),
                (is_count(self.updates) and self.updates >= 1, "updates", "be an integer >= 1", self.updates),
                (is_finite(self.end) and 0 < self.end <= 1, "the schedule's end", "lie in (0, 1]", self.end),
                (is_share(self.regrowth), "regrowth", "lie in [0, 1)", self.regrowth),
            ),
        )


@stored(Format(what="a recovery plan", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPlan:
    """How a pruned model recovers its quality.

    Attributes:
        steps: Optimizer steps of the fine-tune, >= 0.
        optimizer: "sgd" (Nesterov momentum 0.9) or "adamw".
        learning_rate: Peak learning rate, > 0.
        scheduler: Name of the learning-rate scheduler: a built-in one or one of the task's.
        weight_decay: Decoupled for adamw, L2 for sgd, >= 0.
        distillation_weight: Share of the loss that compares with the dense model's outputs, in [0, 1]; 0 is off.
        distillation_temperature: Softening of both distributions (Hinton et al. 2015), > 0.
        batch_norm_samples: Training samples from which running statistics are re-estimated, >= 0.
        reconstruction_samples: Training samples from which layers behind a cut are solved by least squares and running
            statistics re-estimated, after each cut, >= 0; 0 is off.
        max_norm: Largest L2 norm of a weight, >= 0; 0 is off. Larger weights are scaled back before the fine-tune and
            after each of its steps.
        max_norm_per: Slice whose norm is limited: "channel" (each filter) or "layer" (each weight tensor).
        schedule: When pruning is applied during the fine-tune.
        averaging: Fraction of the steps, at the end, whose weights are averaged into the candidate's, in [0, 1); 0
            takes the weights of the last step.
        precision: Number format of the forward of a training step: "float32", or mixed with "bfloat16" or "float16".

    Example:
        >>> RecoveryPlan(steps=100, optimizer="adamw", learning_rate=1e-3).schedule.name
        'one_shot'
    """

    steps: int = 40
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    scheduler: str = "one_cycle"
    weight_decay: float = 5e-4
    distillation_weight: float = 0.0
    distillation_temperature: float = 2.0
    batch_norm_samples: int = 256
    reconstruction_samples: int = 0
    max_norm: float = 0.0
    max_norm_per: str = "channel"
    schedule: SchedulePlan = field(default_factory=SchedulePlan)
    averaging: float = 0.0
    precision: str = "float32"

    def __post_init__(self) -> None:
        weight, temperature = self.distillation_weight, self.distillation_temperature
        rate, norms, recon = self.learning_rate, self.batch_norm_samples, self.reconstruction_samples
        validate(
            "the recovery plan",
            (
                (is_count(self.steps), "recovery steps", "be an integer >= 0", self.steps),
                (self.optimizer in OPTIMIZERS, "the optimizer", f"be one of {', '.join(OPTIMIZERS)}", self.optimizer),
                (is_finite(rate) and rate > 0, "the learning rate", "be > 0", rate),
                (isinstance(self.scheduler, str), "the scheduler", "be a name", self.scheduler),
                (is_non_negative(self.weight_decay), "weight_decay", "be >= 0", self.weight_decay),
                (is_finite(weight) and 0 <= weight <= 1, "distillation_weight", "lie in [0, 1]", weight),
                (is_finite(temperature) and temperature > 0, "distillation_temperature", "be > 0", temperature),
                (is_count(norms), "batch_norm_samples", "be an integer >= 0", norms),
                (is_count(recon), "reconstruction_samples", "be an integer >= 0", recon),
                (is_non_negative(self.max_norm), "max_norm", "be >= 0", self.max_norm),
                (
                    self.max_norm_per in NORM_SCOPES,
                    "max_norm_per",
                    f"be one of {', '.join(NORM_SCOPES)}",
                    self.max_norm_per,
                ),
                (is_share(self.averaging), "averaging", "lie in [0, 1)", self.averaging),
                (isinstance(self.schedule, SchedulePlan), "the schedule", "be a SchedulePlan", self.schedule),
                (self.precision in PRECISIONS, "the precision", f"be one of {', '.join(PRECISIONS)}", self.precision),
            ),
        )
