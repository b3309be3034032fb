"""What the study may choose from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoprune.codec import Format, stored
from autoprune.criteria.blocks import BLOCK_CRITERIA
from autoprune.criteria.registry import criterion
from autoprune.criteria.single_weights import WEIGHT_CRITERIA
from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.plan.recovery import DEFAULT_LEARNING_RATES, NORM_SCOPES, OPTIMIZERS, PRECISIONS, SCHEDULES
from autoprune.plan.validation import FieldCheck, is_count, is_finite, is_non_negative, is_share, validate
from autoprune.plan.weights import PATTERNS, SPREADS, block_pattern, group_pattern
from autoprune.sensitivity.cost_model import WIDTH_COSTS
from autoprune.space.ties import TIES
from autoprune.trace.groups import GROUP_KINDS

SPACES = ("guided", "reduced", "direct")
#: What may go: kinds of groups, residual blocks and layers whole, and single weights.
PRUNING_KINDS = (*GROUP_KINDS, "blocks", "layers", "weights")
#: How it is said how many channels go: a share or a number of each group; those under a threshold; one ranking of all.
PRUNING_MODES = ("ratio", "count", "threshold", "ranking")
#: Those of them with which the widths follow from scores, in any number of channels.
SCORED_MODES = ("threshold", "ranking")
#: Stands for the optimizer that suits the model.
AUTO = "auto"
#: The pattern of a plan without masks.
NO_MASKS = "none"


@stored(Format(what="a space", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSettings:
    """The search space. Where a field holds several choices the study samples among them.

    kind: "guided" (a budget, and residuals around an allocation), "reduced" (a budget, an exponent and eight
        multipliers, for many layers or a poor scan) or "direct" (one ratio for each group).
    tie: groups that share one width: "none", "stage" (alike and one after the other at one resolution) or "shape".
    cost: what the budget is a share of: "multiply_adds", "parameters" or "size_bytes".
    min_budget: smallest share of the dense cost to look at, in (0, 1).
    max_ratio: most that may go of one group, in (0, 1).
    round_to: kept channels of a group are a multiple of this (8 or 16 suit most hardware), or all of them, >= 1;
        heads of attention are not rounded. It holds for the amounts "ratio" and "count".
    protect: patterns of module names, such as "stem.*", whose channels all stay.
    kinds: what may go: "channels", "heads" of attention, "head_width", residual "blocks" whole, single "weights";
        "layers": members of lists of modules whole, also those whose removal is not proved equal to weights of zero.
    amounts: how it is said how much goes, names among AMOUNTS. threshold: (low, high) of thresholds, as multiples of a
        group's mean score.
    criteria: names to choose from. criterion_per_group: one choice for each group instead of one for all.
    block_criteria: with names here, blocks and layers go by number, the lowest by the chosen criterion first; without,
        each is a choice of its own.
    patterns: of masks, "none" among them for no mask. sparsity: (low, high) of the share of weights that are zero.
        spreads: how it is spread over layers. weight_criteria: what ranks single weights.
    scan: measure sensitivity first (guided and reduced space); without it the allocation is uniform.
    scan_samples: most samples that the scan may see by forwards, >= 1; None looks at all that it has.
    scan_criterion: what ranks channels in the scan, and in a ranking where each group has a criterion of its own.
    steps: fine-tune steps of a trial, >= 0, or (low, high) to sample from in the logarithm, low >= 1.
    length_exponent: a plan whose widths and blocks cost a share c of the dense multiply-adds is trained for
        steps / c ** length_exponent, as a step of a small model is cheap, in [0, 1]: 0 trains all for as many steps, 1
        for as many multiply-adds. Where c is below min_budget, as if it were that.
    learning_rate: one number, or (low, high) to sample from; None is each optimizer's own, of RATES.
    optimizers, schedulers: names to choose from; the optimizer "auto" is "adamw" for models with LayerNorm and no
        BatchNorm and where numbers are predicted, and "sgd" for others.
    precision: what a training step is computed with.
    schedules: when during the fine-tune what is to go goes, names to choose from. updates: how often to choose from.
        schedule_end: share of the fine-tune in which the updates lie. regrowth: shares to choose from, 0 is off.
    distillation: weights to choose from, 0 is off.
    averaging: shares of the last steps whose weights are averaged to choose from, 0 is off.
    batch_norm_samples: for recalibration. weight_decay: of the fine-tune.
    reconstruction: numbers of samples for least-squares reconstruction to choose from, 0 is off.
    max_norm: limits of the weights' norms to choose from, 0 is off; max_norm_per: "channel" or "layer".
    """

    kind: str = "guided"
    tie: str = "none"
    cost: str = "multiply_adds"
    min_budget: float = 0.01
    max_ratio: float = 0.95
    round_to: int = 1
    protect: tuple[str, ...] = ()
    kinds: tuple[str, ...] = GROUP_KINDS
    amounts: tuple[str, ...] = ("ratio",)
    threshold: tuple[float, float] = (0.2, 1.2)
    criteria: tuple[str, ...] = ("l2",)
    criterion_per_group: bool = False
    block_criteria: tuple[str, ...] = ()
    patterns: tuple[str, ...] = (NO_MASKS, "unstructured")
    sparsity: tuple[float, float] = (0.3, 0.95)
    spreads: tuple[str, ...] = ("layer",)
    weight_criteria: tuple[str, ...] = ("l1",)
    scan: bool = True
    scan_samples: int | None = 20_000
    scan_criterion: str = "l2"
    steps: int | tuple[int, int] = 100
    length_exponent: float = 0.1
    learning_rate: float | tuple[float, float] | None = None
    optimizers: tuple[str, ...] = (AUTO,)
    schedulers: tuple[str, ...] = ("constant",)
    precision: str = "float32"
    schedules: tuple[str, ...] = ("one_shot",)
    updates: tuple[int, ...] = (4,)
    schedule_end: float = 0.75
    regrowth: tuple[float, ...] = (0.0,)
    distillation: tuple[float, ...] = (0.9,)
    averaging: tuple[float, ...] = (0.6,)
    batch_norm_samples: int = 256
    weight_decay: float = 5e-4
    reconstruction: tuple[int, ...] = (512,)
    max_norm: tuple[float, ...] = (0.0,)
    max_norm_per: str = "channel"

    def __post_init__(self) -> None:
        for what in (*_CHOICES, "protect", "block_criteria"):
            if not isinstance(getattr(self, what), tuple):
                raise ConfigurationError(
                    error_message(what, "be a tuple", repr(getattr(self, what)), "A single one is (x,).")
                )
        _check_names(self)
        validate("the space", (*_checks_of_amounts(self), *_checks_of_recovery(self)))

    @property
    def rates(self) -> tuple[float, float]:
        """Lowest and highest learning rate that a plan may have."""
        if self.learning_rate is None:
            own = [
                rate
                for name, rate in DEFAULT_LEARNING_RATES.items()
                if name in self.optimizers or AUTO in self.optimizers
            ]
            return min(own), max(own)
        if isinstance(self.learning_rate, tuple):
            return self.learning_rate
        return (self.learning_rate, self.learning_rate)

    @property
    def lengths(self) -> tuple[int, int]:
        """Fewest and most fine-tune steps at the cost of the dense model."""
        return self.steps if isinstance(self.steps, tuple) else (self.steps, self.steps)

    def lengthened(self, steps: int, share: float) -> int:
        """What becomes of so many steps for a plan at a share of the dense multiply-adds."""
        return round(steps * float(min(max(share, self.min_budget), 1.0) ** -self.length_exponent))

    @property
    def masks(self) -> tuple[str, ...]:
        """Patterns to choose from; none where no weights may go."""
        return self.patterns if "weights" in self.kinds else (NO_MASKS,)


#: Fields with one or more choices.
_CHOICES = (
    "kinds",
    "amounts",
    "criteria",
    "patterns",
    "spreads",
    "weight_criteria",
    "optimizers",
    "schedulers",
    "schedules",
    "updates",
    "regrowth",
    "distillation",
    "averaging",
    "reconstruction",
    "max_norm",
)


def _check_names(settings: SpaceSettings) -> None:
    for what, names, known in (
        ("the space", (settings.kind,), SPACES),
        ("what ties groups", (settings.tie,), TIES),
        ("the cost of the budget", (settings.cost,), WIDTH_COSTS),
        ("a kind of pruning", settings.kinds, PRUNING_KINDS),
        ("how much goes", settings.amounts, PRUNING_MODES),
        ("an optimizer", settings.optimizers, (AUTO, *OPTIMIZERS)),
        ("the precision", (settings.precision,), PRECISIONS),
        ("a schedule", settings.schedules, SCHEDULES),
        ("a spread", settings.spreads, SPREADS),
        ("what a norm is taken of", (settings.max_norm_per,), NORM_SCOPES),
        ("a weight criterion", settings.weight_criteria, tuple(WEIGHT_CRITERIA)),
        ("a block criterion", settings.block_criteria, tuple(BLOCK_CRITERIA)),
        ("a pattern", _odd_patterns(settings.patterns), (NO_MASKS, *PATTERNS)),
    ):
        _among(what, names, known)
    for name in (*settings.criteria, settings.scan_criterion):
        criterion(name)


def _odd_patterns(patterns: Sequence[str]) -> list[str]:
    """Those that are neither of the usual ones nor written like N:M or block-RxC."""
    return [p for p in patterns if not (isinstance(p, str) and (group_pattern(p) or block_pattern(p)))]


def _among(what: str, names: Iterable[object], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownNameError(what, name, known)


def _checks_of_amounts(settings: SpaceSettings) -> list[FieldCheck]:
    grain = settings.round_to
    return [
        *((len(getattr(settings, what)) > 0, what, "name at least one", ()) for what in _CHOICES),
        (_is_inner(settings.min_budget), "min_budget", "lie in (0, 1)", settings.min_budget),
        (_is_inner(settings.max_ratio), "max_ratio", "lie in (0, 1)", settings.max_ratio),
        (is_count(grain) and grain >= 1, "round_to", "be an integer >= 1", grain),
        (
            settings.scan_samples is None or (is_count(settings.scan_samples) and settings.scan_samples >= 1),
            "scan_samples",
            "be an integer >= 1, or None",
            settings.scan_samples,
        ),
        (
            _are_ordered(settings.threshold) and settings.threshold[0] > 0,
            "threshold",
            "be a tuple (low, high) with 0 < low <= high",
            settings.threshold,
        ),
        (
            _are_ordered(settings.sparsity) and all(is_share(share) for share in settings.sparsity),
            "sparsity",
            "be a tuple (low, high) with 0 <= low <= high < 1",
            settings.sparsity,
        ),
        (
            settings.kinds != ("weights",) or settings.patterns != (NO_MASKS,),
            "patterns",
            "name one beside 'none' where only weights may go",
            settings.patterns,
        ),
    ]


def _checks_of_recovery(settings: SpaceSettings) -> list[FieldCheck]:
    rates, ends, weights = settings.learning_rate, settings.schedule_end, settings.distillation
    rated = rates is None or (
        _are_ordered(rates if isinstance(rates, tuple) else (rates, rates)) and settings.rates[0] > 0
    )
    return [
        (is_non_negative(settings.weight_decay), "weight_decay", "be >= 0", settings.weight_decay),
        (
            is_count(settings.batch_norm_samples),
            "batch_norm_samples",
            "be an integer >= 0",
            settings.batch_norm_samples,
        ),
        (
            _are_lengths(settings.steps) if isinstance(settings.steps, tuple) else is_count(settings.steps),
            "steps",
            "be an integer >= 0, or a tuple (low, high) of integers with 1 <= low <= high",
            settings.steps,
        ),
        (
            is_finite(settings.length_exponent) and 0 <= settings.length_exponent <= 1,
            "length_exponent",
            "lie in [0, 1]",
            settings.length_exponent,
        ),
        (rated, "learning_rate", "be > 0: a number, or a tuple (low, high) with low <= high; or None", rates),
        (all(isinstance(name, str) for name in settings.schedulers), "schedulers", "be names", settings.schedulers),
        (
            all(is_count(count) and count >= 1 for count in settings.updates),
            "updates",
            "be integers >= 1",
            settings.updates,
        ),
        (is_finite(ends) and 0 < ends <= 1, "schedule_end", "lie in (0, 1]", ends),
        (all(is_share(share) for share in settings.regrowth), "regrowth", "be shares in [0, 1)", settings.regrowth),
        (all(is_finite(w) and 0 <= w <= 1 for w in weights), "distillation", "be weights in [0, 1]", weights),
        (all(is_share(share) for share in settings.averaging), "averaging", "be shares in [0, 1)", settings.averaging),
        (
            all(is_count(samples) for samples in settings.reconstruction),
            "reconstruction",
            "be numbers of samples, integers >= 0, where 0 is off",
            settings.reconstruction,
        ),
        (
            all(is_non_negative(limit) for limit in settings.max_norm),
            "max_norm",
            "be limits >= 0, where 0 is off",
            settings.max_norm,
        ),
    ]


def _is_inner(value: object) -> bool:
    return is_share(value) and value != 0


def _are_lengths(steps: tuple[object, ...]) -> bool:
    return all(is_count(count) for count in steps) and _are_ordered(steps) and steps[0] != 0


def _are_ordered(values: object) -> bool:
    return (
        isinstance(values, tuple) and len(values) == 2 and all(is_finite(v) for v in values) and values[0] <= values[1]
    )
