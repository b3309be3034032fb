"""What the study may choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.criteria.registry import criterion
from autoprune.errors import ConfigurationError, UnknownNameError, fault, raise_all
from autoprune.plan.recovery import NORM_SCOPES, OPTIMIZERS
from autoprune.sensitivity.cost_model import AXES
from autoprune.trace.topology import KINDS as GROUP_KINDS

SPACES = ("guided", "direct")
#: What may go: kinds of groups, and residual blocks whole.
KINDS = (*GROUP_KINDS, "blocks")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSettings:
    """The search space.

    kind: "guided" (a budget, and residuals around an allocation) or "direct" (one ratio for each group).
    cost: what the budget is a share of: "multiply_adds", "parameters" or "size_bytes".
    min_budget: smallest share of the dense cost to look at, in (0, 1).
    max_ratio: most that may go of one group, in (0, 1).
    round_to: kept channels of a group are a multiple of this (8 or 16 suit most hardware), or all of them, >= 1;
        heads of attention are not rounded.
    protect: patterns of module names, such as "stem.*", whose channels all stay.
    kinds: what may go: "channels", "heads" of attention, "head_width", and residual "blocks" whole.
    criteria: names to choose from. criterion_per_group: one choice for each group instead of one for all.
    scan: measure sensitivity first (guided space); without it the allocation is uniform.
    scan_criterion: what ranks channels in the scan.
    steps: fine-tune steps of a trial, >= 0. learning_rate: one number, or (low, high) to sample from.
    optimizers: names to choose from. distillation: weights to choose from, 0 is off.
    batch_norm_samples: for recalibration. weight_decay: of the fine-tune.
    max_norm: limits of the weights' norms to choose from, 0 is off; max_norm_per: "channel" or "layer".
    """

    kind: str = "guided"
    cost: str = "multiply_adds"
    min_budget: float = 0.05
    max_ratio: float = 0.95
    round_to: int = 1
    protect: tuple[str, ...] = ()
    kinds: tuple[str, ...] = GROUP_KINDS
    criteria: tuple[str, ...] = ("l2", "l1", "taylor")
    criterion_per_group: bool = False
    scan: bool = True
    scan_criterion: str = "l2"
    steps: int = 40
    learning_rate: float | tuple[float, float] = (0.01, 0.1)
    optimizers: tuple[str, ...] = ("sgd",)
    distillation: tuple[float, ...] = (0.5,)
    batch_norm_samples: int = 256
    weight_decay: float = 5e-4
    max_norm: tuple[float, ...] = (0.0,)
    max_norm_per: str = "channel"

    def __post_init__(self) -> None:
        for what in ("criteria", "optimizers", "distillation", "protect", "kinds", "max_norm"):
            if not isinstance(getattr(self, what), tuple):
                raise ConfigurationError(fault(what, "be a tuple", repr(getattr(self, what)), "A single one is (x,)."))
        for what, names, known in (
            ("the space", (self.kind,), SPACES),
            ("the cost of the budget", (self.cost,), AXES),
            ("a kind of pruning", self.kinds, KINDS),
            ("an optimizer", self.optimizers, OPTIMIZERS),
            ("what a norm is taken of", (self.max_norm_per,), NORM_SCOPES),
        ):
            _check_names(what, names, known)
        for name in (*self.criteria, self.scan_criterion):
            criterion(name)
        checks = (
            (_is_share(self.min_budget), "min_budget", "lie in (0, 1)", self.min_budget),
            (_is_share(self.max_ratio), "max_ratio", "lie in (0, 1)", self.max_ratio),
            (_is_number(self.weight_decay) and self.weight_decay >= 0, "weight_decay", "be >= 0", self.weight_decay),
            (
                isinstance(self.batch_norm_samples, int) and self.batch_norm_samples >= 0,
                "batch_norm_samples",
                "be an integer >= 0",
                self.batch_norm_samples,
            ),
            (
                isinstance(self.round_to, int) and not isinstance(self.round_to, bool) and self.round_to >= 1,
                "round_to",
                "be an integer >= 1",
                self.round_to,
            ),
            (len(self.criteria) > 0, "criteria", "name at least one", self.criteria),
            (
                len(self.max_norm) > 0 and all(_is_number(limit) and limit >= 0 for limit in self.max_norm),
                "max_norm",
                "be limits >= 0, where 0 is off",
                self.max_norm,
            ),
            (len(self.kinds) > 0, "kinds", "name at least one", self.kinds),
            (len(self.optimizers) > 0, "optimizers", "name at least one", self.optimizers),
            (isinstance(self.steps, int) and self.steps >= 0, "steps", "be an integer >= 0", self.steps),
            (
                _are_rates(self.learning_rate),
                "learning_rate",
                "be > 0: a number, or a tuple (low, high) with low <= high",
                self.learning_rate,
            ),
            (
                len(self.distillation) > 0 and all(0 <= weight <= 1 for weight in self.distillation),
                "distillation",
                "be weights in [0, 1]",
                self.distillation,
            ),
        )
        raise_all("the space", [fault(what, want, repr(got)) for ok, what, want, got in checks if not ok])

    @property
    def rates(self) -> tuple[float, float]:
        """Lowest and highest learning rate."""
        if isinstance(self.learning_rate, tuple):
            return self.learning_rate
        return (self.learning_rate, self.learning_rate)


def _check_names(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownNameError(what, name, known)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < 1


def _are_rates(value: object) -> bool:
    rates = value if isinstance(value, tuple) else (value, value)
    return len(rates) == 2 and all(_is_number(rate) for rate in rates) and 0 < rates[0] <= rates[1]
