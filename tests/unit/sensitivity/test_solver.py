"""From a budget to widths: the greedy path, and scaling onto a budget."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.errors import ConfigurationError
from autoprune.proof.discover import prove
from autoprune.records.cost_table import CostTable
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.allocation.allowed_widths import AllowedWidths, allowed_widths
from autoprune.search.allocation.cost_model import CostModel
from autoprune.search.allocation.solver import allocate, scale_to_budget, solve
from autoprune.structure.cost import STRUCTURE_COSTS
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.zoo.convolutional import ResNet, mobilenet

SHARES = (0.75, 0.5, 0.25, 0.1)


@functools.cache
def topology_of(name: str) -> Topology:
    model, inputs = (ResNet() if name == "resnet" else mobilenet()).eval(), torch.randn(2, 1, 8, 8)
    return prove(model, trace(model, inputs), inputs)


def groups() -> int:
    return len(topology_of("resnet").groups)


def whole(model: CostModel, floor: np.ndarray | None = None) -> AllowedWidths:
    """Every width from a floor on."""
    least = np.ones_like(model.channels) if floor is None else floor
    return AllowedWidths.of(least.astype(int).tolist(), [1] * len(least), model.channels.astype(int).tolist())


def sensitivity(weights: dict[str, float]) -> Sensitivity:
    """Added loss -weight * log(share): convex, and known everywhere."""
    return Sensitivity(
        keep_shares=SHARES,
        added_loss={name: tuple(float(-weight * np.log(s)) for s in SHARES) for name, weight in weights.items()},
        criterion="l2",
        samples_forward=0,
        samples_trained=0,
    )


def uneven(topology: Topology) -> Sensitivity:
    """Every other group costs a hundred times as much quality."""
    return sensitivity({name: 1.0 if number % 2 else 0.01 for number, name in enumerate(topology.widths)})


def total_loss(found: Sensitivity, model: CostModel, widths: np.ndarray) -> float:
    return sum(found.added(name, w / c) for name, w, c in zip(model.names, widths, model.channels, strict=True))


@pytest.mark.parametrize("axis", STRUCTURE_COSTS)
@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_the_path_goes_from_dense_to_the_floor_and_never_back(name: str, axis: str) -> None:
    topology = topology_of(name)
    model = CostModel(topology, axis)
    floor = np.maximum(1.0, np.ceil(model.channels * 0.1))
    path = solve(model, uneven(topology), floor)
    assert (path.widths[0] == model.channels).all()
    assert (path.widths[-1] == floor).all()
    assert (np.diff(path.widths, axis=0) <= 0).all()
    assert (np.diff(path.shares) < 0).all(), "each step saves something"
    assert path.shares[0] == 1.0
    assert path.shares[-1] == pytest.approx(model.share(floor), rel=1e-12)
    for widths, share in zip(path.widths, path.shares, strict=True):
        assert model.share(widths) == pytest.approx(share, rel=1e-12)


def test_path_at_any_budget() -> None:
    model = CostModel(topology_of("resnet"), "multiply_adds")
    path = solve(model, uneven(topology_of("resnet")), np.ones_like(model.channels))
    assert (path.at(1.0) == path.widths[0]).all()
    assert (path.at(5.0) == path.widths[0]).all(), "above dense there is nothing"
    assert (path.at(0.0) == path.widths[-1]).all(), "below the floor there is nothing"
    for step in (1, len(path.shares) // 2):
        assert path.at(float(path.shares[step])) == pytest.approx(path.widths[step])
    between = path.at(float(path.shares[3:5].mean()))
    assert between == pytest.approx((path.widths[3] + path.widths[4]) / 2)


def test_insensitive_groups_go_first() -> None:
    """Two groups of the same shape: the one that costs no quality is thinner at every budget."""
    model = CostModel(topology_of("resnet"), "multiply_adds")
    first, second = "blocks.0.conv1", "blocks.1.conv1"
    weights = dict.fromkeys(topology_of("resnet").widths, 1.0) | {first: 1e-4}
    path = solve(model, sensitivity(weights), np.ones_like(model.channels))
    narrow, wide = model.names.index(first), model.names.index(second)
    assert topology_of("resnet").widths[first] == topology_of("resnet").widths[second]
    for budget in (0.9, 0.7, 0.4):
        assert path.at(budget)[narrow] < path.at(budget)[wide]


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
@pytest.mark.parametrize("budget", [0.6, 0.3, 0.15])
def test_the_solved_allocation_loses_less_than_a_uniform_one_of_equal_cost(name: str, budget: float) -> None:
    topology = topology_of(name)
    model, found = CostModel(topology, "multiply_adds"), uneven(topology)
    floor = np.ones_like(model.channels)
    # Whole widths of the path at no more than the budget, against a uniform allocation at no less.
    path = solve(model, found, floor)
    greedy = path.widths[int(np.argmax(path.shares <= budget))]
    uniform = scale_to_budget(model, np.ones_like(model.channels), budget, whole(model, floor))
    assert model.share(greedy) <= budget
    assert total_loss(found, model, greedy) < 0.6 * total_loss(found, model, uniform)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.deferred(lambda: st.lists(st.floats(0.05, 8.0), min_size=groups(), max_size=groups())),
    budget=st.floats(0.01, 1.0),
    axis=st.sampled_from(STRUCTURE_COSTS),
    floor_share=st.floats(0.0, 0.4),
)
def test_scaling_hits_the_budget_to_a_channel(shape: list[float], budget: float, axis: str, floor_share: float) -> None:
    model = CostModel(topology_of("resnet"), axis)
    floor = np.maximum(1.0, np.ceil(model.channels * floor_share))
    widths = scale_to_budget(model, np.array(shape), budget, whole(model, floor))
    assert (widths == np.round(widths)).all()
    assert (widths >= floor).all()
    assert (widths <= model.channels).all()
    reachable = float(np.clip(budget, model.share(floor), 1.0))
    steps = [model.share(np.minimum(widths + one, model.channels)) - model.share(widths) for one in np.eye(len(widths))]
    back = [model.share(widths) - model.share(np.maximum(widths - one, floor)) for one in np.eye(len(widths))]
    assert abs(model.share(widths) - reachable) <= max(*steps, *back) + 1e-9


@pytest.mark.parametrize("axis", STRUCTURE_COSTS)
def test_budgets_out_of_reach_give_the_ends(axis: str) -> None:
    model = CostModel(topology_of("resnet"), axis)
    floor = np.full_like(model.channels, 2.0)
    ones = np.ones_like(model.channels)
    assert (scale_to_budget(model, ones, 1e-6, whole(model, floor)) == floor).all()
    assert (scale_to_budget(model, ones, 1.0, whole(model, floor)) == model.channels).all()
    assert (scale_to_budget(model, ones, 3.0, whole(model, floor)) == model.channels).all()


def test_scaling_keeps_the_shape() -> None:
    """A group asked to be twice as wide is, where neither end is in the way."""
    model = CostModel(topology_of("resnet"), "parameters")
    shape = np.ones_like(model.channels)
    wide = model.names.index("blocks.4.conv1")
    shape[wide] = 2.0
    shares = scale_to_budget(model, shape, 0.1, whole(model)) / model.channels
    peer = model.names.index("blocks.5.conv1")
    assert shares[wide] == pytest.approx(2 * shares[peer], abs=2 / 32)


def greedy(model: CostModel, found: Sensitivity, floor: np.ndarray) -> list[list[float]]:
    """The path by its definition: every step of every group is priced anew."""
    widths = model.channels.copy()
    rows = [widths.tolist()]
    while (widths > floor).any():
        prices = {}
        for group in np.flatnonzero(widths > floor):
            channels = model.channels[group]
            smaller = widths.copy()
            smaller[group] = max(floor[group], widths[group] - max(1.0, round(channels / 24)))
            added = found.added(model.names[group], smaller[group] / channels)
            added -= found.added(model.names[group], widths[group] / channels)
            prices[group] = (added / (model.cost(widths) - model.cost(smaller)), smaller)
        widths = prices[min(prices, key=lambda group: prices[group][0])][1]
        rows.append(widths.tolist())
    return rows


@pytest.mark.parametrize("axis", STRUCTURE_COSTS)
@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_the_path_is_the_greedy_one(name: str, axis: str) -> None:
    topology = topology_of(name)
    model, random = CostModel(topology, axis), np.random.default_rng(0)
    found = sensitivity({name: float(np.exp(random.normal())) for name in topology.widths})
    floor = np.maximum(1.0, np.ceil(model.channels * 0.2))
    assert solve(model, found, floor).widths.tolist() == greedy(model, found, floor)


def test_an_allocation_says_whether_it_is_exact() -> None:
    model = CostModel(topology_of("resnet"), "multiply_adds")
    floor = np.maximum(1.0, np.ceil(model.channels * 0.3))
    found = allocate(model, uneven(topology_of("resnet")), 0.5, whole(model, floor))
    assert found.exact
    assert found.share == pytest.approx(0.5, rel=0.01)
    assert (
        found.share
        == topology_of("resnet").cost(dict(found.widths)).multiply_adds / topology_of("resnet").cost({}).multiply_adds
    )
    nearest = allocate(model, uneven(topology_of("resnet")), 0.01, whole(model, floor))
    assert not nearest.exact
    assert nearest.share == model.share(floor), "the smallest there is"


@pytest.mark.parametrize("axis", STRUCTURE_COSTS)
@pytest.mark.parametrize("budget", [0.7, 0.35, 0.15])
def test_one_scan_serves_every_cost(axis: str, budget: float) -> None:
    model = CostModel(topology_of("resnet"), axis)
    scanned = allocate(model, uneven(topology_of("resnet")), budget, whole(model))
    uniform = allocate(model, None, budget, whole(model))
    assert scanned.exact
    assert uniform.exact
    losses = [
        total_loss(uneven(topology_of("resnet")), model, model.as_array(found.widths)) for found in (scanned, uniform)
    ]
    assert losses[0] < 0.9 * losses[1]


@pytest.mark.parametrize("budget", [0.0, -1.0, 1.5, float("nan")])
def test_budgets_that_are_none(budget: float) -> None:
    model = CostModel(topology_of("resnet"), "multiply_adds")
    with pytest.raises(ConfigurationError, match=r"a budget must lie in \(0, 1\]"):
        allocate(model, None, budget, whole(model))


def test_bounds_of_widths() -> None:
    table = CostTable(
        names=("a", "b", "heads", "needy"),
        channels=(64, 5, 12, 16),
        least=(1, 1, 1, 12),
        kinds=("channels", "channels", "heads", "channels"),
        lengths=(),
        terms=(),
    )
    found = allowed_widths(table, 0.9, 8)
    assert found.top.tolist() == [64, 5, 12, 16]
    assert found.base.tolist() == [8, 1, 2, 16], "half the grain is below a tenth of 64 channels"
    assert found.neighbours(found.base, 1, 9).tolist() == [1, 2, 4, 5]
    assert found.neighbours(found.base, 2, 2).tolist() == [2, 3, 4], "heads go one by one"
    assert allowed_widths(table, 0.9, 1).base.tolist() == [7, 1, 2, 12]
    assert allowed_widths(table, 0.9, {"a": 16, "heads": 4}).base.tolist() == [8, 1, 2, 12]
