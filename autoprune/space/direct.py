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
from autoprune.space.frame import Frame
from autoprune.space.knobs import Parameters, Value, inside


@dataclass(frozen=True, kw_only=True)
class DirectSpace:
    """One ratio for each group: the plain space, kept for comparison and for small models."""

    frame: Frame

    @functools.cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """One ratio for each tie, criterion and recovery knobs."""
        most = self.frame.settings.max_ratio
        ratios: dict[str, BaseDistribution] = {
            f"ratio/{name}": FloatDistribution(0.0, most) for name in self.frame.ties
        }
        return {**ratios, **self.frame.knobs}

    def decode(self, parameters: Parameters, *, seed: int) -> PruningPlan:
        """The plan of a set of parameters."""
        frame = self.frame
        if not frame.ties:
            return frame.plan(parameters, ({}, 1.0), seed)
        asked = np.array([float(parameters[f"ratio/{name}"]) for name in frame.names])
        counts = [keep_count(int(channels), ratio) for channels, ratio in zip(frame.channels, asked, strict=True)]
        # Rounded to whole grains, which must not take more of a group than max_ratio allows.
        widths = frame.allowed.nearest(np.array(counts, dtype=np.float64))
        ratios = np.where(widths == counts, asked, 1.0 - widths / frame.channels)
        # What the model costs at these ratios is the budget of a ranking in their place.
        budget = frame.cost(()).share((1.0 - ratios) * frame.channels)
        return frame.plan(parameters, (dict(zip(frame.names, ratios.tolist(), strict=True)), budget), seed)

    def encode(self, plan: PruningPlan) -> dict[str, Value]:
        """The plan's own ratios; where they follow from scores, the uniform ones at the budget it names."""
        frame, knobs = self.frame, self.frame.knobs_of(plan)
        if plan.needs_scores:
            budget = plan.ranking.budget if plan.ranking is not None and plan.ranking.budget else 1.0
            return inside({**self.uniform(budget), **knobs}, self.distributions)
        if not frame.ties:
            return inside(knobs, self.distributions)
        achieved = 1.0 - frame.widths(plan) / frame.channels
        point: dict[str, Value] = {}
        for (name, tie), ratio in zip(frame.ties.items(), achieved.tolist(), strict=True):
            said = {plan.groups[member].ratio if self._says(plan, member) else None for member in tie}
            only = next(iter(said)) if len(said) == 1 else None
            point[f"ratio/{name}"] = ratio if only is None else only
        return inside({**point, **knobs}, self.distributions)

    def uniform(self, budget: float) -> dict[str, Value]:
        """Parameters of the uniform ratio at a budget."""
        if not self.frame.ties:
            return self.frame.sparse(budget)
        return self._at(budget, np.ones_like(self.frame.channels))

    def solved(self, budget: float) -> dict[str, Value] | None:
        """Parameters of the scan's own allocation at a budget; None without one."""
        path = self.frame.path
        return None if path is None else self._at(budget, path.at(budget) / self.frame.channels)

    def _at(self, budget: float, shape: np.ndarray) -> dict[str, Value]:
        frame, cost = self.frame, self.frame.cost(())
        exact = fractional_widths(cost, shape, budget, frame.allowed)
        ratios = 1.0 - round_to_budget(cost, exact, budget, frame.allowed) / frame.channels
        point: dict[str, Value] = {
            f"ratio/{name}": float(ratio) for name, ratio in zip(frame.names, ratios, strict=True)
        }
        return {**point, **frame.defaults()}

    @staticmethod
    def _says(plan: PruningPlan, name: str) -> bool:
        """True where the plan has a ratio for a group, and not a number of channels."""
        return name in plan.groups and plan.groups[name].count is None
