"""Build the plan of a set of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from autoprune.plan.allocation import BlockPlan, GroupPlan, RankingPlan
from autoprune.plan.maskable import maskable
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import STEP_SETTINGS, RecoveryPlan, SchedulePlan, strength_field
from autoprune.plan.weights import WeightPlan, group_pattern
from autoprune.search.space.optimizers import default_rate
from autoprune.search.space.parameter import Domain, Parameters, ParameterValue
from autoprune.search.space.parameters import row_of
from autoprune.search.space.setting_groups import NO_MASKS, SCORED_MODES
from autoprune.search.space.settings import SpaceSettings
from autoprune.structure.topology import Topology


class _Values:
    """Full name of a parameter -> its value, or the constant that the space has in its place."""

    def __init__(self, settings: SpaceSettings, topology: Topology, parameters: Parameters) -> None:
        self._settings, self._topology, self._parameters = settings, topology, parameters
        self._domains: dict[str, Mapping[str, Domain]] = {}

    def __call__(self, name: str) -> ParameterValue:
        row = row_of(name)
        if name in self._parameters and not (row.of_training and self._settings.recovery.lengths == (0, 0)):
            return self._parameters[name]
        if row.name not in self._domains:
            self._domains[row.name] = row.values(self._settings, self._topology)
        return self._domains[row.name][name].default


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
    value = _Values(settings, topology, parameters)
    ratios, budget = amounts
    scored = value("amount") in SCORED_MODES
    return PruningPlan(
        groups={} if scored else _groups(settings, topology, ratios, value),
        ranking=_ranking(settings, budget, value) if scored and topology.groups else None,
        dropped=dropped(settings, topology, parameters),
        blocks=_blocks(parameters, "blocks", value),
        layers=_blocks(parameters, "layers", value),
        weights=_weights(settings, topology, value),
        recovery=_recovery(settings, parameters, value),
        seed=seed,
    )


def dropped(settings: SpaceSettings, topology: Topology, parameters: Parameters) -> tuple[str, ...]:
    """Return the names of the blocks that the parameters drop by name.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.
        parameters: Parameters of a trial.
    """
    if settings.structure.block_criteria:
        return ()
    named = [block.name for block in topology.blocks if parameters.get(f"drop/{block.name}", False) is True]
    return tuple(block.name for block in topology.dropped(named))


def _groups(
    settings: SpaceSettings, topology: Topology, ratios: Mapping[str, float], value: _Values
) -> dict[str, GroupPlan]:
    counted = value("amount") == "count"
    found: dict[str, GroupPlan] = {}
    for name, wanted in ratios.items():
        criterion = str(value(f"criterion/{name}" if settings.structure.criterion_per_group else "criterion"))
        ratio = min(max(float(wanted), 0.0), settings.structure.max_ratio)
        found[name] = (
            GroupPlan(count=round(topology.widths[name] * ratio), criterion=criterion)
            if counted
            else GroupPlan(ratio=ratio, criterion=criterion)
        )
    return found


def _ranking(settings: SpaceSettings, budget: float, value: _Values) -> RankingPlan:
    by_threshold = value("amount") == "threshold"
    return RankingPlan(
        threshold=float(value("threshold")) if by_threshold else None,
        budget=None if by_threshold else budget,
        cost=settings.search.structure_cost,
        criterion=settings.search.scan_criterion if settings.structure.criterion_per_group else str(value("criterion")),
        scale="mean",
        cap=settings.structure.max_ratio,
    )


def _blocks(parameters: Parameters, kind: str, value: _Values) -> BlockPlan | None:
    count = int(parameters.get(kind, 0))
    return BlockPlan(count=count, criterion=str(value("block_criterion"))) if count else None


def _weights(settings: SpaceSettings, topology: Topology, value: _Values) -> WeightPlan | None:
    pattern = str(value("pattern"))
    if pattern == NO_MASKS:
        return None
    fixed = group_pattern(pattern) is not None
    own: dict[str, float] = {}
    if settings.search.space == "direct" and not fixed:
        own = {name: float(value(f"sparsity/{name}")) for name in maskable(topology)}
    share = float(sum(own.values()) / len(own) if own else 0.0)
    if not own and not fixed:
        share = float(value("sparsity"))
    return WeightPlan(
        pattern=pattern,
        sparsity=None if fixed else share,
        criterion=str(value("weight_criterion")),
        spread=str(value("spread")),
        layers=own,
    )


def _recovery(settings: SpaceSettings, parameters: Parameters, value: _Values) -> RecoveryPlan:
    optimizer = str(value("optimizer"))
    rated = "learning_rate" in parameters and settings.recovery.lengths != (0, 0)
    steps: dict[str, object] = {name: _step(settings, name, value) for name in STEP_SETTINGS}
    return RecoveryPlan(
        steps=int(value("steps")),
        optimizer=optimizer,
        learning_rate=float(value("learning_rate")) if rated else default_rate(settings, optimizer),
        scheduler=str(value("scheduler")),
        weight_decay=settings.recovery.weight_decay,
        schedule=SchedulePlan(
            name=str(value("schedule")) if settings.recovery.lengths != (0, 0) else "one_shot",
            updates=int(value("updates")),
            end=settings.schedule.end,
            regrowth=float(value("regrowth")),
        ),
        precision=settings.recovery.precision,
        **steps,  # type: ignore[arg-type]  # each of its field's class
    )


def _step(settings: SpaceSettings, name: str, value: _Values) -> object:
    """Build the settings of a recovery step: its strength, and the constants that the settings of the space hold.

    The constant `per` of the step `max_norm` is the setting `recovery.max_norm_per`.
    """
    kind = STEP_SETTINGS[name]
    constants = {one.name: getattr(settings.recovery, f"{name}_{one.name}", None) for one in fields(kind)}
    given = {field: constant for field, constant in constants.items() if constant is not None}
    return kind(**{**given, strength_field(kind): value(name)})
