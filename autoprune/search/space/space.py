"""Interface of the spaces, their registry, and budgets of sweeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial

from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecalibrationPlan, RecoveryPlan
from autoprune.records.cost_table import CostTable
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.allocation.cost_model import CostModel
from autoprune.search.allocation.latency_model import LatencyModel
from autoprune.search.allocation.solver import scale_to_budget
from autoprune.search.space.context import SpaceContext
from autoprune.search.space.direct import DirectSpace
from autoprune.search.space.guided import guided
from autoprune.search.space.parameter import Parameters, ParameterValue
from autoprune.search.space.reduced import reduced
from autoprune.search.space.setting_groups import NO_MASKS
from autoprune.search.space.settings import SpaceSettings
from autoprune.structure.topology import Topology


class Space(Protocol):
    """Two-way map between pruning plans and parameters of an Optuna trial."""

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Return the distribution of each parameter."""

    def decode(self, parameters: Parameters, *, seed: int) -> PruningPlan:
        """Build the plan of a set of parameters.

        Args:
            parameters: Parameters of a trial.
            seed: Seed of the plan.
        """

    def encode(self, plan: PruningPlan) -> dict[str, ParameterValue]:
        """Return the parameters nearest to a plan; a plan outside the space is moved to its edge.

        Args:
            plan: Any plan for the model.
        """

    def uniform(self, budget: float) -> dict[str, ParameterValue]:
        """Return the parameters of the uniform ratio at a budget.

        Args:
            budget: Share of the dense cost, in (0, 1].
        """

    def solved(self, budget: float) -> dict[str, ParameterValue] | None:
        """Return the parameters of the solved allocation at a budget; None without a scan.

        Args:
            budget: Share of the dense cost, in (0, 1].
        """


#: Name -> builder of the space.
SPACE_BUILDERS: Mapping[str, Callable[[SpaceContext], Space]] = {
    "guided": guided,
    "reduced": reduced,
    "direct": lambda context: DirectSpace(context=context),
}


def build_space(
    settings: SpaceSettings, topology: Topology, sensitivity: Sensitivity | None, latency: LatencyModel | None = None
) -> Space:
    """Build the space of the settings.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.
        sensitivity: Scan of the dense model; None without one.
        latency: Latency model of the device; None without one.
    """
    return SPACE_BUILDERS[settings.search.space](
        SpaceContext(settings=settings, topology=topology, sensitivity=sensitivity, latency=latency)
    )


def budgets(
    settings: SpaceSettings, topology: Topology, count: int, latency: LatencyModel | None = None
) -> list[float]:
    """Return budgets from just below dense to the smallest reachable one, evenly spaced in the logarithm.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.
        count: Number of budgets, >= 0. A single one lies in the middle, within reach of one cut.
        latency: Latency model of the device; None without one.

    Returns:
        At most `count` shares of the dense cost; none where only blocks can be pruned.
    """
    if not topology.groups and settings.mask_patterns == (NO_MASKS,):
        return []  # blocks alone: no sweep between dense and nothing
    if topology.groups:
        smallest_budget = SpaceContext(settings=settings, topology=topology, latency=latency).smallest_budget
    else:
        smallest_budget = max(settings.search.min_budget, 1.0 - settings.masks.sparsity[1])
    highest = max(0.75, smallest_budget)
    if highest <= smallest_budget:
        return [smallest_budget] * min(count, 1)
    if count == 1:
        return [math.sqrt(highest * smallest_budget)]
    steps = np.exp(np.linspace(math.log(highest), math.log(smallest_budget), count))
    return [float(value) for value in np.clip(steps, smallest_budget, highest)]


def dense_plan(settings: SpaceSettings, topology: Topology, seed: int) -> PruningPlan:
    """Return the plan that prunes and trains nothing.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.
        seed: Seed of the plan.
    """
    groups = {name: GroupPlan(ratio=0.0, criterion=settings.structure.criteria[0]) for name in topology.widths}
    return PruningPlan(groups=groups, recovery=RecoveryPlan(steps=0, recalibration=RecalibrationPlan()), seed=seed)


def reach(settings: SpaceSettings, topology: Topology) -> dict[str, dict[str, int]]:
    """Return the widths of the smallest, a middle and the largest model of a space, before there is a device profile.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.

    Returns:
        Map from "smallest", "middle" and "largest" to widths by group name.
    """
    cost = CostModel(topology, settings.search.structure_cost)
    allowed = settings.structure.allowed_widths(CostTable.of(topology), None)
    middle = scale_to_budget(cost, np.ones_like(cost.channels), 0.5, allowed)
    rows = {"smallest": allowed.base, "middle": middle, "largest": cost.channels}
    return {
        label: {name: int(width) for name, width in zip(cost.names, widths, strict=True)}
        for label, widths in rows.items()
    }


def suggest(trial: BaseTrial, space: Space) -> None:
    """Set every parameter of the space, as queued or as the sampler proposes.

    Args:
        trial: Running trial, or one whose parameters are known.
        space: Search space.
    """
    for name, distribution in space.distributions.items():
        if isinstance(distribution, FloatDistribution):
            trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
        elif isinstance(distribution, IntDistribution):
            trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
        elif isinstance(distribution, CategoricalDistribution):
            trial.suggest_categorical(name, distribution.choices)
