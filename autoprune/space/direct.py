"""The direct space: one ratio for each group."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution

from autoprune.criteria.resolve import keep_count
from autoprune.plan.plan import PruningPlan
from autoprune.sensitivity.rounding import round_to_budget
from autoprune.sensitivity.solver import fractional_widths
from autoprune.space.context import SpaceContext
from autoprune.space.parameters import Parameters, ParameterValue, inside


@dataclass(frozen=True, kw_only=True)
class DirectSpace:
    """One ratio for each group: the plain space, kept for comparison and for small models."""

    context: SpaceContext

    @functools.cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """One ratio for each tie, criterion and recovery knobs."""
        most = self.context.settings.max_ratio
        ratios: dict[str, BaseDistribution] = {
            f"ratio/{name}": FloatDistribution(0.0, most) for name in self.context.ties
        }
        return {**ratios, **self.context.hyperparameters}

    def decode(self, parameters: Parameters, *, seed: int) -> PruningPlan:
        """The plan of a set of parameters."""
        context = self.context
        if not context.ties:
            return context.plan(parameters, ({}, 1.0), seed)
        asked = np.array([float(parameters[f"ratio/{name}"]) for name in context.names])
        counts = [keep_count(int(channels), ratio) for channels, ratio in zip(context.channels, asked, strict=True)]
        # Rounded to whole grains, which must not take more of a group than max_ratio allows.
        widths = context.allowed.nearest(np.array(counts, dtype=np.float64))
        ratios = np.where(widths == counts, asked, 1.0 - widths / context.channels)
        # What the model costs at these ratios is the budget of a ranking in their place.
        budget = context.cost(()).share((1.0 - ratios) * context.channels)
        return context.plan(parameters, (dict(zip(context.names, ratios.tolist(), strict=True)), budget), seed)

    def encode(self, plan: PruningPlan) -> dict[str, ParameterValue]:
        """The plan's own ratios; where they follow from scores, the uniform ones at the budget it names."""
        context, hyperparameters = self.context, self.context.parameters_of(plan)
        if plan.needs_scores:
            budget = plan.ranking.budget if plan.ranking is not None and plan.ranking.budget else 1.0
            return inside({**self.uniform(budget), **hyperparameters}, self.distributions)
        if not context.ties:
            return inside(hyperparameters, self.distributions)
        achieved = 1.0 - context.widths(plan) / context.channels
        point: dict[str, ParameterValue] = {}
        for (name, tie), ratio in zip(context.ties.items(), achieved.tolist(), strict=True):
            said = {plan.groups[member].ratio if self._says(plan, member) else None for member in tie}
            only = next(iter(said)) if len(said) == 1 else None
            point[f"ratio/{name}"] = ratio if only is None else only
        return inside({**point, **hyperparameters}, self.distributions)

    def uniform(self, budget: float) -> dict[str, ParameterValue]:
        """Parameters of the uniform ratio at a budget."""
        if not self.context.ties:
            return self.context.sparse(budget)
        return self._at(budget, np.ones_like(self.context.channels))

    def solved(self, budget: float) -> dict[str, ParameterValue] | None:
        """Parameters of the scan's own allocation at a budget; None without one."""
        path = self.context.path
        return None if path is None else self._at(budget, path.at(budget) / self.context.channels)

    def _at(self, budget: float, shape: np.ndarray) -> dict[str, ParameterValue]:
        context, cost = self.context, self.context.cost(())
        exact = fractional_widths(cost, shape, budget, context.allowed)
        ratios = 1.0 - round_to_budget(cost, exact, budget, context.allowed) / context.channels
        point: dict[str, ParameterValue] = {
            f"ratio/{name}": float(ratio) for name, ratio in zip(context.names, ratios, strict=True)
        }
        return {**point, **context.defaults()}

    @staticmethod
    def _says(plan: PruningPlan, name: str) -> bool:
        """True where the plan has a ratio for a group, and not a number of channels."""
        return name in plan.groups and plan.groups[name].count is None
