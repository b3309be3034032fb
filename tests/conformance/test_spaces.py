"""Every kind of space, with every way to tie groups, with and without a scan: the same suite."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from torch import Tensor, nn

from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.widths import planned_widths
from autoprune.records.cost_table import CostTable
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.allocation.allowed_widths import AllowedWidths, allowed_widths
from autoprune.search.allocation.cost_model import CostModel
from autoprune.search.space.context import SpaceContext
from autoprune.search.space.parameter import ParameterValue
from autoprune.search.space.setting_groups import SPACES
from autoprune.search.space.settings import SpaceSettings
from autoprune.search.space.space import SPACE_BUILDERS, Space, budgets, build_space
from autoprune.search.space.ties import TIES
from autoprune.sensitivity.scan import KEEP_SHARES
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.settings import space_of
from tests.zoo.attention import LanguageModel, SDPAttention
from tests.zoo.convolutional import ResNet, vgg

MODELS: Mapping[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "resnet": lambda: (ResNet(widths=(12, 20, 32), depth=3), torch.randn(2, 1, 8, 8)),
    "vgg": lambda: (vgg(), torch.randn(2, 1, 8, 8)),
    "attention": lambda: (LanguageModel(SDPAttention), torch.arange(10).view(2, 5)),
}
#: A third of the points for each case; more in `make test-slow`.
EXAMPLES = int(os.environ.get("AUTOPRUNE_EXAMPLES", "2"))
#: kind, tie, model, whether it was scanned.
CASES = [(*case, True) for case in itertools.product(SPACES, TIES, ("resnet",))]
CASES += [(*case, True) for case in itertools.product(SPACES, ("shape",), ("vgg", "attention"))]
CASES += [(*case, False) for case in itertools.product(SPACES, ("none",), ("resnet",))]
every = pytest.mark.parametrize(("kind", "tie", "model", "scanned"), CASES)


@functools.cache
def topology_of(model: str) -> Topology:
    module, inputs = MODELS[model]()
    return trace(module.eval(), inputs)


def scan_of(topology: Topology) -> Sensitivity:
    """A few groups matter much more than others."""
    random = np.random.default_rng(0)
    return Sensitivity(
        keep_shares=KEEP_SHARES,
        added_loss={
            name: tuple(float(-np.exp(weight) * np.log(share)) for share in KEEP_SHARES)
            for name, weight in zip(topology.widths, random.normal(size=len(topology.groups)), strict=True)
        },
        criterion="l2",
        samples_forward=0,
        samples_trained=0,
    )


def settings_of(kind: str, tie: str, **changes: object) -> SpaceSettings:
    given: dict[str, object] = {"space": kind, "tie": tie, "min_budget": 0.05, "max_ratio": 0.85}
    given |= {"criteria": ("l2", "l1", "taylor"), "criterion_per_group": True}
    return space_of(**{**given, **changes})  # type: ignore[arg-type]


def build(kind: str, tie: str, model: str, scanned: bool, **changes: object) -> Space:
    topology = topology_of(model)
    return build_space(settings_of(kind, tie, **changes), topology, scan_of(topology) if scanned else None)


def drawn(space: Space, random: np.random.Generator, inner: float = 1.0) -> dict[str, ParameterValue]:
    """A random point. inner: part of each range about its middle."""
    point: dict[str, ParameterValue] = {}
    for name, one in space.distributions.items():
        if isinstance(one, CategoricalDistribution):
            point[name] = one.choices[int(random.integers(len(one.choices)))]  # type: ignore[assignment]
        elif isinstance(one, FloatDistribution):
            low, high = (np.log(one.low), np.log(one.high)) if one.log else (one.low, one.high)
            value = (low + high) / 2 + inner * (random.uniform() - 0.5) * (high - low)
            point[name] = float(np.clip(np.exp(value) if one.log else value, one.low, one.high))
    return point


def points_of(space: Space) -> st.SearchStrategy[dict[str, ParameterValue]]:
    """Any values that the distributions allow, their ends included."""

    def values(one: BaseDistribution) -> st.SearchStrategy[ParameterValue]:
        if isinstance(one, CategoricalDistribution):
            return st.sampled_from(one.choices)  # type: ignore[arg-type]
        if isinstance(one, IntDistribution):
            return st.integers(one.low, one.high)
        assert isinstance(one, FloatDistribution)
        return st.floats(one.low, one.high)

    return st.fixed_dictionaries({name: values(one) for name, one in space.distributions.items()})


def share_of(topology: Topology, widths: dict[str, int]) -> float:
    return topology.cost(widths).multiply_adds / topology.cost({}).multiply_adds


def tied(tie: str, model: str) -> tuple[CostModel, AllowedWidths, list[list[str]]]:
    """Cost of tied widths, which of them may be had, and the groups of each tie."""
    topology = topology_of(model)
    context = SpaceContext(settings=settings_of("guided", tie), topology=topology)
    table = CostTable.of(topology).tied(context.leaders)
    cost = CostModel.of_table(table, "multiply_adds")
    return cost, allowed_widths(table, 0.85, 1), [list(group) for group in context.ties.values()]


def test_every_kind_is_built_by_name() -> None:
    assert list(SPACE_BUILDERS) == list(SPACES)


@every
@settings(max_examples=3 * EXAMPLES, deadline=None)
@given(data=st.data())
def test_every_point_is_a_valid_plan(kind: str, tie: str, model: str, scanned: bool, data: st.DataObject) -> None:
    """Within max_ratio and what a group needs, with tied groups alike, and within a percent of the budget."""
    space, topology = build(kind, tie, model, scanned), topology_of(model)
    point = data.draw(points_of(space))
    plan = space.decode(point, seed=7)
    assert space.decode(point, seed=7) == plan, "decoding is a function"
    assert PruningPlan.from_json(plan.to_json()) == plan
    assert list(plan.groups) == list(topology.widths)
    widths = planned_widths(plan, topology)
    for group in topology.groups:
        assert (
            max(group.min_channels, int(np.ceil(0.15 * group.channels - 1e-9))) <= widths[group.name] <= group.channels
        )
    for members in tied(tie, model)[2]:
        assert len({(widths[name], plan.groups[name].criterion) for name in members}) == 1


@every
@pytest.mark.parametrize("round_to", [1, 4])
def test_floors_hold_with_grains(kind: str, tie: str, model: str, scanned: bool, round_to: int) -> None:
    space, topology = build(kind, tie, model, scanned, round_to=round_to), topology_of(model)
    random = np.random.default_rng(0)
    for _ in range(6):
        widths = planned_widths(space.decode(drawn(space, random), seed=0), topology)
        for group in topology.groups:
            width, grain = widths[group.name], 1 if group.kind == "heads" else round_to
            assert width % grain == 0 or width in (1, 2, group.channels)
            assert width >= 0.15 * group.channels - 1e-9


@every
def test_uniform_and_solved_cost_the_budget_or_the_nearest(kind: str, tie: str, model: str, scanned: bool) -> None:
    space, topology = build(kind, tie, model, scanned), topology_of(model)
    cost, allowed, members = tied(tie, model)
    for budget in budgets(settings_of(kind, tie), topology, 5):
        for point in (space.uniform(budget), space.solved(budget)):
            if point is None:
                assert not scanned
                continue
            widths = planned_widths(space.decode(point, seed=0), topology)
            error = abs(share_of(topology, widths) - budget)
            if error <= 0.01 * budget:
                continue
            # Else no two groups, at any of their widths, come nearer.
            here = np.array([widths[names[0]] for names in members], dtype=np.float64)
            for pair in itertools.combinations(range(len(here)), 2):
                every_way = itertools.product(*(allowed.neighbours(here, group, 2) for group in pair))
                rows = np.tile(here, (25, 1))
                found = np.array(list(every_way))
                rows = rows[: len(found)]
                rows[:, pair] = found
                assert np.abs(cost.shares(rows) - budget).min() >= error - 1e-9


@every
def test_the_baselines_are_points_of_the_space(kind: str, tie: str, model: str, scanned: bool) -> None:
    """Optuna warns of values outside, and a sampler cannot model them."""
    space, topology = build(kind, tie, model, scanned), topology_of(model)
    chosen = settings_of(kind, tie)
    points = [space.uniform(budget) for budget in (1.0, *budgets(chosen, topology, 4))]
    points += [solved for budget in budgets(chosen, topology, 3) if (solved := space.solved(budget)) is not None]
    points += [space.encode(space.decode(points[1], seed=0))]
    points += [space.encode(PruningPlan(groups={next(iter(topology.widths)): GroupPlan(ratio=0.99)}))]
    for point in points:
        assert point.keys() >= space.distributions.keys()
        for name, one in space.distributions.items():
            assert one._contains(one.to_internal_repr(point[name])), (name, point[name])
    assert share_of(topology, planned_widths(space.decode(space.uniform(1.0), seed=0), topology)) == 1.0


@every
def test_the_baselines_come_back_as_they_were(kind: str, tie: str, model: str, scanned: bool) -> None:
    space, topology = build(kind, tie, model, scanned), topology_of(model)
    for budget in budgets(settings_of(kind, tie), topology, 4):
        for point in (space.uniform(budget), space.solved(budget)):
            if point is not None:
                plan = space.decode(point, seed=0)
                again = space.decode(space.encode(plan), seed=0)
                assert planned_widths(again, topology) == planned_widths(plan, topology)
                assert again.recovery == plan.recovery


#: Of 25 random points, how many at least decode to the same widths again. Repair may take widths out of what the few
#: parameters of the reduced space can say.
SAME = {"direct": 25, "guided": 23, "reduced": 17}


@pytest.mark.parametrize(("kind", "tie", "model", "scanned"), [case for case in CASES if case[1] != "stage"])
def test_plans_of_the_space_come_back(kind: str, tie: str, model: str, scanned: bool) -> None:
    space, topology = build(kind, tie, model, scanned), topology_of(model)
    random, same = np.random.default_rng(1), 0
    for _ in range(25):
        plan = space.decode(drawn(space, random, inner=0.9), seed=0)
        again = space.decode(space.encode(plan), seed=0)
        before, after = planned_widths(plan, topology), planned_widths(again, topology)
        same += before == after
        assert share_of(topology, after) == pytest.approx(share_of(topology, before), rel=0.02)
        assert {n: g.criterion for n, g in again.groups.items()} == {n: g.criterion for n, g in plan.groups.items()}
    assert same >= SAME[kind]


def test_a_hundred_groups_are_few_parameters_in_the_reduced_space() -> None:
    space = build("reduced", "none", "resnet", True, criterion_per_group=False, criteria=("l2",), learning_rate=0.1)
    assert len(topology_of("resnet").groups) > 8
    assert len(space.distributions) == 1 + 1 + 8
