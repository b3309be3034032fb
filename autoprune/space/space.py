"""Space: parameters of an Optuna trial <-> PruningPlan, and the three kinds of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from optuna.distributions import BaseDistribution

from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecoveryPlan
from autoprune.sensitivity.cost_model import CostModel
from autoprune.sensitivity.cost_table import CostTable
from autoprune.sensitivity.scan import Sensitivity
from autoprune.sensitivity.solver import scale_to_budget, width_bounds
from autoprune.space.context import SpaceContext
from autoprune.space.direct import DirectSpace
from autoprune.space.guided import guided
from autoprune.space.parameters import Parameters, ParameterValue
from autoprune.space.reduced import reduced
from autoprune.space.settings import NO_MASKS, SpaceSettings
from autoprune.trace.topology import Topology


class Space(Protocol):
    """One way to write plans as parameters."""

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """What Optuna samples from."""

    def decode(self, parameters: Parameters, *, seed: int) -> PruningPlan:
        """The plan of a set of parameters."""

    def encode(self, plan: PruningPlan) -> dict[str, ParameterValue]:
        """The parameters nearest to a plan; a plan outside the space is moved to its edge."""

    def uniform(self, budget: float) -> dict[str, ParameterValue]:
        """Parameters of the uniform ratio that costs `budget` of dense."""

    def solved(self, budget: float) -> dict[str, ParameterValue] | None:
        """Parameters of the solved allocation at a budget, None without a scan."""


#: Name -> the space of a frame.
SPACE_BUILDERS: Mapping[str, Callable[[SpaceContext], Space]] = {
    "guided": guided,
    "reduced": reduced,
    "direct": lambda context: DirectSpace(context=context),
}


def build_space(settings: SpaceSettings, topology: Topology, sensitivity: Sensitivity | None) -> Space:
    """The space that the settings ask for."""
    return SPACE_BUILDERS[settings.kind](SpaceContext(settings=settings, topology=topology, sensitivity=sensitivity))


def budgets(settings: SpaceSettings, topology: Topology, count: int) -> list[float]:
    """`count` budgets from just below dense down to the smallest that is allowed and reachable, evenly in log.

    One alone lies in the middle: the smallest is a long way from dense at a single step.
    """
    if not topology.groups and settings.masks == (NO_MASKS,):
        return []  # blocks alone: no sweep between dense and nothing
    if topology.groups:
        smallest_budget = SpaceContext(settings=settings, topology=topology).smallest_budget
    else:
        smallest_budget = max(settings.min_budget, 1.0 - settings.sparsity[1])
    highest = max(0.75, smallest_budget)
    if highest <= smallest_budget:
        return [smallest_budget] * min(count, 1)
    if count == 1:
        return [math.sqrt(highest * smallest_budget)]
    steps = np.exp(np.linspace(math.log(highest), math.log(smallest_budget), count))
    return [float(value) for value in np.clip(steps, smallest_budget, highest)]


def dense_plan(settings: SpaceSettings, topology: Topology, seed: int) -> PruningPlan:
    """Nothing goes and nothing is trained: the dense model as it came."""
    groups = {name: GroupPlan(ratio=0.0, criterion=settings.criteria[0]) for name in topology.widths}
    return PruningPlan(groups=groups, recovery=RecoveryPlan(steps=0, batch_norm_samples=0), seed=seed)


def reach(settings: SpaceSettings, topology: Topology) -> dict[str, dict[str, int]]:
    """Widths of the smallest, a middle and the largest model that a space can reach."""
    cost = CostModel(topology, settings.cost)
    floor, grain = width_bounds(CostTable.of(topology), settings.max_ratio, settings.round_to)
    middle = scale_to_budget(cost, np.ones_like(cost.channels), 0.5, floor, grain)
    rows = {"smallest": floor, "middle": middle, "largest": cost.channels}
    return {
        label: {name: int(width) for name, width in zip(cost.names, widths, strict=True)}
        for label, widths in rows.items()
    }
