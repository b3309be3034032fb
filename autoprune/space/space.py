"""The guided and the direct space: parameters of an Optuna trial <-> PruningPlan."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution

from autoprune.criteria.amounts import keep_count, planned_widths
from autoprune.plan.amounts import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecoveryPlan
from autoprune.sensitivity.cost_model import CostModel
from autoprune.sensitivity.scan import Sensitivity
from autoprune.sensitivity.solver import AllocationPath, scale_to_budget, solve
from autoprune.space.knobs import Parameters, Value, defaults, distributions, dropped, inside, knobs_of, plan_of
from autoprune.space.settings import NO_MASKS, SpaceSettings
from autoprune.trace.topology import Topology

#: A residual of 1 doubles a group's share of the budget, -1 halves it.
_RESIDUAL_BASE = 2.0


class Space(Protocol):
    """One way to write plans as parameters."""

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """What Optuna samples from."""

    def decode(self, parameters: Parameters, *, seed: int) -> PruningPlan:
        """The plan of a set of parameters."""

    def encode(self, plan: PruningPlan) -> dict[str, Value]:
        """The parameters nearest to a plan; a plan outside the space is moved to its edge."""

    def uniform(self, budget: float) -> dict[str, Value]:
        """Parameters of the uniform ratio that costs `budget` of dense."""

    def solved(self, budget: float) -> dict[str, Value] | None:
        """Parameters of the solved allocation at a budget, None in a space that has none."""


def build_space(settings: SpaceSettings, topology: Topology, sensitivity: Sensitivity | None) -> Space:
    """The space that the settings ask for."""
    if settings.kind == "direct":
        return DirectSpace(settings=settings, topology=topology)
    return GuidedSpace(settings=settings, topology=topology, sensitivity=sensitivity)


def budgets(settings: SpaceSettings, topology: Topology, count: int) -> list[float]:
    """`count` budgets from just below dense down to the smallest that is allowed and reachable, evenly in log."""
    if not topology.groups and settings.masks == (NO_MASKS,):
        return []  # blocks alone: no sweep between dense and nothing
    smallest = _smallest(settings, topology) if topology.groups else 1.0 - settings.sparsity[1]
    lowest = max(settings.min_budget, smallest)
    highest = max(0.75, lowest)
    if count < 2 or highest <= lowest:
        return [lowest] * min(count, 1)
    steps = np.exp(np.linspace(math.log(highest), math.log(lowest), count))
    return [float(value) for value in np.clip(steps, lowest, highest)]


@dataclass(frozen=True, kw_only=True)
class GuidedSpace:
    """A budget in the logarithm of the cost share, and residuals around an allocation.

    Keep shares are uniform^(1 - trust) * solved^trust * 2^residual, scaled onto the budget. trust = 0 and no
    residuals is the uniform sweep, trust = 1 the scan's own allocation, so both baselines are points of the
    space and the sampler learns how far the scan is worth following.
    """

    settings: SpaceSettings
    topology: Topology
    sensitivity: Sensitivity | None
    _cost: CostModel = field(init=False, repr=False)
    _costs: dict[tuple[str, ...], CostModel] = field(init=False, repr=False, default_factory=dict)
    _path: AllocationPath | None = field(init=False, repr=False)
    _floor: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        cost = CostModel(self.topology, self.settings.cost)
        floor = _floor(self.settings, cost, self.topology)
        path = solve(cost, self.sensitivity, floor) if self.sensitivity is not None and cost.names else None
        for name, value in (("_cost", cost), ("_floor", floor), ("_path", path)):
            object.__setattr__(self, name, value)

    @functools.cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """budget, trust (with a scan), one residual for each group, criterion and recovery knobs."""
        space: dict[str, BaseDistribution] = {}
        if self._cost.names:
            lowest = min(max(self.settings.min_budget, _smallest(self.settings, self.topology)), 0.999)
            space["budget"] = FloatDistribution(lowest, 1.0, log=True)
        if self._path is not None:
            space["trust"] = FloatDistribution(0.0, 1.0)
        space |= {f"residual/{name}": FloatDistribution(-1.0, 1.0) for name in self._cost.names}
        return {**space, **distributions(self.settings, self.topology)}

    def decode(self, parameters: Parameters, *, seed: int) -> PruningPlan:
        """The plan of a set of parameters."""
        if not self._cost.names:
            return plan_of(self.settings, self.topology, parameters, ({}, 1.0), seed)
        budget = float(parameters["budget"])
        residuals = np.array([float(parameters[f"residual/{name}"]) for name in self._cost.names])
        shape = np.power(_RESIDUAL_BASE, residuals)
        if self._path is not None:
            trust = float(parameters["trust"])
            shape = shape * (self._path.at(budget) / self._cost.channels) ** trust
        cost = self._without(dropped(self.settings, self.topology, parameters))
        widths = scale_to_budget(cost, shape, budget, self._floor, _grain(self.settings, self.topology))
        ratios = dict(zip(self._cost.names, 1.0 - widths / self._cost.channels, strict=True))
        return plan_of(self.settings, self.topology, parameters, (ratios, budget), seed)

    def _without(self, dropped: tuple[str, ...]) -> CostModel:
        """What widths cost once these blocks are gone, so that the budget is met with what is left."""
        if dropped not in self._costs:
            self._costs[dropped] = CostModel(self.topology, self.settings.cost, dropped)
        return self._costs[dropped]

    def encode(self, plan: PruningPlan) -> dict[str, Value]:
        """Budget as the plan costs, no trust, residuals that give its keep shares around their middle."""
        if plan.needs_scores:
            # Its widths follow from scores: the budget that it names is all that is known here.
            budget = plan.ranking.budget if plan.ranking is not None and plan.ranking.budget else 1.0
            return inside({**self._point(budget, trust=0.0), **self._knobs(plan)}, self.distributions)
        widths = self._cost.as_array(planned_widths(plan, self.topology))
        if not len(widths):
            return inside(self._knobs(plan), self.distributions)
        exponents = np.log2(widths / self._cost.channels)
        residuals = np.clip(exponents - (exponents.max() + exponents.min()) / 2, -1.0, 1.0)
        budget = self._without(plan.dropped).share(widths)
        point = self._point(budget, trust=0.0) | self._knobs(plan)
        point |= {f"residual/{name}": float(value) for name, value in zip(self._cost.names, residuals, strict=True)}
        if self.settings.scan and self._cost.names:
            point["trust"] = 0.0  # also where the scan is still to come
        return inside(point, self.distributions)

    def _knobs(self, plan: PruningPlan) -> dict[str, Value]:
        return knobs_of(self.settings, self.topology, plan)

    def uniform(self, budget: float) -> dict[str, Value]:
        """Parameters of the uniform ratio at a budget."""
        if not self._cost.names:
            return _masked(self.settings, self.topology, budget)
        return self._point(budget, trust=0.0)

    def solved(self, budget: float) -> dict[str, Value] | None:
        """Parameters of the scan's own allocation at a budget."""
        return None if self._path is None or not self._cost.names else self._point(budget, trust=1.0)

    def _point(self, budget: float, trust: float) -> dict[str, Value]:
        point: dict[str, Value] = {"budget": budget} if self._cost.names else {}
        if self._path is not None:
            point["trust"] = trust
        point |= {f"residual/{name}": 0.0 for name in self._cost.names}
        return {**point, **defaults(self.settings, self.topology)}


