"""Shared context of the spaces: settings, topology and scan, with tied groups merged."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from optuna.distributions import BaseDistribution

from autoprune.plan.plan import PruningPlan
from autoprune.plan.widths import planned_widths
from autoprune.records.cost_table import CostTable
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.allocation.allowed_widths import AllowedWidths
from autoprune.search.allocation.cost_model import CostModel
from autoprune.search.allocation.latency_model import LatencyModel
from autoprune.search.allocation.solver import AllocationPath, solve
from autoprune.search.space.build import build_plan, dropped
from autoprune.search.space.encode import defaults, distributions, parameters_of
from autoprune.search.space.parameter import Parameters, ParameterValue
from autoprune.search.space.setting_groups import LATENCY_COST, NO_MASKS
from autoprune.search.space.settings import SpaceSettings
from autoprune.search.space.ties import leaders
from autoprune.structure.topology import Topology


@dataclass(frozen=True, kw_only=True)
class SpaceContext:
    """Settings, topology and scan of a space, and the values derived from them.

    Arrays have one entry per tie. A tie is a set of groups that share one width; a free group is a tie of one.

    Attributes:
        settings: Settings of the space.
        topology: Structure of the dense model.
        sensitivity: Scan of the dense model; None before or without one.
        latency: Latency model of the device; None before or without a device profile. Multiply-adds stand in for it.
    """

    settings: SpaceSettings
    topology: Topology
    sensitivity: Sensitivity | None = None
    latency: LatencyModel | None = None
    _costs: dict[tuple[str, ...], CostModel] = field(init=False, repr=False, default_factory=dict)

    @functools.cached_property
    def leaders(self) -> tuple[int, ...]:
        """Return for each group the number of the first group of its tie."""
        own = self.settings.structure.criteria if self.settings.structure.criterion_per_group else ()
        return leaders(self.topology, self.settings.structure.tie, own)

    @functools.cached_property
    def ties(self) -> Mapping[str, tuple[str, ...]]:
        """Map the name of each tie's first group to the names of all its groups."""
        found: dict[str, tuple[str, ...]] = {}
        for group, leader in zip(self.topology.groups, self.leaders, strict=True):
            name = self.topology.groups[leader].name
            found[name] = (*found.get(name, ()), group.name)
        return found

    @property
    def names(self) -> list[str]:
        """Return the names of the ties: those of their first groups."""
        return list(self.ties)

    @property
    def channels(self) -> np.ndarray:
        """Return the dense widths, float [ties]."""
        return self.cost(()).channels

    @functools.cached_property
    def allowed_widths(self) -> AllowedWidths:
        """Return the allowed widths of each tie."""
        table = CostTable.of(self.topology).tied(self.leaders)
        return self.settings.structure.allowed_widths(table, None if self.latency is None else self.latency.grains)

    @functools.cached_property
    def path(self) -> AllocationPath | None:
        """Return the solved allocations of every budget; None without a scan."""
        if self.sensitivity is None or not self.ties:
            return None
        return solve(self.cost(()), self.sensitivity.summed(self.ties), self.allowed_widths.base)

    @functools.cached_property
    def smallest_budget(self) -> float:
        """Return the smallest budget that is allowed and reachable."""
        return max(self.settings.search.min_budget, self.cost(()).share(self.allowed_widths.base))

    def cost(self, without: tuple[str, ...]) -> CostModel:
        """Return the cost model of the widths with some blocks removed, so that the rest meets the budget.

        Args:
            without: Names of the removed blocks.
        """
        if without not in self._costs and self.latency is not None and self.settings.search.cost == LATENCY_COST:
            self._costs[without] = self.latency.cost_model(without, self.leaders)
        elif without not in self._costs:
            axis = self.settings.search.structure_cost
            table = CostTable.of(self.topology, without).tied(self.leaders)
            self._costs[without] = CostModel.of_table(table, axis, float(getattr(self.topology.cost({}), axis)))
        return self._costs[without]

    @functools.cached_property
    def hyperparameters(self) -> Mapping[str, BaseDistribution]:
        """Return the distributions of all parameters but the widths; a tie has one criterion."""
        found = distributions(self.settings, self.topology)
        hidden = {f"criterion/{name}" for tie in self.ties.values() for name in tie[1:]}
        return {name: distribution for name, distribution in found.items() if name not in hidden}

    def defaults(self) -> dict[str, ParameterValue]:
        """Return the first choice of every categorical parameter and the middle of every range."""
        return self._own(defaults(self.settings, self.topology))

    def parameters_of(self, plan: PruningPlan) -> dict[str, ParameterValue]:
        """Return the parameters of a plan other than its widths.

        Args:
            plan: Any plan for the model.
        """
        return self._own(parameters_of(self.settings, self.topology, plan))

    def _own(self, point: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
        return {name: value for name, value in point.items() if name in self.hyperparameters}

    def dropped(self, parameters: Parameters) -> tuple[str, ...]:
        """Return the names of the blocks that the parameters drop by name.

        Args:
            parameters: Parameters of a trial.
        """
        return dropped(self.settings, self.topology, parameters)

    def plan(self, parameters: Parameters, amounts: tuple[Mapping[str, float], float], seed: int) -> PruningPlan:
        """Build the plan of a set of parameters.

        Args:
            parameters: Parameters of a trial.
            amounts: Pruned ratio in [0, 1) of each tie, and the budget in (0, 1] for a ranking.
            seed: Seed of the plan.
        """
        ratios, budget = amounts
        spread = {member: ratios[name] for name, tie in self.ties.items() for member in tie} if ratios else {}
        ordered = {name: spread[name] for name in self.topology.widths} if ratios else {}
        own = {**parameters, **self._criteria(parameters)}
        return build_plan(self.settings, self.topology, own, (ordered, budget), seed)

    def _criteria(self, parameters: Parameters) -> dict[str, ParameterValue]:
        """Copy the criterion of each tie to all its groups."""
        found: dict[str, ParameterValue] = {}
        for name, tie in self.ties.items():
            if f"criterion/{name}" in parameters:
                found |= {f"criterion/{member}": parameters[f"criterion/{name}"] for member in tie}
        return found

    def widths(self, plan: PruningPlan) -> np.ndarray:
        """Return the channels that a plan keeps, float [ties]; the nearest allowed mean where tied groups differ.

        Args:
            plan: Any plan for the model.
        """
        planned = planned_widths(plan, self.topology)
        means = np.array([np.mean([planned[name] for name in tie]) for tie in self.ties.values()])
        alike = np.array([len({planned[name] for name in tie}) == 1 for tie in self.ties.values()], dtype=bool)
        return means if alike.all() else np.where(alike, means, self.allowed_widths.nearest(means))

    def mask_parameters(self, budget: float) -> dict[str, ParameterValue]:
        """Return parameters for a budget where no channels can be pruned: the weight sparsity is 1 - budget.

        Args:
            budget: Share of the weights to keep, in (0, 1]; 1 gives the dense model where the space allows it.
        """
        point, settings = self.defaults(), self.settings
        patterns = [pattern for pattern in settings.mask_patterns if pattern != NO_MASKS]
        if "pattern" in point and patterns:
            point["pattern"] = NO_MASKS if budget >= 1 and NO_MASKS in settings.mask_patterns else patterns[0]
        low, high = settings.masks.sparsity
        shares = {name: min(max(1.0 - budget, low), high) for name in point if name.partition("/")[0] == "sparsity"}
        return {**point, **shares}
