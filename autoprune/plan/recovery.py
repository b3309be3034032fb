"""How a pruned model is brought back, and when during that what is to go goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autoprune.codec import Format, stored
from autoprune.plan.validation import is_count, is_finite, is_non_negative, is_share, validate

OPTIMIZERS = ("sgd", "adamw")
#: The rate of each where none is given. They are held constant until the weights of the last steps are averaged.
DEFAULT_LEARNING_RATES: Mapping[str, float] = {"sgd": 0.015, "adamw": 0.001}
#: What the norm of a weight is taken of, where norms are limited.
NORM_SCOPES = ("channel", "layer")
#: Shapes of the way from nothing pruned to all of it.
SCHEDULES = ("one_shot", "iterative", "cubic", "exponential", "learning_rate")
#: Numbers that the forward of a training step is computed with.
PRECISIONS = ("float32", "bfloat16", "float16")


@stored(Format(what="a schedule", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulePlan:
    """When what is to go goes.

    name: one of SCHEDULES. "one_shot" prunes before the fine-tune; the others prune during it.
    updates: how often the amount is brought up, the last time to exactly what the plan says, >= 1; "one_shot" has one
        unless masks regrow.
    end: share of the fine-tune in which the updates lie, in (0, 1]; what is left of it only recovers. "learning_rate"
        takes its pace from the rate alone and looks at no end.
    regrowth: share of the masked layers' non-zero weights that each update exchanges for those with the largest
        gradients, falling to 0 over the time of the updates, in [0, 1); 0 is off. For masks of single weights. An
        update before the first step exchanges nothing, as there are no gradients yet.
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
    """How a pruned model is brought back.

    steps: optimizer steps of the fine-tune, >= 0.
    optimizer: "sgd" (Nesterov momentum 0.9) or "adamw".
    learning_rate: peak of the rate, > 0.
    scheduler: name of what moves the rate: a built-in one or one of the task's.
    weight_decay: decoupled for adamw, L2 for sgd, >= 0.
    distillation_weight: share of the loss that follows the dense model's outputs, in [0, 1]; 0 is off.
    distillation_temperature: softening of both distributions (Hinton et al. 2015), > 0.
    batch_norm_samples: training samples to re-estimate running statistics with, >= 0.
    reconstruction_samples: training samples with which layers behind a cut are solved for by least squares, after each
        cut, and running statistics are re-estimated, >= 0; 0 is off.
    max_norm: weights whose L2 norm exceeds it are scaled back to it, before the fine-tune and after each of its steps;
        >= 0, and 0 is off. max_norm_per: "channel" (each filter) or "layer" (each weight tensor).
    schedule: when during the fine-tune what is to go goes.
    averaging: share of the steps, the last ones, whose weights are averaged into those of the candidate, in [0, 1);
        0 takes the last weights as they are.
    precision: what the forward of a training step is computed with: "float32", or mixed with "bfloat16" or "float16".
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