@dataclass(frozen=True, kw_only=True)
class DirectSpace:
    """One ratio for each group: the plain space, kept for comparison and for small models."""

    settings: SpaceSettings
    topology: Topology
    _cost: CostModel = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_cost", CostModel(self.topology, self.settings.cost))

    @functools.cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """One ratio for each group, criterion and recovery knobs."""
        ratios: dict[str, BaseDistribution] = {
            f"ratio/{name}": FloatDistribution(0.0, self.settings.max_ratio) for name in self._cost.names
        }
        return {**ratios, **distributions(self.settings, self.topology)}

    def decode(self, parameters: Parameters, *, seed: int) -> PruningPlan:
        """The plan of a set of parameters."""
        ratios = {}
        floors, grains = _floor(self.settings, self._cost, self.topology), _grain(self.settings, self.topology)
        for name, channels, floor, grain in zip(self._cost.names, self._cost.channels, floors, grains, strict=True):
            asked = float(parameters[f"ratio/{name}"])
            width = self._whole(int(channels), asked, int(floor), int(grain))
            ratios[name] = asked if width == keep_count(int(channels), asked) else 1.0 - width / channels
        return plan_of(self.settings, self.topology, parameters, (ratios, self._share(ratios)), seed)

    def _whole(self, channels: int, ratio: float, floor: int, grain: int) -> int:
        """Width after rounding to whole grains, which must not take more of a group than max_ratio allows."""
        width = keep_count(channels, ratio)
        rounded = width if width == channels else grain * max(1, round(width / grain))
        return min(max(rounded, floor), channels)

    def _share(self, ratios: Mapping[str, float]) -> float:
        """What the model costs at these ratios: the budget of a ranking in their place."""
        kept = np.array([1.0 - ratios[name] for name in self._cost.names])
        return self._cost.share(kept * self._cost.channels) if len(kept) else 1.0

    def encode(self, plan: PruningPlan) -> dict[str, Value]:
        """The plan's own ratios; where they follow from scores, the uniform ones at the budget it names."""
        if plan.needs_scores:
            budget = plan.ranking.budget if plan.ranking is not None and plan.ranking.budget else 1.0
            point = {**self.uniform(budget), **knobs_of(self.settings, self.topology, plan)}
            return inside(point, self.distributions)
        widths = planned_widths(plan, self.topology)
        ratios = {
            name: plan.groups[name].ratio
            if name in plan.groups and plan.groups[name].count is None
            else 1.0 - widths[name] / self.topology.widths[name]
            for name in self._cost.names
        }
        own: dict[str, Value] = {f"ratio/{name}": ratio for name, ratio in ratios.items()}
        return inside(own | knobs_of(self.settings, self.topology, plan), self.distributions)

    def uniform(self, budget: float) -> dict[str, Value]:
        """Parameters of the uniform ratio at a budget."""
        if not self._cost.names:
            return _masked(self.settings, self.topology, budget)
        floor = _floor(self.settings, self._cost, self.topology)
        widths = scale_to_budget(
            self._cost, np.ones_like(self._cost.channels), budget, floor, _grain(self.settings, self.topology)
        )
        point: dict[str, Value] = {
            f"ratio/{name}": float(1.0 - width / channels)
            for name, width, channels in zip(self._cost.names, widths, self._cost.channels, strict=True)
        }
        return {**point, **defaults(self.settings, self.topology)}

    def solved(self, budget: float) -> dict[str, Value] | None:
        """No allocation in this space."""
        del budget
        return None


