"""Scaled spaces: a shape of keep shares that is scaled onto a budget."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution

from autoprune.plan.plan import PruningPlan
from autoprune.search.allocation.cost_model import CostModel
from autoprune.search.allocation.rounding import round_to_budget
from autoprune.search.allocation.solver import fractional_widths
from autoprune.search.space.context import SpaceContext
from autoprune.search.space.encode import clip_to
from autoprune.search.space.inverse import LinearShape, invert_widths
from autoprune.search.space.parameter import Parameters, ParameterValue


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeParameter:
    """One parameter of the shape: keep shares are multiplied by 2^(value * log2_scale).

    Attributes:
        name: Name of the parameter.
        low: Lower bound, <= 0. The value 0 is the uniform ratio.
        high: Upper bound, >= 0.
        log2_scale: Function from the budget to log2 factors, float [ties].
        solved: Value in the solved allocation.
    """

    name: str
    low: float
    high: float
    log2_scale: Callable[[float], np.ndarray]
    solved: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ScaledSpace:
    """Space whose keep shares are the product of 2^(value * log2_scale), scaled by one factor onto the budget.

    Attributes:
        context: Settings, topology and scan.
        shape_parameters: Parameters of the shape.
        awaited: Names of parameters that the space gets once the model is scanned; plans encoded before have 0 there.
    """

    context: SpaceContext
    shape_parameters: Sequence[ShapeParameter]
    awaited: tuple[str, ...] = ()

    @functools.cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Return the budget (logarithmic), the shape parameters and the other hyperparameters."""
        space: dict[str, BaseDistribution] = {}
        if self.context.ties:
            space["budget"] = FloatDistribution(min(self.context.smallest_budget, 0.999), 1.0, log=True)
            space |= {one.name: FloatDistribution(one.low, one.high) for one in self.shape_parameters}
        return {**space, **self.context.hyperparameters}

    def decode(self, parameters: Parameters, *, seed: int) -> PruningPlan:
        """Build the plan of a set of parameters.

        Args:
            parameters: Parameters of a trial.
            seed: Seed of the plan.
        """
        context = self.context
        if not context.ties:
            return context.plan(parameters, ({}, 1.0), seed)
        budget = float(parameters["budget"])
        values = np.array([float(parameters[one.name]) for one in self.shape_parameters])
        widths = self._widths(context.cost(context.dropped(parameters)), budget, values)
        ratios = dict(zip(context.names, (1.0 - widths / context.channels).tolist(), strict=True))
        return context.plan(parameters, (ratios, budget), seed)

    def encode(self, plan: PruningPlan) -> dict[str, ParameterValue]:
        """Return the plan's cost as budget, and small shape parameters that give its widths, or the nearest ones.

        Args:
            plan: Any plan for the model. Where its widths follow from scores, the budget that it names is used.
        """
        context = self.context
        if not context.ties:
            return clip_to(context.parameters_of(plan), self.distributions)
        hyperparameters = context.parameters_of(plan)
        if plan.needs_scores:
            budget = plan.ranking.budget if plan.ranking is not None and plan.ranking.budget else 1.0
            return clip_to({**self._point(budget, lambda _: 0.0), **hyperparameters}, self.distributions)
        widths, cost = context.widths(plan), context.cost(plan.dropped)
        budget = min(max(cost.share(widths), min(context.smallest_budget, 0.999)), 1.0)
        values = self._values(cost, budget, context.allowed_widths.nearest(widths))
        named = dict(zip((one.name for one in self.shape_parameters), values.tolist(), strict=True))
        ahead: dict[str, ParameterValue] = dict.fromkeys(self.awaited, 0.0)
        return clip_to({**ahead, "budget": budget, **named, **hyperparameters}, self.distributions)

    def _values(self, cost: CostModel, budget: float, widths: np.ndarray) -> np.ndarray:
        """Return the shape parameters, float [parameters], that give these widths, or come nearest."""
        columns = LinearShape(
            matrix=self._matrix(budget),
            low=np.array([one.low for one in self.shape_parameters]),
            high=np.array([one.high for one in self.shape_parameters]),
        )
        allowed = self.context.allowed_widths
        best, least = np.zeros(len(self.shape_parameters)), math.inf
        baselines = (best, np.array([one.solved for one in self.shape_parameters]))
        for values in itertools.chain(baselines, invert_widths(columns, widths, cost, allowed)):
            apart = float(np.abs(allowed.steps(self._widths(cost, budget, values)) - allowed.steps(widths)).sum())
            if apart < least:
                best, least = values, apart
            if least == 0:
                break
        return best

    def uniform(self, budget: float) -> dict[str, ParameterValue]:
        """Return the parameters of the uniform ratio at a budget.

        Args:
            budget: Share of the dense cost, in (0, 1].
        """
        return self._point(budget, lambda _: 0.0) if self.context.ties else self.context.mask_parameters(budget)

    def solved(self, budget: float) -> dict[str, ParameterValue] | None:
        """Return the parameters of the scan's allocation at a budget; None without a scan.

        Args:
            budget: Share of the dense cost, in (0, 1].
        """
        return None if self.context.path is None else self._point(budget, lambda one: one.solved)

    def _point(self, budget: float, value: Callable[[ShapeParameter], float]) -> dict[str, ParameterValue]:
        point: dict[str, ParameterValue] = {"budget": budget}
        return {**point, **{one.name: value(one) for one in self.shape_parameters}, **self.context.defaults()}

    def _matrix(self, budget: float) -> np.ndarray:
        """Return the log2 scales of all shape parameters, float [ties, parameters]."""
        return np.stack([one.log2_scale(budget) for one in self.shape_parameters], axis=1)

    def _widths(self, cost: CostModel, budget: float, values: np.ndarray) -> np.ndarray:
        allowed = self.context.allowed_widths
        exact = fractional_widths(cost, np.exp2(self._matrix(budget) @ values), budget, allowed)
        return round_to_budget(cost, exact, budget, allowed)


def solved_profile(context: SpaceContext) -> Callable[[float], np.ndarray]:
    """Return the log2 scale of the solved allocation.

    Args:
        context: Context with a scan.

    Returns:
        Function from the budget to log2 of the solved keep shares, float [ties].
    """
    path = context.path
    assert path is not None

    def log2_scale(budget: float) -> np.ndarray:
        return np.asarray(np.log2(path.at(budget) / context.channels))

    return log2_scale


def indicator_profile(context: SpaceContext, members: Sequence[int]) -> Callable[[float], np.ndarray]:
    """Return a log2 scale of 1 for some ties and 0 for the others, at every budget.

    Args:
        context: Settings, topology and scan.
        members: Numbers of the ties.

    Returns:
        Function from the budget to float [ties].
    """
    column = np.zeros(len(context.ties))
    column[list(members)] = 1.0
    return lambda _: column
