"""Parameters of a trial other than widths: criteria, blocks, masks, schedule and recovery."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autoprune.plan.allocation import BlockPlan, GroupPlan, RankingPlan
from autoprune.plan.criteria import applicable_criteria
from autoprune.plan.maskable import maskable
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import (
    AveragingPlan,
    DistillationPlan,
    MaxNormPlan,
    RecalibrationPlan,
    ReconstructionPlan,
    RecoveryPlan,
    SchedulePlan,
)
from autoprune.plan.weights import WeightPlan, group_pattern
from autoprune.plan.widths import prunable_blocks
from autoprune.search.space.optimizers import default_rate, optimizer_choices
from autoprune.search.space.settings import NO_MASKS, SCORED_MODES, SpaceSettings
from autoprune.structure.topology import Topology

#: Kinds that are dropped whole.
_BLOCK_KINDS = ("blocks", "layers")

ParameterValue = float | int | str | bool
Parameters = Mapping[str, ParameterValue]


def distributions(settings: SpaceSettings, topology: Topology) -> dict[str, BaseDistribution]:
    """Return the distribution of each parameter; a choice among one value is no parameter.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.
    """
    space = _of_blocks(settings, topology)
    for name, choices in sorted(_choices(settings, topology).items()):
        if len(choices) > 1:
            space[name] = CategoricalDistribution(choices)
    for name, (low, high) in _ranges(settings, topology).items():
        if low < high:
            space[name] = FloatDistribution(low, high, log=name in _LOGARITHMIC)
    fewest, most = settings.lengths
    if fewest < most:
        space["steps"] = IntDistribution(fewest, most, log=True)
    return space


def defaults(settings: SpaceSettings, topology: Topology) -> dict[str, ParameterValue]:
    """Return the first choice of every categorical parameter and the middle of every range.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.
    """
    found: dict[str, ParameterValue] = {}
    for name, distribution in distributions(settings, topology).items():
        if isinstance(distribution, CategoricalDistribution):
            found[name] = _first(distribution)
        elif isinstance(distribution, IntDistribution):
            middle = round(math.sqrt(distribution.low * distribution.high))
            found[name] = middle if distribution.log else distribution.low
        else:
            assert isinstance(distribution, FloatDistribution)
            low, high = distribution.low, distribution.high
            found[name] = math.sqrt(low * high) if distribution.log else (low + high) / 2
    return found


def parameters_of(settings: SpaceSettings, topology: Topology, plan: PruningPlan) -> dict[str, ParameterValue]:
    """Return the parameters of a plan other than widths, as far as the space has them.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.
        plan: Any plan for the model.
    """
    own, recovery = settings.criterion_per_group, plan.recovery
    known: dict[str, ParameterValue] = {
        f"criterion/{name}" if own else "criterion": group.criterion for name, group in plan.groups.items()
    }
    if plan.ranking is not None and not own:
        known["criterion"] = plan.ranking.criterion
    gone = topology.gone(plan.dropped)
    known |= {f"drop/{block.name}": block.name in gone for block in topology.blocks}
    known |= _of_weights(plan.weights, maskable(topology))
    known |= {
        "amount": _amount_of(plan),
        **{kind: 0 if wanted is None else wanted.count for kind, wanted in _numbers(plan).items()},
        "steps": recovery.steps,
        "learning_rate": recovery.learning_rate,
        "optimizer": recovery.optimizer,
        "scheduler": recovery.scheduler,
        "distillation": recovery.distillation.weight,
        "averaging": recovery.averaging.share,
        "reconstruction": recovery.reconstruction.samples,
        "max_norm": recovery.max_norm.limit,
        "schedule": recovery.schedule.name,
        "updates": recovery.schedule.updates,
        "regrowth": recovery.schedule.regrowth,
    }
    for wanted in plan.block_plans.values():
        known["block_criterion"] = wanted.criterion
    if plan.ranking is not None and plan.ranking.threshold is not None:
        known["threshold"] = plan.ranking.threshold
    return {name: known.get(name, default) for name, default in defaults(settings, topology).items()}


def clip_to(point: Mapping[str, ParameterValue], space: Mapping[str, BaseDistribution]) -> dict[str, ParameterValue]:
    """Clip every value to its distribution; an unknown choice becomes the first one.

    Args:
        point: Parameters of a trial.
        space: Distribution of each parameter.
    """
    moved = dict(point)
    for name, distribution in space.items():
        if isinstance(distribution, FloatDistribution):
            moved[name] = min(max(float(point[name]), distribution.low), distribution.high)
        elif isinstance(distribution, IntDistribution):
            moved[name] = min(max(int(point[name]), distribution.low), distribution.high)
        elif isinstance(distribution, CategoricalDistribution) and point[name] not in distribution.choices:
            moved[name] = _first(distribution)
    return moved


def build_plan(
    settings: SpaceSettings,
    topology: Topology,
    parameters: Parameters,
    amounts: tuple[Mapping[str, float], float],
    seed: int,
) -> PruningPlan:
    """Build the plan of a set of parameters.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.
        parameters: Parameters of a trial.
        amounts: Pruned ratio of each group, and the budget in (0, 1] for a ranking.
        seed: Seed of the plan.
    """
    ratios, budget = amounts
    amount = str(_value(settings, topology, parameters, "amount"))
    groups: dict[str, GroupPlan] = {}
    for name, ratio in ratios.items() if amount not in SCORED_MODES else ():
        key = f"criterion/{name}" if settings.criterion_per_group else "criterion"
        rule = str(_value(settings, topology, parameters, key))
        ratio = min(max(float(ratio), 0.0), settings.max_ratio)
        count = round(topology.widths[name] * ratio)
        groups[name] = (
            GroupPlan(ratio=ratio, criterion=rule) if amount == "ratio" else GroupPlan(count=count, criterion=rule)
        )
    return PruningPlan(
        groups=groups,
        ranking=_ranking(settings, topology, parameters, budget)
        if amount in SCORED_MODES and topology.groups
        else None,
        dropped=dropped(settings, topology, parameters),
        blocks=_blocks(settings, topology, parameters, "blocks"),
        layers=_blocks(settings, topology, parameters, "layers"),
        weights=_weights(settings, topology, parameters),
        recovery=_recovery(settings, topology, parameters),
        seed=seed,
    )


def dropped(settings: SpaceSettings, topology: Topology, parameters: Parameters) -> tuple[str, ...]:
    """Return the names of the blocks that the parameters drop by name.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.
        parameters: Parameters of a trial.
    """
    if settings.block_criteria:
        return ()
    named = [block.name for block in topology.blocks if parameters.get(f"drop/{block.name}", False) is True]
    return tuple(block.name for block in topology.dropped(named))


def _of_blocks(settings: SpaceSettings, topology: Topology) -> dict[str, BaseDistribution]:
    if settings.block_criteria:
        counts = {kind: _most(settings, topology, kind) for kind in _BLOCK_KINDS if kind in settings.kinds}
        return {kind: IntDistribution(0, count) for kind, count in counts.items() if count}
    if not any(kind in settings.kinds for kind in _BLOCK_KINDS):
        return {}
    return {f"drop/{name}": CategoricalDistribution((False, True)) for name in prunable_blocks(topology)}


def _most(settings: SpaceSettings, topology: Topology, kind: str) -> int:
    """Return how many blocks or layers may be dropped; repeated blocks count as layers where layers may be dropped."""
    names = prunable_blocks(topology, kind=kind)
    return sum(kind == "layers" or "layers" not in settings.kinds or not topology.block(n).repeated for n in names)


def _choices(settings: SpaceSettings, topology: Topology) -> dict[str, Sequence[ParameterValue]]:
    """Return the categorical parameters. One that has no effect on this model gets a single choice, which drops it."""
    groups, blocks = len(topology.groups) > 0, len(_of_blocks(settings, topology)) > 0
    if settings.criterion_per_group:
        found: dict[str, Sequence[ParameterValue]] = {
            f"criterion/{group.name}": applicable_criteria(settings.criteria, group) for group in topology.groups
        }
    else:
        found = {"criterion": settings.criteria if groups else settings.criteria[:1]}
    found |= {
        "amount": settings.amounts if groups else settings.amounts[:1],
        "pattern": settings.masks,
        "reconstruction": settings.reconstruction if groups or blocks else settings.reconstruction[:1],
        "max_norm": settings.max_norm,
    }
    if blocks and settings.block_criteria:
        found["block_criterion"] = settings.block_criteria
    if settings.masks != (NO_MASKS,):
        spread = settings.kind != "direct" and _has_shares(settings)
        found |= {
            "spread": settings.spreads if spread else settings.spreads[:1],
            "weight_criterion": settings.weight_criteria,
        }
    if settings.lengths != (0, 0):
        gradual = settings.schedules != ("one_shot",)
        found |= {
            "optimizer": optimizer_choices(settings, topology),
            "scheduler": settings.schedulers,
            "distillation": settings.distillation,
            "averaging": settings.averaging,
            "schedule": settings.schedules,
            "updates": settings.updates if gradual or settings.regrowth != (0.0,) else settings.updates[:1],
            "regrowth": settings.regrowth if settings.masks != (NO_MASKS,) else settings.regrowth[:1],
        }
    return found


#: Parameters with a logarithmic scale.
_LOGARITHMIC = ("learning_rate", "threshold")


def _ranges(settings: SpaceSettings, topology: Topology) -> dict[str, tuple[float, float]]:
    """Return the parameters that are numbers in a range."""
    rated = settings.learning_rate is not None and settings.lengths != (0, 0)
    found = {"learning_rate": settings.rates} if rated else {}
    if "threshold" in settings.amounts and topology.groups:
        found["threshold"] = settings.threshold
    if _has_shares(settings):
        own = settings.kind == "direct"
        names = [f"sparsity/{weight}" for weight in maskable(topology)] if own else ["sparsity"]
        found |= dict.fromkeys(names, settings.sparsity)
    return found


def _has_shares(settings: SpaceSettings) -> bool:
    """Return whether some pattern leaves its sparsity open; "N:M" fixes it."""
    return any(group_pattern(pattern) is None for pattern in settings.masks if pattern != NO_MASKS)


def _value(settings: SpaceSettings, topology: Topology, parameters: Parameters, name: str) -> ParameterValue:
    """Return a parameter, or the constant that the space has in its place."""
    if name in parameters:
        return parameters[name]
    choices = _choices(settings, topology).get(name)
    if choices is not None:
        return choices[0]
    low, high = _ranges(settings, topology)[name]
    return math.sqrt(low * high) if name in _LOGARITHMIC else (low + high) / 2


def _ranking(settings: SpaceSettings, topology: Topology, parameters: Parameters, budget: float) -> RankingPlan:
    by_threshold = _value(settings, topology, parameters, "amount") == "threshold"
    own = settings.criterion_per_group
    rule = settings.scan_criterion if own else str(_value(settings, topology, parameters, "criterion"))
    return RankingPlan(
        threshold=float(_value(settings, topology, parameters, "threshold")) if by_threshold else None,
        budget=None if by_threshold else budget,
        cost=settings.cost,
        criterion=rule,
        scale="mean",
        cap=settings.max_ratio,
    )


def _numbers(plan: PruningPlan) -> dict[str, BlockPlan | None]:
    return {"blocks": plan.blocks, "layers": plan.layers}


def _blocks(settings: SpaceSettings, topology: Topology, parameters: Parameters, kind: str) -> BlockPlan | None:
    count = int(parameters.get(kind, 0))
    if not count:
        return None
    return BlockPlan(count=count, criterion=str(_value(settings, topology, parameters, "block_criterion")))


def _weights(settings: SpaceSettings, topology: Topology, parameters: Parameters) -> WeightPlan | None:
    pattern = str(_value(settings, topology, parameters, "pattern"))
    if pattern == NO_MASKS:
        return None
    fixed = group_pattern(pattern) is not None
    own: dict[str, float] = {}
    if settings.kind == "direct" and not fixed:
        names = maskable(topology)
        own = {name: float(_value(settings, topology, parameters, f"sparsity/{name}")) for name in names}
    share = float(sum(own.values()) / len(own) if own else 0.0)
    if not own and not fixed:
        share = float(_value(settings, topology, parameters, "sparsity"))
    return WeightPlan(
        pattern=pattern,
        sparsity=None if fixed else share,
        criterion=str(_value(settings, topology, parameters, "weight_criterion")),
        spread=str(_value(settings, topology, parameters, "spread")),
        layers=own,
    )


def _of_weights(plan: WeightPlan | None, masked: Sequence[str]) -> dict[str, ParameterValue]:
    if plan is None:
        return {"pattern": NO_MASKS}
    known: dict[str, ParameterValue] = {
        "pattern": plan.pattern,
        "spread": plan.spread,
        "weight_criterion": plan.criterion,
        "sparsity": plan.target,
    }
    return known | {f"sparsity/{name}": plan.layers.get(name, plan.target) for name in masked}


def _amount_of(plan: PruningPlan) -> str:
    if plan.ranking is not None:
        return "threshold" if plan.ranking.threshold is not None else "ranking"
    return "count" if any(group.count is not None for group in plan.groups.values()) else "ratio"


def _recovery(settings: SpaceSettings, topology: Topology, parameters: Parameters) -> RecoveryPlan:
    fewest, most = settings.lengths
    if not most:  # untrained plans have the first choice of all training parameters
        parameters = {name: value for name, value in parameters.items() if name not in _TRAINING_ONLY}

    def choice(name: str, field: Sequence[ParameterValue]) -> ParameterValue:
        return parameters.get(name, field[0])

    schedule = SchedulePlan(
        name=str(choice("schedule", settings.schedules)) if most else "one_shot",
        updates=int(choice("updates", settings.updates)),
        end=settings.schedule_end,
        regrowth=float(choice("regrowth", settings.regrowth)),
    )
    optimizer = str(choice("optimizer", optimizer_choices(settings, topology)))
    return RecoveryPlan(
        steps=int(parameters.get("steps", round(math.sqrt(fewest * most)))),
        optimizer=optimizer,
        learning_rate=float(parameters.get("learning_rate", default_rate(settings, optimizer))),
        scheduler=str(choice("scheduler", settings.schedulers)),
        weight_decay=settings.weight_decay,
        distillation=DistillationPlan(weight=float(choice("distillation", settings.distillation))),
        recalibration=RecalibrationPlan(samples=settings.batch_norm_samples),
        reconstruction=ReconstructionPlan(samples=int(choice("reconstruction", settings.reconstruction))),
        max_norm=MaxNormPlan(limit=float(choice("max_norm", settings.max_norm)), per=settings.max_norm_per),
        averaging=AveragingPlan(share=float(choice("averaging", settings.averaging))),
        schedule=schedule,
        precision=settings.precision,
    )


_TRAINING_ONLY = (
    "optimizer",
    "scheduler",
    "learning_rate",
    "schedule",
    "updates",
    "regrowth",
    "distillation",
    "averaging",
)


def _first(distribution: CategoricalDistribution) -> ParameterValue:
    return choice_at(distribution, 0)


def choice_at(distribution: CategoricalDistribution, number: int) -> ParameterValue:
    """Return a choice of a categorical distribution.

    Args:
        distribution: Distribution over strings, numbers and booleans.
        number: Number of the choice, >= 0; counting starts again behind the last one.
    """
    choice = distribution.choices[number % len(distribution.choices)]
    assert isinstance(choice, str | int | float | bool)
    return choice
