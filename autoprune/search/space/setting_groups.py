"""Groups of settings that the search space depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from autoprune.codec import Format, stored
from autoprune.plan.criteria import BLOCK_CRITERIA, CRITERIA, WEIGHT_CRITERIA
from autoprune.plan.recovery import DEFAULT_LEARNING_RATES, NORM_SCOPES, OPTIMIZERS, PRECISIONS, SCHEDULES
from autoprune.plan.rules import (
    FRACTION,
    INNER_SHARE,
    NAME,
    NON_NEGATIVE,
    PART,
    POSITIVE,
    SHARE,
    SWITCH,
    Rule,
    at_least,
    check_fields,
    each,
    either,
    one_of,
    or_none,
    ordered,
)
from autoprune.plan.weights import PATTERNS, SPREADS, block_pattern, group_pattern
from autoprune.records.cost_table import CostTable
from autoprune.search.allocation.allowed_widths import AllowedWidths, allowed_widths
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
#: Name that stands for what suits the task: an optimizer, a sampler, the grain of widths.
AUTO = "auto"
#: The cost that follows from a device profile.
LATENCY_COST = "latency_ms"
#: Rounding by the grain of each group in the device profile.
DEVICE = "device"
#: Pattern of a plan without masks.
NO_MASKS = "none"


def _is_pattern(value: object) -> bool:
    if not isinstance(value, str):
        return False
    return value in (NO_MASKS, *PATTERNS) or bool(group_pattern(value) or block_pattern(value))


_PATTERN = Rule(holds=_is_pattern, wants=one_of((NO_MASKS, *PATTERNS)).wants, known=(NO_MASKS, *PATTERNS))


@stored(Format(what="the settings of structures", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class StructureSettings:
    """Structures to prune: channels, heads, blocks and layers.

    Attributes:
        kinds: Structures to prune: "channels", "heads" of attention, "head_width", whole residual "blocks", single
            "weights", and "layers": whole members of lists of modules, also those whose removal is not proved equal to
            weights of zero.
        protect: Patterns of module names, such as "stem.*", whose channels are never pruned.
        max_ratio: Largest share of a group's channels to prune.
        round_to: Kept channels of a group are all of them or a multiple of this number (8 or 16 suit most hardware);
            where fewer are kept, its half, its quarter and so on. "device" takes for each group the distance between
            fast widths that the device profile has found, which is made where there is none. "auto" does so in a
            study that has such a profile, which a new one makes where latency_ms is an objective or limited, and else
            rounds nothing. Heads of attention are not rounded. Holds for the modes "ratio" and "count".
        tie: Groups that share one width: "none", "stage" (alike and consecutive at one resolution) or "shape".
        modes: How widths are chosen: "ratio" or "count" for each group, "threshold" (prunes channels whose score is
            below a multiple of their group's mean score), "ranking" (one ranking of all channels, pruned from the
            lowest until the budget is met; no group loses more than max_ratio).
        threshold: Range of score thresholds, as multiples of a group's mean score.
        criteria: Criteria that rank channels.
        criterion_per_group: Choose a criterion for each group instead of one for all.
        block_criteria: Criteria that rank blocks and layers: a trial chooses how many to drop, lowest score first. If
            empty, each block is a choice by itself.

    Example:
        >>> StructureSettings(kinds=("channels", "blocks"), round_to=8).max_ratio
        0.95
    """

    kinds: Annotated[tuple[str, ...], each(one_of(PRUNING_KINDS))] = GROUP_KINDS
    protect: Annotated[tuple[str, ...], each(NAME, least=0)] = ()
    max_ratio: Annotated[float, INNER_SHARE] = 0.95
    round_to: Annotated[int | str, either(at_least(1), one_of((AUTO, DEVICE)))] = AUTO
    tie: Annotated[str, one_of(TIES)] = "none"
    modes: Annotated[tuple[str, ...], each(one_of(PRUNING_MODES))] = ("ratio",)
    threshold: Annotated[tuple[float, float], ordered(POSITIVE)] = (0.2, 1.2)
    criteria: Annotated[tuple[str, ...], each(one_of(CRITERIA))] = ("l2",)
    criterion_per_group: Annotated[bool, SWITCH] = False
    block_criteria: Annotated[tuple[str, ...], each(one_of(BLOCK_CRITERIA), least=0)] = ()

    def __post_init__(self) -> None:
        check_fields("the settings of structures", self, "structure")

    def allowed_widths(self, table: CostTable, grains: Mapping[str, int] | None) -> AllowedWidths:
        """Find the widths that the groups of a model may have. Where all follow from scores, none are rounded.

        Args:
            table: Costs of the model, whose groups may be tied.
            grains: Group name -> grain by the device profile; None before or without one.

        Returns:
            The allowed widths.
        """
        round_to: int | Mapping[str, int] = {} if grains is None else grains
        if isinstance(self.round_to, int):
            round_to = self.round_to
        if set(self.modes) <= set(SCORED_MODES):
            round_to = 1
        return allowed_widths(table, self.max_ratio, round_to)


@stored(Format(what="the settings of masks", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSettings:
    """Masks of single weights, where `structure.kinds` has "weights".

    Attributes:
        patterns: Masks to choose from: "none", "unstructured", any "N:M" such as "2:4", any "block-RxC" such as
            "block-4x4".
        sparsity: Range of the share of weights that are zero. The direct space has one sparsity for each layer.
        spreads: How sparsity is spread over layers: the same in each "layer", "erk" (wide layers lose more), one
            "global" ranking.
        weight_criteria: Criteria that rank single weights.

    Example:
        >>> MaskSettings(patterns=("2:4",)).spreads
        ('layer',)
    """

    patterns: Annotated[tuple[str, ...], each(_PATTERN)] = (NO_MASKS, "unstructured")
    sparsity: Annotated[tuple[float, float], ordered(SHARE)] = (0.3, 0.95)
    spreads: Annotated[tuple[str, ...], each(one_of(SPREADS))] = ("layer",)
    weight_criteria: Annotated[tuple[str, ...], each(one_of(WEIGHT_CRITERIA))] = ("l1",)

    def __post_init__(self) -> None:
        check_fields("the settings of masks", self, "masks")


@stored(Format(what="the settings of schedules", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSettings:
    """When pruning happens during the fine-tune.

    Attributes:
        names: Pruning schedules.
        updates: Numbers of pruning steps.
        end: Fraction of the fine-tune in which pruning happens.
        regrowth: Shares of the non-zero weights of masked layers that a pruning step exchanges for masked ones (RigL);
            0 is off. Needs two or more updates.

    Example:
        >>> ScheduleSettings(names=("cubic",), updates=(4, 8)).end
        0.75
    """

    names: Annotated[tuple[str, ...], each(one_of(SCHEDULES))] = ("one_shot",)
    updates: Annotated[tuple[int, ...], each(at_least(1))] = (4,)
    end: Annotated[float, PART] = 0.75
    regrowth: Annotated[tuple[float, ...], each(SHARE)] = (0.0,)

    def __post_init__(self) -> None:
        check_fields("the settings of schedules", self, "schedule")


@stored(Format(what="the settings of the recovery", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverySettings:
    """The fine-tune and the recovery steps of a trial.

    Attributes:
        steps: Fine-tune steps of a trial (0 trains nothing), or a range to sample from, drawn in the logarithm. This
            setting is decisive: two passes over the data are too few to tell a good plan from a bad one, about ten are
            enough on digits.
        length_exponent: A plan whose widths and blocks cost a share c of the dense multiply-adds is trained for steps /
            c^length_exponent steps: 0 trains all plans for equally many steps, 1 for equally many multiply-adds. A c
            below search.min_budget counts as min_budget. Steps of a small model are cheap, and small models gain most
            from more of them. Plans that you enqueue keep their steps, and a polish trains for the steps of the
            candidate that it polishes.
        learning_rate: Peak learning rate, or a range to sample from. None takes the default of each optimizer: 0.015
            for sgd, 0.001 for adamw. These suit networks of up to a few million weights; a large pretrained transformer
            needs less.
        optimizers: Optimizers. "auto" is "adamw" for a model with LayerNorm (or RMSNorm) and no BatchNorm and wherever
            numbers are predicted, else "sgd"; `explain` says which, and plans hold its name and rate.
        schedulers: Learning-rate schedulers, built in or of `Task.schedulers`.
        weight_decay: Weight decay of the fine-tune.
        precision: Number format of the forward of a training step: "float32", or mixed with "bfloat16" or "float16".
        reconstruction: Numbers of samples with which layers behind a cut are solved by least squares; 0 is off.
        max_norm: Largest L2 norms of the weights; 0 is off.
        max_norm_per: Slice whose norm is limited: each filter ("channel") or each "layer".
        distillation: Weights of distillation from the dense model's outputs; 0 is off.
        averaging: Fractions of the last steps whose weights are averaged (Izmailov et al. 2018); 0 is off.
        recalibration: Numbers of samples that re-estimate running statistics; 0 is off.

    Example:
        >>> RecoverySettings(steps=(50, 200)).lengths
        (50, 200)
    """

    steps: Annotated[int | tuple[int, int], either(at_least(0), ordered(at_least(1)))] = 100
    length_exponent: Annotated[float, FRACTION] = 0.1
    learning_rate: Annotated[float | tuple[float, float] | None, or_none(either(POSITIVE, ordered(POSITIVE)))] = None
    optimizers: Annotated[tuple[str, ...], each(one_of((AUTO, *OPTIMIZERS)))] = (AUTO,)
    schedulers: Annotated[tuple[str, ...], each(NAME)] = ("constant",)
    weight_decay: Annotated[float, NON_NEGATIVE] = 5e-4
    precision: Annotated[str, one_of(PRECISIONS)] = "float32"
    reconstruction: Annotated[tuple[int, ...], each(at_least(0))] = (512,)
    max_norm: Annotated[tuple[float, ...], each(NON_NEGATIVE)] = (0.0,)
    max_norm_per: Annotated[str, one_of(NORM_SCOPES)] = "channel"
    distillation: Annotated[tuple[float, ...], each(FRACTION)] = (0.9,)
    averaging: Annotated[tuple[float, ...], each(SHARE)] = (0.6,)
    recalibration: Annotated[tuple[int, ...], each(at_least(0))] = (256,)

    def __post_init__(self) -> None:
        check_fields("the settings of the recovery", self, "recovery")

    @property
    def rates(self) -> tuple[float, float]:
        """Return the lowest and highest learning rate of any plan."""
        if self.learning_rate is None:
            known = DEFAULT_LEARNING_RATES.items()
            own = [rate for name, rate in known if name in self.optimizers or AUTO in self.optimizers]
            return min(own), max(own)
        if isinstance(self.learning_rate, tuple):
            return self.learning_rate
        return (self.learning_rate, self.learning_rate)

    @property
    def lengths(self) -> tuple[int, int]:
        """Return the fewest and most fine-tune steps at the cost of the dense model."""
        return self.steps if isinstance(self.steps, tuple) else (self.steps, self.steps)


@stored(Format(what="the settings of the search", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How plans are proposed: the space, its scan and budget, the sampler, warm starts and early stopping.

    Attributes:
        space: "guided" (a budget, and residuals around an allocation), "reduced" (a budget, an exponent and eight
            multipliers, for many layers or a poor scan) or "direct" (one ratio per group).
        cost: Cost that the budget is a share of. "latency_ms" is the latency that the device profile predicts; the
            profile is made where there is none. A ranking of all channels has no such budget.
        min_budget: Smallest budget, as a share of the dense cost.
        scan: Measure the sensitivity of groups, blocks and layers first (guided and reduced space). Without a scan the
            allocation is uniform.
        scan_samples: Most samples that the scan may pass forward; None has no limit. If they are too few, the scan
            first tests fewer shares of each group and then uses fewer calibration samples.
        scan_criterion: Criterion that ranks channels in the scan, and in a ranking where each group has its own
            criterion.
        sampler: Name of a sampler; "auto" is "tpe" for up to 99 scanned groups, else "evolution".
        solved_points: Length of the chain at the start of a study: solved allocations from wide to narrow, each trained
            from the one before it and none stopped early. If there are several criteria and recovery settings, the
            points use them in turn, so that the sampler has seen each. A study of fewer trials has fewer points over
            the same range; where the space has no scan to solve with, they are uniform.
        uniform_points: Length of a uniform sweep after the chain, as a baseline with which the report compares the
            search. It starts from the dense model and uses the first choice of every parameter. `--baseline uniform` of
            the command line asks for eight.
        lineage: Start from recovered ancestors; else always from the dense model.
        lineage_slack: Share of its multiply-adds that a proposal may lose to fit into an ancestor that nearly contains
            it; 0 leaves proposals unchanged.
        polish: Share of the trials after the warm starts that train a member of the front further at its widths; needs
            lineage.
        early_stopping: Name of the rule that ends the training of hopeless candidates.
        rungs: Fractions of a fine-tune's steps at which the rule is asked, rising; 0 is before the first step.
        rung_samples: Samples of the search split that are evaluated at a rung.

    Example:
        >>> SearchSettings(space="direct", sampler="random").min_budget
        0.01
    """

    space: Annotated[str, one_of(SPACES)] = "guided"
    cost: Annotated[str, one_of((*STRUCTURE_COSTS, LATENCY_COST))] = "multiply_adds"
    min_budget: Annotated[float, INNER_SHARE] = 0.01
    scan: Annotated[bool, SWITCH] = True
    scan_samples: Annotated[int | None, or_none(at_least(1))] = 20_000
    scan_criterion: Annotated[str, one_of(CRITERIA)] = "l2"
    sampler: Annotated[str, NAME] = AUTO
    solved_points: Annotated[int, at_least(0)] = 8
    uniform_points: Annotated[int, at_least(0)] = 0
    lineage: Annotated[bool, SWITCH] = True
    lineage_slack: Annotated[float, SHARE] = 0.2
    polish: Annotated[float, SHARE] = 0.5
    early_stopping: Annotated[str, NAME] = "front"
    rungs: Annotated[tuple[float, ...], each(SHARE, least=0)] = (0.0, 0.5)
    rung_samples: Annotated[int, at_least(1)] = 512

    def __post_init__(self) -> None:
        check_fields("the settings of the search", self, "search")

    @property
    def structure_cost(self) -> str:
        """Return the cost, or multiply-adds where only costs can stand that follow from widths alone."""
        return "multiply_adds" if self.cost == LATENCY_COST else self.cost