def _masked(settings: SpaceSettings, topology: Topology, budget: float) -> dict[str, Value]:
    """A share of the weights in place of a share of the cost, where no channels may go; dense for a budget of 1."""
    point = defaults(settings, topology)
    patterns = [pattern for pattern in settings.masks if pattern != NO_MASKS]
    if "pattern" in point and patterns:
        point["pattern"] = NO_MASKS if budget >= 1 and NO_MASKS in settings.masks else patterns[0]
    low, high = settings.sparsity
    shares = {name: min(max(1.0 - budget, low), high) for name in point if name.partition("/")[0] == "sparsity"}
    return {**point, **shares}


def dense_plan(settings: SpaceSettings, topology: Topology, seed: int) -> PruningPlan:
    """Nothing goes and nothing is trained: the dense model as it came."""
    groups = {name: GroupPlan(ratio=0.0, criterion=settings.criteria[0]) for name in topology.widths}
    return PruningPlan(groups=groups, recovery=RecoveryPlan(steps=0, batch_norm_samples=0), seed=seed)


def _grain(settings: SpaceSettings, topology: Topology) -> np.ndarray:
    """What kept channels are a multiple of; heads go one by one."""
    return np.array([1.0 if group.kind == "heads" else settings.round_to for group in topology.groups])


def _floor(settings: SpaceSettings, cost: CostModel, topology: Topology) -> np.ndarray:
    """Fewest channels of each group: by max_ratio, rounded up to the grain, never above dense."""
    fewest = np.maximum(1.0, np.ceil(cost.channels * (1.0 - settings.max_ratio) - 1e-9))
    fewest = np.maximum(fewest, [group.least for group in topology.groups])
    grain = _grain(settings, topology)
    return np.asarray(np.minimum(np.ceil(fewest / grain) * grain, cost.channels))


def _smallest(settings: SpaceSettings, topology: Topology) -> float:
    cost = CostModel(topology, settings.cost)
    return cost.share(_floor(settings, cost, topology))


def reach(settings: SpaceSettings, topology: Topology) -> dict[str, dict[str, int]]:
    """Widths of the smallest, a middle and the largest model that a space can reach."""
    cost = CostModel(topology, settings.cost)
    floor = _floor(settings, cost, topology)
    middle = scale_to_budget(cost, np.ones_like(cost.channels), 0.5, floor, _grain(settings, topology))
    rows = {"smallest": floor, "middle": middle, "largest": cost.channels}
    return {
        label: {name: int(width) for name, width in zip(cost.names, widths, strict=True)}
        for label, widths in rows.items()
    }
