"""Settings of the search space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoprune.codec import Format, stored
from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.plan.criteria import BLOCK_CRITERIA, WEIGHT_CRITERIA, criterion
from autoprune.plan.recovery import DEFAULT_LEARNING_RATES, NORM_SCOPES, OPTIMIZERS, PRECISIONS, SCHEDULES
from autoprune.plan.validation import FieldCheck, is_count, is_finite, is_non_negative, is_share, validate
from autoprune.plan.weights import PATTERNS, SPREADS, block_pattern, group_pattern
from autoprune.search.space.ties import TIES
from autoprune.structure.cost import STRUCTURE_COSTS
from autoprune.structure.groups import GROUP_KINDS

SPACES = ("guided", "reduced", "direct")
#: Structures that can be pruned: kinds of groups, whole residual blocks and layers, and single weights.
PRUNING_KINDS = (*GROUP_KINDS, "blocks", "layers", "weights")
#: How widths are chosen: a share or a number per group, a threshold of scores, or one ranking of all channels.
PRUNING_MODES = ("ratio", "count", "threshold", "ranking")
#: Modes whose widths follow from scores and are not rounded.
SCORED_MODES = ("threshold", "ranking")
#: Name that stands for the optimizer that suits the task.
AUTO = "auto"
#: Pattern of a plan without masks.
NO_MASKS = "none"


@stored(Format(what="a space", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSettings:
    """Settings of the search space. Where a field holds several choices, the study samples among them.

    Attributes:
        kind: "guided" (a budget, and residuals around an allocation), "reduced" (a budget, an exponent and eight
            multipliers, for many layers or a poor scan) or "direct" (one ratio per group).
        tie: Groups that share one width: "none", "stage" (alike and consecutive at one resolution) or "shape".
        cost: Cost that the budget is a share of: "multiply_adds", "parameters" or "size_bytes".
        min_budget: Smallest budget, as a share of the dense cost, in (0, 1).
        max_ratio: Largest share of a group's channels to prune, in (0, 1).
        round_to: Kept channels of a group are all of them or a multiple of this number, >= 1 (8 or 16 suit most
            hardware). Heads of attention are not rounded. Holds for the amounts "ratio" and "count".
        protect: Patterns of module names, such as "stem.*", whose channels are never pruned.
        kinds: Structures to prune: "channels", "heads" of attention, "head_width", whole residual "blocks", single
            "weights", and "layers": whole members of lists of modules, also those whose removal is not proved equal to
            weights of zero.
        amounts: How widths are chosen, names among PRUNING_MODES.
        threshold: (low, high) of score thresholds, as multiples of a group's mean score, > 0.
        criteria: Names of channel criteria.
        criterion_per_group: Choose a criterion for each group instead of one for all.
        block_criteria: Criteria that rank blocks and layers: a trial chooses how many to drop, lowest score first. If
            empty, each block is a choice by itself.
        patterns: Mask patterns, with "none" for no mask.
        sparsity: (low, high) of the share of masked weights, in [0, 1).
        spreads: How sparsity is spread over layers.
        weight_criteria: Criteria that rank single weights.
        scan: Measure sensitivity first (guided and reduced space); without a scan the allocation is uniform.
        scan_samples: Most samples that the scan may pass forward, >= 1; None has no limit.
        scan_criterion: Criterion that ranks channels in the scan, and in a ranking where each group has its own
            criterion.
        steps: Fine-tune steps of a trial, >= 0, or (low, high) to sample logarithmically, low >= 1.
        length_exponent: A plan that costs a share c of the dense multiply-adds trains for steps / c ** length_exponent
            steps, because steps of small models are cheap, in [0, 1]. 0 gives all plans equal steps, 1 equal
            multiply-adds. c is at least min_budget.
        learning_rate: One number, or (low, high) to sample from, > 0; None takes each optimizer's default.
        optimizers: Names to choose from; "auto" is "adamw" for models with LayerNorm and no BatchNorm and for
            regression, else "sgd".
        schedulers: Names of learning-rate schedulers to choose from.
        precision: Number format of the forward of a training step.
        schedules: Names of pruning schedules to choose from.
        updates: Numbers of pruning steps to choose from, >= 1.
        schedule_end: Fraction of the fine-tune in which pruning happens, in (0, 1].
        regrowth: Shares of masked weights to exchange, to choose from, in [0, 1); 0 is off.
        distillation: Weights of distillation to choose from, in [0, 1]; 0 is off.
        averaging: Fractions of the last steps whose weights are averaged, to choose from, in [0, 1); 0 is off.
        batch_norm_samples: Training samples that re-estimate running statistics, >= 0.
        weight_decay: Weight decay of the fine-tune, >= 0.
        reconstruction: Numbers of samples for least-squares reconstruction to choose from, >= 0; 0 is off.
        max_norm: Largest norms of the weights to choose from, >= 0; 0 is off.
        max_norm_per: Slice whose norm is limited: "channel" or "layer".

    Raises:
        ConfigurationError: A value is out of its range.
        UnknownNameError: A name is in no registry.

    Example:
        >>> SpaceSettings(kinds=("channels", "blocks"), min_budget=0.1, round_to=8).lengths
        (100, 100)
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
        """Return the lowest and highest learning rate of any plan."""
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
        """Return the fewest and most fine-tune steps at the cost of the dense model."""
        return self.steps if isinstance(self.steps, tuple) else (self.steps, self.steps)

    def lengthened(self, steps: int, share: float) -> int:
        """Scale a number of fine-tune steps by the cost of a plan.

        Args:
            steps: Steps at the cost of the dense model, >= 0.
            share: Multiply-adds of the plan as a share of dense, in [0, 1].

        Returns:
            Steps of the plan.
        """
        return round(steps * float(min(max(share, self.min_budget), 1.0) ** -self.length_exponent))

    @property
    def masks(self) -> tuple[str, ...]:
        """Return the mask patterns to choose from; ("none",) where weights are not pruned."""
        return self.patterns if "weights" in self.kinds else (NO_MASKS,)


#: Fields that hold choices.
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
        ("the tie of groups", (settings.tie,), TIES),
        ("the cost of the budget", (settings.cost,), STRUCTURE_COSTS),
        ("a kind of pruning", settings.kinds, PRUNING_KINDS),
        ("the pruning mode", settings.amounts, PRUNING_MODES),
        ("an optimizer", settings.optimizers, (AUTO, *OPTIMIZERS)),
        ("the precision", (settings.precision,), PRECISIONS),
        ("a schedule", settings.schedules, SCHEDULES),
        ("a spread", settings.spreads, SPREADS),
        ("the slice whose norm is limited", (settings.max_norm_per,), NORM_SCOPES),
        ("a weight criterion", settings.weight_criteria, tuple(WEIGHT_CRITERIA)),
        ("a block criterion", settings.block_criteria, tuple(BLOCK_CRITERIA)),
        ("a pattern", _odd_patterns(settings.patterns), (NO_MASKS, *PATTERNS)),
    ):
        _among(what, names, known)
    for name in (*settings.criteria, settings.scan_criterion):
        criterion(name)


def _odd_patterns(patterns: Sequence[str]) -> list[str]:
    """Return the patterns that are not written like N:M or block-RxC; these have to be known names."""
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
