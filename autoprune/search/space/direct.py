"""The direct space: one ratio per group."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution

from autoprune.plan.plan import PruningPlan
from autoprune.plan.widths import keep_count
from autoprune.search.allocation.rounding import round_to_budget
from autoprune.search.allocation.solver import fractional_widths
from autoprune.search.space.context import SpaceContext
from autoprune.search.space.encode import clip_to
from autoprune.search.space.parameter import Parameters, ParameterValue


@dataclass(frozen=True, kw_only=True)
class DirectSpace:
    """Space with one ratio per tie; simple, for comparison and for small models.

    Attributes:
        context: Settings, topology and scan.
    """

    context: SpaceContext

    @functools.cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Return one ratio per tie, and the other hyperparameters."""
        most = self.context.settings.structure.max_ratio
        ratios: dict[str, BaseDistribution] = {
            f"ratio/{name}": FloatDistribution(0.0, most) for name in self.context.ties
        }
        return {**ratios, **self.context.hyperparameters}

    def decode(self, parameters: Parameters, *, seed: int) -> PruningPlan:
        """Build the plan of a set of parameters.

        Args:
            parameters: Parameters of a trial.
            seed: Seed of the plan.
        """
        context = self.context
        if not context.ties:
            return context.plan(parameters, ({}, 1.0), seed)
        asked = np.array([float(parameters[f"ratio/{name}"]) for name in context.names])
        counts = [keep_count(int(channels), ratio) for channels, ratio in zip(context.channels, asked, strict=True)]
        # Rounding to whole grains must not prune more of a group than max_ratio allows.
        widths = context.allowed_widths.nearest(np.array(counts, dtype=np.float64))
        ratios = np.where(widths == counts, asked, 1.0 - widths / context.channels)
        # A ranking gets the cost of these ratios as its budget.
        budget = context.cost(()).share((1.0 - ratios) * context.channels)
        return context.plan(parameters, (dict(zip(context.names, ratios.tolist(), strict=True)), budget), seed)

    def encode(self, plan: PruningPlan) -> dict[str, ParameterValue]:
        """Return the ratios of a plan; the uniform ratio at its budget where widths follow from scores.

        Args:
            plan: Any plan for the model. Values outside the space are moved to its edge.
        """
        context, hyperparameters = self.context, self.context.parameters_of(plan)
        if plan.needs_scores:
            budget = plan.ranking.budget if plan.ranking is not None and plan.ranking.budget else 1.0
            return clip_to({**self.uniform(budget), **hyperparameters}, self.distributions)
        if not context.ties:
            return clip_to(hyperparameters, self.distributions)
        achieved = 1.0 - context.widths(plan) / context.channels
        point: dict[str, ParameterValue] = {}
        for (name, tie), ratio in zip(context.ties.items(), achieved.tolist(), strict=True):
            said = {plan.groups[member].ratio if self._says(plan, member) else None for member in tie}
            only = next(iter(said)) if len(said) == 1 else None
            point[f"ratio/{name}"] = ratio if only is None else only
        return clip_to({**point, **hyperparameters}, self.distributions)

    def uniform(self, budget: float) -> dict[str, ParameterValue]:
        """Return the parameters of the uniform ratio at a budget.

        Args:
            budget: Share of the dense cost, in (0, 1].
        """
        if not self.context.ties:
            return self.context.mask_parameters(budget)
        return self._at(budget, np.ones_like(self.context.channels))

    def solved(self, budget: float) -> dict[str, ParameterValue] | None:
        """Return the parameters of the scan's allocation at a budget; None without a scan.

        Args:
            budget: Share of the dense cost, in (0, 1].
        """
        path = self.context.path
        return None if path is None else self._at(budget, path.at(budget) / self.context.channels)

    def _at(self, budget: float, shape: np.ndarray) -> dict[str, ParameterValue]:
        context, cost = self.context, self.context.cost(())
        exact = fractional_widths(cost, shape, budget, context.allowed_widths)
        ratios = 1.0 - round_to_budget(cost, exact, budget, context.allowed_widths) / context.channels
        point: dict[str, ParameterValue] = {
            f"ratio/{name}": float(ratio) for name, ratio in zip(context.names, ratios, strict=True)
        }
        return {**point, **context.defaults()}

    @staticmethod
    def _says(plan: PruningPlan, name: str) -> bool:
        """Return whether the plan has a ratio for a group, rather than a number of channels."""
        return name in plan.groups and plan.groups[name].count is None
