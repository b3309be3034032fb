"""Table of the parameters of a trial other than widths: criteria, blocks, masks, schedule and recovery."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autoprune.plan.criteria import applicable_criteria
from autoprune.plan.maskable import maskable
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import STEP_SETTINGS, strength_field
from autoprune.plan.weights import group_pattern
from autoprune.plan.widths import prunable_blocks
from autoprune.search.space.optimizers import optimizer_choices
from autoprune.search.space.parameter import (
    Choices,
    Domain,
    Parameter,
    Range,
    always,
    value_at,
)
from autoprune.search.space.setting_groups import NO_MASKS
from autoprune.search.space.settings import SpaceSettings
from autoprune.structure.topology import Topology

#: Kinds that are dropped whole.
BLOCK_KINDS = ("blocks", "layers")

Applies = Callable[[SpaceSettings, Topology], bool]


def _has_groups(settings: SpaceSettings, topology: Topology) -> bool:
    del settings
    return len(topology.groups) > 0


def _has_block_parameters(settings: SpaceSettings, topology: Topology) -> bool:
    return any(_block_domains(kind)(settings, topology) for kind in (*BLOCK_KINDS, "drop"))


def _ranks_blocks(settings: SpaceSettings, topology: Topology) -> bool:
    return len(settings.structure.block_criteria) > 0 and _has_block_parameters(settings, topology)


def _cuts(settings: SpaceSettings, topology: Topology) -> bool:
    return _has_groups(settings, topology) or _has_block_parameters(settings, topology)


def _masks(settings: SpaceSettings, topology: Topology) -> bool:
    del topology
    return settings.mask_patterns != (NO_MASKS,)


def _has_sparsity(settings: SpaceSettings, topology: Topology) -> bool:
    """Tell whether some pattern leaves its sparsity open; "N:M" fixes it."""
    del topology
    return any(group_pattern(pattern) is None for pattern in settings.mask_patterns if pattern != NO_MASKS)


def _spreads(settings: SpaceSettings, topology: Topology) -> bool:
    return settings.search.space != "direct" and _has_sparsity(settings, topology)


def _has_thresholds(settings: SpaceSettings, topology: Topology) -> bool:
    return "threshold" in settings.structure.modes and _has_groups(settings, topology)


def _trains(settings: SpaceSettings, topology: Topology) -> bool:
    del topology
    return settings.recovery.lengths != (0, 0)


def _trains_at_a_chosen_rate(settings: SpaceSettings, topology: Topology) -> bool:
    return settings.recovery.learning_rate is not None and _trains(settings, topology)


def _prunes_in_training(settings: SpaceSettings, topology: Topology) -> bool:
    gradual = settings.schedule.names != ("one_shot",) or settings.schedule.regrowth != (0.0,)
    return gradual and _trains(settings, topology)


def _regrows(settings: SpaceSettings, topology: Topology) -> bool:
    return _masks(settings, topology) and _trains(settings, topology)


def _block_domains(kind: str) -> Callable[[SpaceSettings, Topology], Mapping[str, Domain]]:
    """Make the values of the parameters that drop blocks: numbers by kind, or a yes or no for each block ("drop")."""

    def numbers(settings: SpaceSettings, topology: Topology) -> Mapping[str, Domain]:
        most = (
            _most(settings, topology, kind)
            if settings.structure.block_criteria and kind in settings.structure.kinds
            else 0
        )
        return {kind: Range(low=0, high=most, integer=True)} if most else {}

    def named(settings: SpaceSettings, topology: Topology) -> Mapping[str, Domain]:
        if settings.structure.block_criteria or not any(one in settings.structure.kinds for one in BLOCK_KINDS):
            return {}
        return {f"drop/{name}": Choices(values=(False, True)) for name in prunable_blocks(topology)}

    return named if kind == "drop" else numbers


def _most(settings: SpaceSettings, topology: Topology, kind: str) -> int:
    """Return how many blocks or layers may be dropped; repeated blocks count as layers where layers may be dropped."""
    names = prunable_blocks(topology, kind=kind)
    return sum(
        kind == "layers" or "layers" not in settings.structure.kinds or not topology.block(n).repeated for n in names
    )


def _criteria(settings: SpaceSettings, topology: Topology) -> Mapping[str, Domain]:
    if not settings.structure.criterion_per_group:
        return {"criterion": Choices(values=settings.structure.criteria)}
    groups = sorted(topology.groups, key=lambda group: group.name)
    return {
        f"criterion/{group.name}": Choices(values=applicable_criteria(settings.structure.criteria, group))
        for group in groups
    }


def _patterns(settings: SpaceSettings, topology: Topology) -> Mapping[str, Domain]:
    del topology
    return {"pattern": Choices(values=settings.mask_patterns)}


def _optimizers(settings: SpaceSettings, topology: Topology) -> Mapping[str, Domain]:
    return {"optimizer": Choices(values=optimizer_choices(settings, topology))}


def _sparsities(settings: SpaceSettings, topology: Topology) -> Mapping[str, Domain]:
    low, high = settings.masks.sparsity
    names = (
        [f"sparsity/{weight}" for weight in maskable(topology)] if settings.search.space == "direct" else ["sparsity"]
    )
    return {name: Range(low=low, high=high) for name in names}


def _thresholds(settings: SpaceSettings, topology: Topology) -> Mapping[str, Domain]:
    del topology
    return {"threshold": Range(low=settings.structure.threshold[0], high=settings.structure.threshold[1], log=True)}


def _rates(settings: SpaceSettings, topology: Topology) -> Mapping[str, Domain]:
    del topology
    return {"learning_rate": Range(low=settings.recovery.rates[0], high=settings.recovery.rates[1], log=True)}


def _lengths(settings: SpaceSettings, topology: Topology) -> Mapping[str, Domain]:
    del topology
    return {"steps": Range(low=settings.recovery.lengths[0], high=settings.recovery.lengths[1], log=True, integer=True)}


def _mode_of(plan: PruningPlan, topology: Topology, member: str) -> str:
    del topology, member
    if plan.ranking is not None:
        return "threshold" if plan.ranking.threshold is not None else "ranking"
    return "count" if any(group.count is not None for group in plan.groups.values()) else "ratio"


def _criterion_of(plan: PruningPlan, topology: Topology, member: str) -> str | None:
    """Read the criterion of a group, or of all groups."""
    del topology
    if member:
        return plan.groups[member].criterion if member in plan.groups else None
    if plan.ranking is not None:
        return plan.ranking.criterion
    return next((group.criterion for group in reversed(list(plan.groups.values()))), None)


def _block_criterion_of(plan: PruningPlan, topology: Topology, member: str) -> str | None:
    del topology, member
    return next((wanted.criterion for wanted in reversed(list(plan.block_plans.values()))), None)


def _number_of(kind: str) -> Callable[[PruningPlan, Topology, str], int]:
    def read(plan: PruningPlan, topology: Topology, member: str) -> int:
        del topology, member
        found = value_at(plan, f"{kind}.count")
        return found if isinstance(found, int) else 0

    return read


def _is_dropped(plan: PruningPlan, topology: Topology, member: str) -> bool:
    return member in topology.gone(plan.dropped)


def _pattern_of(plan: PruningPlan, topology: Topology, member: str) -> str:
    del topology, member
    return NO_MASKS if plan.weights is None else plan.weights.pattern


def _sparsity_of(plan: PruningPlan, topology: Topology, member: str) -> float | None:
    del topology
    return None if plan.weights is None else plan.weights.layers.get(member, plan.weights.target)


def _step(name: str) -> Parameter:
    """Make the row of a recovery step: the strength of the step."""
    settings = STEP_SETTINGS[name]
    needs: Mapping[str, tuple[str, Applies]] = {
        "": ("always", always),
        "cut": ("channels or blocks are pruned", _cuts),
        "training": ("plans are trained", _trains),
    }
    when, applies = needs[settings.needs]  # type: ignore[attr-defined]  # each of these classes has it
    return Parameter(
        name=name,
        setting=f"recovery.{name}",
        field=f"recovery.{name}.{strength_field(settings)}",
        when=when,
        applies=applies,
        varies=True,
        of_training=applies is _trains,
    )


def _training(name: str, setting: str, field: str, **changes: object) -> Parameter:
    """Make the row of a parameter that only trained plans have."""
    row = {"when": "plans are trained", "applies": _trains, "of_training": True}
    return Parameter(name=name, setting=setting, field=field, **{**row, **changes})  # type: ignore[arg-type]


_WHEN_GROUPS, _WHEN_MASKED = "channels are pruned", "weights are masked"

#: Parameters of dropped blocks and layers.
_BLOCKS = (
    *(
        Parameter(
            name=kind,
            setting="structure.block_criteria",
            field=f"{kind}.count",
            when="blocks are dropped by a criterion",
            domains=_block_domains(kind),
            read=_number_of(kind),
        )
        for kind in BLOCK_KINDS
    ),
    Parameter(
        name="drop",
        setting="structure.kinds",
        field="dropped",
        when="blocks are dropped by name",
        domains=_block_domains("drop"),
        read=_is_dropped,
    ),
)
#: Parameters with choices.
_CHOICES = (
    Parameter(name="amount", setting="structure.modes", when=_WHEN_GROUPS, applies=_has_groups, read=_mode_of),
    Parameter(
        name="block_criterion",
        setting="structure.block_criteria",
        field="blocks.criterion",
        when="blocks are dropped by a criterion",
        applies=_ranks_blocks,
        read=_block_criterion_of,
    ),
    Parameter(
        name="criterion",
        setting="structure.criteria",
        when=_WHEN_GROUPS,
        applies=_has_groups,
        varies=True,
        domains=_criteria,
        read=_criterion_of,
    ),
    *(_step(name) for name in STEP_SETTINGS),
    _training("optimizer", "recovery.optimizers", "recovery.optimizer", domains=_optimizers, varies=True),
    Parameter(
        name="pattern",
        setting="masks.patterns",
        field="weights.pattern",
        when=_WHEN_MASKED,
        domains=_patterns,
        read=_pattern_of,
    ),
    _training(
        "regrowth",
        "schedule.regrowth",
        "recovery.schedule.regrowth",
        when="weights are masked and plans are trained",
        applies=_regrows,
    ),
    _training("schedule", "schedule.names", "recovery.schedule.name"),
    _training("scheduler", "recovery.schedulers", "recovery.scheduler", varies=True),
    Parameter(
        name="spread",
        setting="masks.spreads",
        field="weights.spread",
        when="some pattern leaves the sparsity open, not in the direct space",
        applies=_spreads,
    ),
    _training(
        "updates",
        "schedule.updates",
        "recovery.schedule.updates",
        when="a schedule prunes during training, or weights regrow",
        applies=_prunes_in_training,
    ),
    Parameter(
        name="weight_criterion",
        setting="masks.weight_criteria",
        field="weights.criterion",
        when=_WHEN_MASKED,
        applies=_masks,
    ),
)
#: Parameters with a range.
_RANGES = (
    _training(
        "learning_rate",
        "recovery.learning_rate",
        "recovery.learning_rate",
        when="plans are trained, at a rate of the settings",
        applies=_trains_at_a_chosen_rate,
        varies=True,
        domains=_rates,
    ),
    Parameter(
        name="threshold",
        setting="structure.threshold",
        field="ranking.threshold",
        when="some widths follow from a threshold",
        applies=_has_thresholds,
        domains=_thresholds,
    ),
    Parameter(
        name="sparsity",
        setting="masks.sparsity",
        field="weights.sparsity",
        when="some pattern leaves the sparsity open",
        applies=_has_sparsity,
        domains=_sparsities,
        read=_sparsity_of,
    ),
    Parameter(name="steps", setting="recovery.steps", field="recovery.steps", varies=True, domains=_lengths),
)
#: Name -> row. Samplers draw in this order, so that journals and seeds keep their meaning.
PARAMETERS: Mapping[str, Parameter] = {
    row.name: row for row in (*_BLOCKS, *sorted(_CHOICES, key=lambda row: row.name), *_RANGES)
}


def row_of(name: str) -> Parameter:
    """Find the row of a parameter.

    Args:
        name: Full name, such as "criterion/conv1".

    Returns:
        The row.
    """
    return PARAMETERS[name.partition("/")[0]]
