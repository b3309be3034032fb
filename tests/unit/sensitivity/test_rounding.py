"""Whole widths near fractional ones: allowed, near, and within a percent of the cost where that can be had."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.search.allocation.allowed_widths import AllowedWidths
from autoprune.search.allocation.cost_model import CostModel
from autoprune.search.allocation.rounding import TOLERANCE, round_to_budget
from autoprune.search.allocation.solver import fractional_widths, scale_to_budget
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.unit.sensitivity.chains import chain
from tests.zoo.convolutional import ResNet


@functools.cache
def resnet() -> Topology:
    return trace(ResNet(widths=(16, 24, 48), depth=3).eval(), torch.randn(2, 1, 8, 8))


def allowed_for(model: CostModel, grain: int, share: float = 0.0) -> AllowedWidths:
    """Widths on one grain, from a share of the dense ones on."""
    least = np.maximum(1.0, np.ceil(model.channels * share)).astype(int).tolist()
    return AllowedWidths.of(least, [grain] * len(least), model.channels.astype(int).tolist())


@st.composite
def problems(draw: st.DrawFn, most: int = 5) -> tuple[CostModel, np.ndarray, float, AllowedWidths]:
    """A cost model of up to `most` groups, a shape, a budget within reach, and what widths are allowed."""
    count = draw(st.integers(1, most))
    channels = draw(st.lists(st.integers(2, 40), min_size=count, max_size=count))
    positions = draw(st.lists(st.integers(1, 50), min_size=count, max_size=count))
    shape = np.array(draw(st.lists(st.floats(0.2, 3.0), min_size=count, max_size=count)))
    model = CostModel.of_table(chain(channels, positions), "multiply_adds")
    allowed = allowed_for(model, draw(st.sampled_from((1, 2, 4))), draw(st.floats(0.0, 0.3)))
    lowest = model.share(allowed.base)
    return model, shape, lowest + (1.0 - lowest) * draw(st.floats(0.0, 1.0)), allowed


def is_allowed(widths: np.ndarray, allowed: AllowedWidths) -> bool:
    inside = (widths >= allowed.base) & (widths <= allowed.top)
    return bool((inside & (allowed.nearest(widths) == widths) & (allowed.steps(widths) % 1 == 0)).all())


def is_near(widths: np.ndarray, exact: np.ndarray, allowed: AllowedWidths) -> np.ndarray:
    """Whether each group is off by a factor of two at most, or is beside its fractional width, [..., groups]."""
    beside = (widths == allowed.down(exact)) | (widths == allowed.up(exact))
    return np.asarray(beside | ((widths <= 2 * exact) & (exact <= 2 * widths)))


def neighbourhood(exact: np.ndarray, allowed: AllowedWidths) -> np.ndarray:
    """All near widths from one step below to one step above the two that each lies between."""
    choices = []
    for group, (low, high) in enumerate(zip(allowed.down(exact), allowed.up(exact), strict=True)):
        rows = [allowed.neighbours(np.where(np.arange(len(exact)) == group, w, exact), group, 1) for w in (low, high)]
        choices.append(np.unique(np.concatenate(rows)))
    every = np.array(list(itertools.product(*choices)))
    return np.asarray(every[is_near(every, exact, allowed).all(axis=1)])


@settings(max_examples=300, deadline=None)
@given(problem=problems())
def test_a_solution_nearby_is_found(problem: tuple[CostModel, np.ndarray, float, AllowedWidths]) -> None:
    """Against brute force: where any near widths cost within a percent, such are found, and others never are."""
    model, shape, budget, allowed = problem
    exact = fractional_widths(model, shape, budget, allowed)
    widths = round_to_budget(model, exact, budget, allowed)
    assert is_allowed(widths, allowed)
    error = abs(model.share(widths) - budget)
    nearest = np.abs(model.shares(neighbourhood(exact, allowed)) - budget).min()
    assert error <= TOLERANCE * budget or error <= nearest + 1e-9
    assert is_near(widths, exact, allowed).all()


@settings(max_examples=100, deadline=None)
@given(problem=problems(most=12))
def test_any_widths_are_allowed_ones(problem: tuple[CostModel, np.ndarray, float, AllowedWidths]) -> None:
    model, shape, budget, allowed = problem
    widths = scale_to_budget(model, shape, budget, allowed)
    assert is_allowed(widths, allowed)
    assert (widths == scale_to_budget(model, shape, budget, allowed)).all(), "a function"


@pytest.mark.parametrize("grain", [1, 4, 8])
def test_networks_of_some_depth_are_always_within_a_percent(grain: int) -> None:
    model, random = CostModel(resnet(), "multiply_adds"), np.random.default_rng(0)
    allowed = allowed_for(model, grain)
    lowest = model.share(allowed.base)
    for _ in range(150):
        budget = float(np.exp(random.uniform(np.log(1.3 * lowest), np.log(0.9))))
        shape = np.exp2(random.uniform(-1, 1, len(model.channels)))
        widths = scale_to_budget(model, shape, budget, allowed)
        assert model.share(widths) == pytest.approx(budget, rel=TOLERANCE)


def test_widths_that_cost_just_the_budget_stay() -> None:
    model = CostModel(resnet(), "multiply_adds")
    allowed = allowed_for(model, 1)
    widths = np.round(model.channels * 0.4)
    for seed in range(20):
        near = widths + np.random.default_rng(seed).uniform(-0.3, 0.3, len(widths))
        assert (round_to_budget(model, near, model.share(widths), allowed) == widths).all()


def test_where_one_group_rounded_to_its_other_side_costs_the_budget_no_other_is() -> None:
    model, random, cases = CostModel(resnet(), "multiply_adds"), np.random.default_rng(0), 0
    allowed = allowed_for(model, 1)
    for _ in range(300):
        exact = np.maximum(model.channels * random.uniform(0.2, 0.9, len(model.channels)), 2.0)
        nearest, budget = allowed.nearest(exact), model.share(exact)
        others = np.where(np.eye(len(exact)) > 0, allowed.down(exact) + allowed.up(exact) - nearest, nearest)
        errors = np.abs(model.shares(others) - budget)
        if errors.min() > 0.001 * budget or abs(model.share(nearest) - budget) <= 0.003 * budget:
            continue
        cases += 1
        widths = round_to_budget(model, exact, budget, allowed)
        assert (widths != nearest).sum() == 1
        assert abs(model.share(widths) - budget) == pytest.approx(errors.min(), abs=1e-12)
    assert cases > 20


def test_what_is_allowed_and_near() -> None:
    allowed = AllowedWidths.of([3, 1], [4, 1], [14, 5])
    assert list(allowed.base) == [4, 1]
    assert list(allowed.down(np.array([11.0, 2.5]))) == [8, 2]
    assert list(allowed.up(np.array([12.5, 2.5]))) == [14, 3]
    assert list(allowed.down(np.array([14.0, 5.0]))) == [14, 5]
    assert list(allowed.nearest(np.array([12.9, 2.5]))) == [12, 2]
    assert list(allowed.neighbours(np.array([14.0, 1.0]), 0, 2)) == [8, 12, 14]
    assert list(allowed.neighbours(np.array([14.0, 1.0]), 1, 2)) == [1, 2, 3]
    low, high = allowed.rounding_interval(np.array([12.0, 1.0]))
    assert list(low) == [10, 0]
    assert list(high) == [13, 1.5]
    assert allowed.rounding_interval(np.array([14.0, 5.0]))[1].tolist() == [np.inf, np.inf]


def test_groups_without_a_choice_stay() -> None:
    model = CostModel.of_table(chain([8, 8], [3, 3]), "multiply_adds")
    widths = scale_to_budget(model, np.ones(2), 0.1, AllowedWidths.of([8, 8], [1, 1], [8, 8]))
    assert (widths == 8).all()


@pytest.mark.parametrize(
    ("least", "grain", "top", "known"),
    [
        (1, 1, 6, [1, 2, 3, 4, 5, 6]),
        (1, 8, 26, [1, 2, 4, 8, 16, 24, 26]),
        (3, 4, 12, [4, 8, 12]),
        (2, 16, 10, [2, 4, 8, 10]),
        (5, 8, 6, [6]),
        (1, 6, 13, [1, 3, 6, 12, 13]),
        (7, 1, 7, [7]),
    ],
)
def test_allowed_are_multiples_of_the_grain_and_below_it_its_halves(
    least: int, grain: int, top: int, known: list[int]
) -> None:
    """In whatever place of an array the group stands."""
    both = AllowedWidths.of([1, least], [2, grain], [9, top])
    allowed = AllowedWidths.of([least], [grain], [top])
    for exact in np.linspace(0, top + 1, 8 * (top + 1) + 1):
        below, above = [w for w in known if w <= exact], [w for w in known if w >= exact]
        (down,), (up,) = allowed.down(np.array([exact])), allowed.up(np.array([exact]))
        assert down == (below[-1] if below else known[0])
        assert up == (above[0] if above else top)
        (near,) = allowed.nearest(np.array([exact]))
        assert near == min(known, key=lambda width: (abs(width - exact), width))
    exact = np.linspace(0, top + 1, 60)
    for way in ("down", "up", "nearest", "steps"):
        alone = np.concatenate([getattr(allowed, way)(np.array([one])) for one in exact])
        assert [getattr(both, way)(np.array([3.3, one]))[1] for one in exact] == pytest.approx(alone)
    assert allowed.steps(np.array(known)[:, None])[:, 0].tolist() == list(range(len(known)))
    for place, width in enumerate(known):
        near = list(allowed.neighbours(np.array([width]), 0, 2))
        assert near == known[max(place - 2, 0) : place + 3]
        (low,), (high,) = allowed.rounding_interval(np.array([width]))
        assert low == (0.0 if place == 0 else (known[place - 1] + width) / 2)
        assert high == (np.inf if width == top else (width + known[place + 1]) / 2)
