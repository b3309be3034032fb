"""Parameters <-> plans: what Optuna samples from, and what any of its samples means."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from autoprune.errors import ConfigurationError
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.criteria import check_applicable
from autoprune.plan.plan import PruningPlan
from autoprune.plan.widths import planned_widths
from autoprune.proof.discover import prove
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.allocation.cost_model import CostModel
from autoprune.search.space.settings import SpaceSettings
from autoprune.search.space.space import Space, budgets, build_space, dense_plan, reach
from autoprune.structure.cost import STRUCTURE_COSTS
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.settings import space_of
from tests.zoo.convolutional import ResNet, vgg

SHARES = (0.75, 0.5, 0.25, 0.1)


@functools.cache
def resnet() -> Topology:
    model, inputs = ResNet(widths=(8, 12, 16), depth=1).eval(), torch.randn(2, 1, 8, 8)
    return prove(model, trace(model, inputs), inputs)


@functools.cache
def scan() -> Sensitivity:
    """Even groups cost twenty times as much quality as odd ones."""
    return Sensitivity(
        keep_shares=SHARES,
        added_loss={
            name: tuple(float(-(0.05 if number % 2 else 1.0) * np.log(share)) for share in SHARES)
            for number, name in enumerate(resnet().widths)
        },
        criterion="l2",
        samples_forward=0,
        samples_trained=0,
    )


def guided(settings: SpaceSettings | None = None, scanned: bool = True) -> Space:
    return build_space(settings or SpaceSettings(), resnet(), scan() if scanned else None)


def direct(**changes: object) -> Space:
    return build_space(space_of(space="direct", **changes), resnet(), None)  # type: ignore[arg-type]


def share_of(plan: PruningPlan, cost: str = "multiply_adds") -> float:
    """What a plan really costs, by the topology and not by the model that the space solved with."""
    return getattr(resnet().cost(planned_widths(plan, resnet())), cost) / getattr(resnet().cost({}), cost)


def added_loss(widths: dict[str, int]) -> float:
    """What the scan says that these widths cost in quality."""
    return sum(scan().added(name, width / resnet().widths[name]) for name, width in widths.items())


def largest_channel(cost: str = "multiply_adds") -> float:
    """Share of dense that the most expensive single channel costs in the dense model."""
    model = CostModel(resnet(), cost)
    return max(1.0 - model.share(model.channels - one) for one in np.eye(len(model.channels)))


def test_distributions_of_the_guided_space() -> None:
    chosen = space_of(min_budget=0.2, criteria=("l2", "l1", "taylor"), learning_rate=(0.01, 0.1))
    found = guided(chosen).distributions
    assert found["budget"] == FloatDistribution(0.2, 1.0, log=True)
    assert found["trust"] == FloatDistribution(0.0, 1.0)
    residuals = [name for name in found if name.startswith("residual/")]
    assert residuals == [f"residual/{name}" for name in resnet().widths]
    assert {found[name] for name in residuals} == {FloatDistribution(-1.0, 1.0)}
    assert found["criterion"] == CategoricalDistribution(("l2", "l1", "taylor"))
    assert found["learning_rate"] == FloatDistribution(0.01, 0.1, log=True)
    assert len(found) == 4 + len(resnet().groups)


def test_no_budget_below_what_can_be_reached() -> None:
    found = guided(space_of(min_budget=1e-9, max_ratio=0.5)).distributions["budget"]
    assert isinstance(found, FloatDistribution)
    half = {name: math.ceil(channels / 2) for name, channels in resnet().widths.items()}
    assert found.low == pytest.approx(resnet().cost(half).multiply_adds / resnet().cost({}).multiply_adds)


def test_without_a_scan_there_is_nothing_to_trust() -> None:
    space = guided(scanned=False)
    assert "trust" not in space.distributions
    assert space.solved(0.3) is None


def test_distributions_of_the_direct_space() -> None:
    space = direct(max_ratio=0.8)
    ratios = [name for name in space.distributions if name.startswith("ratio/")]
    assert ratios == [f"ratio/{name}" for name in resnet().widths]
    assert {space.distributions[name] for name in ratios} == {FloatDistribution(0.0, 0.8)}
    assert "budget" not in space.distributions
    assert space.solved(0.3) is None


@pytest.mark.parametrize("kind", ["guided", "direct"])
def test_a_single_choice_is_no_parameter(kind: str) -> None:
    one = space_of(space=kind, criteria=("l1",), learning_rate=0.03, optimizers=("adamw",), distillation=(0.5,))
    space = build_space(one, resnet(), scan())
    assert not {"criterion", "learning_rate", "optimizer", "distillation"} & space.distributions.keys()
    plan = space.decode(space.uniform(0.5), seed=0)
    assert {group.criterion for group in plan.groups.values()} == {"l1"}
    recovery = plan.recovery
    assert (recovery.learning_rate, recovery.optimizer, recovery.distillation.weight) == (
        pytest.approx(0.03),
        "adamw",
        0.5,
    )


def test_recovery_settings_are_parameters_when_there_is_a_choice() -> None:
    several = space_of(optimizers=("sgd", "adamw"), distillation=(0.0, 0.5), steps=7, recalibration=(33,))
    space = guided(several)
    parameters = space.uniform(0.5) | {"optimizer": "adamw", "distillation": 0.5, "learning_rate": 0.02}
    recovery = space.decode(parameters, seed=0).recovery
    assert (recovery.optimizer, recovery.distillation.weight, recovery.learning_rate) == ("adamw", 0.5, 0.02)
    assert (recovery.steps, recovery.recalibration.samples) == (7, 33)


def test_without_training_there_are_no_training_parameters() -> None:
    space = guided(space_of(steps=0, optimizers=("sgd", "adamw"), distillation=(0.0, 0.5)))
    assert not {"learning_rate", "optimizer", "distillation"} & space.distributions.keys()


@pytest.mark.parametrize("kind", ["guided", "direct"])
def test_one_criterion_for_all_or_one_for_each_group(kind: str) -> None:
    for per_group in (False, True):
        chosen = space_of(space=kind, criteria=("l1", "taylor"), criterion_per_group=per_group)
        space = build_space(chosen, resnet(), scan())
        names = sorted(name for name in space.distributions if name.startswith("criterion"))
        assert names == (sorted(f"criterion/{name}" for name in resnet().widths) if per_group else ["criterion"])
        parameters = space.uniform(0.5)
        parameters[names[0]] = "taylor"
        plan = space.decode(parameters, seed=0)
        taylor = {name for name, group in plan.groups.items() if group.criterion == "taylor"}
        assert taylor == ({names[0].removeprefix("criterion/")} if per_group else set(resnet().widths))


@pytest.mark.parametrize("kind", ["guided", "direct"])
@pytest.mark.parametrize("budget", [0.75, 0.4, 0.15, 0.06])
def test_uniform_is_uniform_and_hits_the_budget(kind: str, budget: float) -> None:
    space = build_space(space_of(space=kind), resnet(), scan())
    plan = space.decode(space.uniform(budget), seed=0)
    kept = {name: width / resnet().widths[name] for name, width in planned_widths(plan, resnet()).items()}
    # Nothing but rounding to whole channels tells the groups apart: one share is within a channel of all.
    lowest = max(kept[name] - 1 / resnet().widths[name] for name in kept)
    highest = min(kept[name] + 1 / resnet().widths[name] for name in kept)
    assert lowest <= highest
    assert share_of(plan) == pytest.approx(budget, abs=largest_channel())


def test_solved_follows_the_scan_and_hits_the_budget() -> None:
    space = guided()
    for budget in (0.6, 0.3, 0.12):
        parameters = space.solved(budget)
        assert parameters is not None
        plan = space.decode(parameters, seed=0)
        assert share_of(plan) == pytest.approx(budget, abs=largest_channel())
        widths = planned_widths(plan, resnet())
        uniform = planned_widths(space.decode(space.uniform(budget), seed=0), resnet())
        assert added_loss(widths) < 0.8 * added_loss(uniform)


@pytest.mark.parametrize("cost", STRUCTURE_COSTS)
def test_the_budget_is_of_the_cost_that_was_asked_for(cost: str) -> None:
    space = guided(space_of(cost=cost))
    plan = space.decode(space.uniform(0.3), seed=0)
    assert share_of(plan, cost) == pytest.approx(0.3, abs=largest_channel(cost))


def test_trust_goes_from_uniform_to_solved() -> None:
    space = guided()
    solved = space.solved(0.3)
    assert solved is not None
    assert space.decode(space.uniform(0.3) | {"trust": 1.0}, seed=0) == space.decode(solved, seed=0)
    assert space.decode(solved | {"trust": 0.0}, seed=0) == space.decode(space.uniform(0.3), seed=0)


def test_a_residual_widens_its_group() -> None:
    space = guided()
    name = "blocks.2.conv2"
    plain = planned_widths(space.decode(space.uniform(0.3), seed=0), resnet())
    wider = planned_widths(space.decode(space.uniform(0.3) | {f"residual/{name}": 1.0}, seed=0), resnet())
    assert wider[name] > plain[name]
    # What it gains is taken from the others, but for a channel by which the cost is set right.
    assert all(wider[other] <= plain[other] + 1 for other in plain if other != name)


@pytest.mark.parametrize("kind", ["guided", "direct"])
def test_warm_starts_lie_inside_the_distributions(kind: str) -> None:
    """Optuna warns of values outside, and a sampler cannot model them."""
    chosen = space_of(space=kind, min_budget=1e-6, max_ratio=0.9, distillation=(0.0, 0.3))
    space = build_space(chosen, resnet(), scan())
    points = [space.uniform(budget) for budget in (1.0, *budgets(chosen, resnet(), 6))]
    points += [solved for budget in budgets(chosen, resnet(), 3) if (solved := space.solved(budget)) is not None]
    for point in points:
        assert point.keys() == space.distributions.keys()
        for name, value in point.items():
            distribution = space.distributions[name]
            assert distribution._contains(distribution.to_internal_repr(value)), (name, value)


def parameters_of(distributions: dict[str, BaseDistribution]) -> st.SearchStrategy[dict[str, object]]:
    """Any values that the distributions allow, their ends included."""
    values: dict[str, st.SearchStrategy[object]] = {}
    for name, distribution in distributions.items():
        if isinstance(distribution, CategoricalDistribution):
            values[name] = st.sampled_from(distribution.choices)
        else:
            assert isinstance(distribution, FloatDistribution)
            values[name] = st.floats(distribution.low, distribution.high)
    return st.fixed_dictionaries(values)


WIDE = space_of(max_ratio=0.9, criterion_per_group=True, optimizers=("sgd", "adamw"), distillation=(0.0, 1.0))


@settings(max_examples=80, deadline=None)
@given(parameters=st.deferred(lambda: parameters_of(dict(guided(WIDE).distributions))), seed=st.integers(0, 2**31))
def test_any_parameters_of_the_guided_space_are_a_valid_plan(parameters: dict[str, object], seed: int) -> None:
    space = guided(WIDE)
    plan = space.decode(parameters, seed=seed)  # type: ignore[arg-type]
    assert space.decode(parameters, seed=seed) == plan, "decoding is a function"  # type: ignore[arg-type]
    assert PruningPlan.from_json(plan.to_json()) == plan
    assert plan.seed == seed
    assert list(plan.groups) == list(resnet().widths)
    assert all(0.0 <= group.ratio <= WIDE.structure.max_ratio for group in plan.groups.values())
    widths = planned_widths(plan, resnet())
    assert all(1.0 - widths[name] / resnet().widths[name] <= WIDE.structure.max_ratio + 1e-9 for name in widths)
    budget = parameters["budget"]
    assert isinstance(budget, float)
    assert share_of(plan) == pytest.approx(budget, abs=largest_channel())


DIRECT = space_of(space="direct", max_ratio=0.6)
GUIDED = SpaceSettings()


@settings(max_examples=80, deadline=None)
@given(parameters=st.deferred(lambda: parameters_of(dict(build_space(DIRECT, resnet(), None).distributions))))
def test_any_parameters_of_the_direct_space_are_a_valid_plan(parameters: dict[str, object]) -> None:
    plan = build_space(DIRECT, resnet(), None).decode(parameters, seed=3)  # type: ignore[arg-type]
    assert PruningPlan.from_json(plan.to_json()) == plan
    for name, group in plan.groups.items():
        asked, channels = parameters[f"ratio/{name}"], resnet().widths[name]
        # As asked, unless rounding to whole channels would take more than max_ratio: then one channel fewer.
        fewest = math.ceil(channels * (1 - DIRECT.structure.max_ratio) - 1e-9)
        assert group.ratio == asked or group.ratio == pytest.approx(1 - fewest / channels)
        assert 0.0 <= group.ratio <= DIRECT.structure.max_ratio
    widths = planned_widths(plan, resnet())
    assert all(
        widths[name] == pytest.approx(c * (1 - plan.groups[name].ratio), abs=1) for name, c in resnet().widths.items()
    )


def test_no_plan_of_the_direct_space_takes_more_of_a_group_than_max_ratio() -> None:
    """16 channels at a ratio of 0.6 round to 6 that stay, which is a ratio of 0.625."""
    space = direct(max_ratio=0.6)
    parameters = {name: 0.6 for name in space.distributions if name.startswith("ratio/")}
    widths = planned_widths(space.decode(parameters, seed=0), resnet())
    achieved = {name: 1.0 - width / resnet().widths[name] for name, width in widths.items()}
    assert max(achieved.values()) <= 0.6


def test_budgets_are_even_in_the_logarithm() -> None:
    found = budgets(space_of(min_budget=0.1), resnet(), 5)
    assert found[0] == pytest.approx(0.75)
    assert found[-1] == pytest.approx(0.1)
    assert np.diff(np.log(found)) == pytest.approx(np.full(4, np.log(0.1 / 0.75) / 4))
    assert budgets(SpaceSettings(), resnet(), 0) == []
    assert budgets(space_of(min_budget=0.12), resnet(), 1) == [pytest.approx(0.3)]
    assert min(budgets(space_of(min_budget=1e-9), resnet(), 4)) > 1e-6, "the smallest that can be reached"


def test_the_dense_plan_changes_nothing() -> None:
    plan = dense_plan(SpaceSettings(), resnet(), seed=4)
    assert planned_widths(plan, resnet()) == resnet().widths
    assert (plan.recovery.steps, plan.recovery.recalibration.samples, plan.seed) == (0, 0, 4)


def test_reach_names_the_ends() -> None:
    found = reach(space_of(max_ratio=0.5), resnet())
    assert found["largest"] == resnet().widths
    assert found["smallest"] == {name: math.ceil(channels / 2) for name, channels in resnet().widths.items()}
    share = resnet().cost(found["middle"]).multiply_adds / resnet().cost({}).multiply_adds
    assert share == pytest.approx(0.5, abs=largest_channel())


@pytest.mark.parametrize("chosen", [DIRECT, GUIDED], ids=["direct", "guided"])
def test_encode_is_the_way_back_for_plans_of_the_space(chosen: SpaceSettings) -> None:
    space = build_space(chosen, resnet(), None)
    for budget in (0.7, 0.3, 0.1):
        plan = space.decode(space.uniform(budget), seed=3)
        again = space.decode(space.encode(plan), seed=3)
        before, after = planned_widths(plan, resnet()), planned_widths(again, resnet())
        assert all(abs(before[name] - after[name]) <= 1 for name in before)
        assert again.recovery == plan.recovery


def test_encode_moves_a_plan_from_outside_to_the_edge() -> None:
    space = build_space(DIRECT, resnet(), None)
    name = next(iter(resnet().widths))
    point = space.encode(PruningPlan(groups={name: GroupPlan(ratio=0.99, criterion="random")}))
    assert point[f"ratio/{name}"] == DIRECT.structure.max_ratio
    assert point.keys() == space.distributions.keys()
    assert all(d.to_internal_repr(point[key]) is not None for key, d in space.distributions.items())


def test_each_group_chooses_among_the_criteria_that_fit_it() -> None:
    """vgg has a hidden linear layer without a norm: bn_scale is no choice there, and no obstacle elsewhere."""
    topology = trace(vgg(), torch.randn(2, 1, 8, 8))
    chosen = space_of(criteria=("bn_scale", "l2"), criterion_per_group=True)
    check_applicable(chosen.structure.criteria, topology, per_group=True)
    with pytest.raises(ConfigurationError, match=r"group '6' without one.*criterion_per_group"):
        check_applicable(chosen.structure.criteria, topology)
    space = build_space(chosen, topology, None)
    assert "criterion/0.0" in space.distributions
    assert "criterion/6" not in space.distributions
    plan = space.decode(space.uniform(0.5), seed=0)
    assert plan.groups["0.0"].criterion == "bn_scale"
    assert plan.groups["6"].criterion == "l2"


def test_the_direct_space_has_the_solved_allocation_of_a_scan() -> None:
    space = build_space(space_of(space="direct"), resnet(), scan())
    point = space.solved(0.3)
    assert point is not None
    widths = planned_widths(space.decode(point, seed=0), resnet())
    uniform = planned_widths(space.decode(space.uniform(0.3), seed=0), resnet())
    assert share_of(space.decode(point, seed=0)) == pytest.approx(0.3, rel=0.01)
    assert added_loss(widths) < 0.8 * added_loss(uniform)


def test_encode_finds_the_baselines_themselves() -> None:
    """Not only parameters with the same widths: what the sampler learns from is the point that was meant."""
    space = guided()
    for budget in (0.5, 0.2):
        solved = space.solved(budget)
        assert solved is not None
        for point in (space.uniform(budget), solved):
            found = space.encode(space.decode(point, seed=0))
            assert found["budget"] == pytest.approx(point["budget"], rel=0.01)
            for name, value in point.items():
                # Rounding hides a little of them.
                near = isinstance(value, float)
                assert found[name] == (pytest.approx(value, abs=0.25) if near else value)


def test_a_plan_that_is_encoded_before_the_scan_has_no_trust() -> None:
    plan = guided().decode(guided().uniform(0.4), seed=0)
    assert guided(scanned=False).encode(plan)["trust"] == 0.0
    assert "trust" not in guided(space_of(scan=False), scanned=False).encode(plan)
