"""A budget, and a shape that is scaled onto it: what the guided and the reduced space have in common."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution

from autoprune.plan.plan import PruningPlan
from autoprune.sensitivity.cost_model import CostModel
from autoprune.sensitivity.rounding import round_to_budget
from autoprune.sensitivity.solver import fractional_widths
from autoprune.space.context import SpaceContext
from autoprune.space.inverse import LinearShape, invert_widths
from autoprune.space.parameters import Parameters, ParameterValue, inside


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeParameter:
    """One parameter of the shape: keep shares are multiplied by 2^(value * octaves).

    name: of the parameter. low, high: what it is drawn from; 0 lies within and is the uniform ratio.
    octaves: budget -> float [ties]. solved: its value in the solved allocation.
    """

    name: str
    low: float
    high: float
    log2_scale: Callable[[float], np.ndarray]
    solved: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ScaledSpace:
    """Keep shares are the product of 2^(value * octaves) over the directions, scaled by one factor onto the budget.

    frame: the model. directions: parameters of the shape. later: parameters, beside these, of the space that there will
    be once the model is scanned; a plan that is encoded before has 0 there.
    """

    context: SpaceContext
    shape_parameters: Sequence[ShapeParameter]
    awaited: tuple[str, ...] = ()

    @functools.cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """The budget in the logarithm, the directions, and the knobs."""
        space: dict[str, BaseDistribution] = {}
        if self.context.ties:
            space["budget"] = FloatDistribution(min(self.context.smallest_budget, 0.999), 1.0, log=True)
            space |= {one.name: FloatDistribution(one.low, one.high) for one in self.shape_parameters}
        return {**space, **self.context.hyperparameters}

    def decode(self, parameters: Parameters, *, seed: int) -> PruningPlan:
        """The plan of a set of parameters."""
        context = self.context
        if not context.ties:
            return context.plan(parameters, ({}, 1.0), seed)
        budget = float(parameters["budget"])
        values = np.array([float(parameters[one.name]) for one in self.shape_parameters])
        widths = self._widths(context.cost(context.dropped(parameters)), budget, values)
        ratios = dict(zip(context.names, (1.0 - widths / context.channels).tolist(), strict=True))
        return context.plan(parameters, (ratios, budget), seed)

    def encode(self, plan: PruningPlan) -> dict[str, ParameterValue]:
        """Budget as the plan costs, and small values of the directions that give its widths, or the nearest.

        A plan whose widths follow from scores has the budget that it names, which is all that is known here.
        """
        context = self.context
        if not context.ties:
            return inside(context.parameters_of(plan), self.distributions)
        hyperparameters = context.parameters_of(plan)
        if plan.needs_scores:
            budget = plan.ranking.budget if plan.ranking is not None and plan.ranking.budget else 1.0
            return inside({**self._point(budget, lambda _: 0.0), **hyperparameters}, self.distributions)
        widths, cost = context.widths(plan), context.cost(plan.dropped)
        budget = min(max(cost.share(widths), min(context.smallest_budget, 0.999)), 1.0)
        values = self._values(cost, budget, context.allowed.nearest(widths))
        named = dict(zip((one.name for one in self.shape_parameters), values.tolist(), strict=True))
        ahead: dict[str, ParameterValue] = dict.fromkeys(self.awaited, 0.0)
        return inside({**ahead, "budget": budget, **named, **hyperparameters}, self.distributions)

    def _values(self, cost: CostModel, budget: float, widths: np.ndarray) -> np.ndarray:
        """Of the directions, those that give these widths, or come nearest."""
        columns = LinearShape(
            matrix=self._matrix(budget),
            low=np.array([one.low for one in self.shape_parameters]),
            high=np.array([one.high for one in self.shape_parameters]),
        )
        best, least = np.zeros(len(self.shape_parameters)), math.inf
        baselines = (best, np.array([one.solved for one in self.shape_parameters]))
        for values in itertools.chain(baselines, invert_widths(columns, widths, cost, self.context.allowed)):
            apart = float(np.abs((self._widths(cost, budget, values) - widths) / self.context.allowed.grain).sum())
            if apart < least:
                best, least = values, apart
            if least == 0:
                break
        return best

    def uniform(self, budget: float) -> dict[str, ParameterValue]:
        """Parameters of the uniform ratio at a budget."""
        return self._point(budget, lambda _: 0.0) if self.context.ties else self.context.sparse(budget)

    def solved(self, budget: float) -> dict[str, ParameterValue] | None:
        """Parameters of the scan's own allocation at a budget."""
        return None if self.context.path is None else self._point(budget, lambda one: one.solved)

    def _point(self, budget: float, value: Callable[[ShapeParameter], float]) -> dict[str, ParameterValue]:
        point: dict[str, ParameterValue] = {"budget": budget}
        return {**point, **{one.name: value(one) for one in self.shape_parameters}, **self.context.defaults()}

    def _matrix(self, budget: float) -> np.ndarray:
        """Octaves of all directions, [ties, directions]."""
        return np.stack([one.log2_scale(budget) for one in self.shape_parameters], axis=1)

    def _widths(self, cost: CostModel, budget: float, values: np.ndarray) -> np.ndarray:
        allowed = self.context.allowed
        exact = fractional_widths(cost, np.exp2(self._matrix(budget) @ values), budget, allowed)
        return round_to_budget(cost, exact, budget, allowed)


def solved_profile(context: SpaceContext) -> Callable[[float], np.ndarray]:
    """Octaves of the solved allocation: budget -> float [ties]."""
    path = context.path
    assert path is not None

    def log2_scale(budget: float) -> np.ndarray:
        return np.asarray(np.log2(path.at(budget) / context.channels))

    return log2_scale


def indicator_profile(context: SpaceContext, members: Sequence[int]) -> Callable[[float], np.ndarray]:
    """One octave for some ties, numbers, and none for the others, whatever the budget."""
    column = np.zeros(len(context.ties))
    column[list(members)] = 1.0
    return lambda _: column
