from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autoprune.errors import UnknownNameError
from autoprune.front import dominance
from autoprune.records.objectives import COSTS, timed_cost
from tests.unit.front.builders import dense, front_of, latency, measurement, problem_of, record

# Few distinct values, so that ties, equal points and dominance all happen.
clouds = hnp.arrays(
    float,
    st.tuples(st.integers(1, 14), st.integers(1, 4)),
    elements=st.sampled_from([-1.0, 0.0, 0.25, 0.5, 2.0, float("nan"), float("inf"), float("-inf")]) | st.floats(-3, 3),
)


def brute_force(points: np.ndarray) -> list[bool]:
    """The definition, point by point: finite, no other is at least as good everywhere, no earlier one is equal."""
    finite = [bool(np.isfinite(point).all()) for point in points]

    def beaten(at: int) -> bool:
        return any(
            finite[other] and (points[other] <= points[at]).all() and ((points[other] < points[at]).any() or other < at)
            for other in range(len(points))
            if other != at
        )

    return [finite[at] and not beaten(at) for at in range(len(points))]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(points=clouds)
@example(points=np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]))
def test_non_dominated_is_the_definition(points: np.ndarray) -> None:
    assert dominance.non_dominated(points).tolist() == brute_force(points)


def test_no_points_no_front() -> None:
    assert dominance.non_dominated(np.empty((0, 2))).tolist() == []
    assert problem_of(("quality", "parameters")).losses([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("points", "reference", "volume"),
    [
        ([[0.0, 0.0]], (1, 1), 1.0),
        ([[0.5, 0.25]], (1, 1), 0.375),
        # Two overlapping boxes: 0.8 * 0.2 + 0.3 * 0.7 - 0.3 * 0.2.
        ([[0.2, 0.8], [0.7, 0.3]], (1, 1), 0.31),
        # A dominated point adds nothing.
        ([[0.2, 0.8], [0.7, 0.3], [0.8, 0.9]], (1, 1), 0.31),
        # Nor does one on or beyond the reference, or one that is not finite.
        ([[0.5, 0.25], [1.0, 0.0], [-1.0, 2.0], [float("nan"), 0.0], [float("-inf"), 0.0]], (1, 1), 0.375),
        ([[1.0, 0.0]], (1, 1), 0.0),
        ([[-0.9, 0.1], [-0.5, 0.05]], (-0.4, 1), 0.455),
        ([[0.0, 0.0, 0.0], [0.5, 0.5, -1.0]], (1, 1, 1), 1.25),
    ],
)
def test_hypervolume_by_hand(points: list[list[float]], reference: tuple[float, ...], volume: float) -> None:
    assert dominance.hypervolume(np.array(points), reference) == pytest.approx(volume)


def test_hypervolume_of_nothing_is_zero() -> None:
    assert dominance.hypervolume(np.empty((0, 2)), (1, 1)) == 0.0


@settings(deadline=None, derandomize=True, max_examples=50)
@given(points=hnp.arrays(float, st.tuples(st.integers(1, 8), st.just(2)), elements=st.floats(0, 1)))
def test_the_front_alone_has_the_whole_hypervolume(points: np.ndarray) -> None:
    members = points[dominance.non_dominated(points)]
    assert dominance.hypervolume(members, (1.1, 1.1)) == pytest.approx(dominance.hypervolume(points, (1.1, 1.1)))


def test_an_unknown_objective_lists_the_known() -> None:
    problem_of(("quality", *COSTS))
    with pytest.raises(UnknownNameError, match=r"latency_ms, multiply_adds.*'latency'.*Did you mean 'latency_ms'"):
        problem_of(("quality", "latency"))


@pytest.mark.parametrize(("higher_is_better", "column"), [(True, [-0.9, -0.8]), (False, [0.9, 0.8])])
def test_quality_is_turned_to_be_minimised(higher_is_better: bool, column: list[float]) -> None:
    records = [dense(0.9), record(1, measurement(0.8, 500))]
    points = problem_of(higher_is_better=higher_is_better).losses(records)
    assert points[:, 0].tolist() == column
    assert points[:, 1].tolist() == [1000, 500], "a cost is always minimised"


def test_latency_is_rounded_to_the_noise_of_the_study() -> None:
    records = [
        dense(took=latency(1.0, half_width=0.05)),
        record(1, measurement(0.8, took=latency(0.52, half_width=0.1))),
        record(2, measurement(0.7, took=latency(0.48, half_width=0.2))),
        record(3, measurement(0.6)),
    ]
    assert COSTS["latency_ms"].noise(records) == pytest.approx(0.1), "the median half width of what was measured"
    column = COSTS["latency_ms"].losses(records)
    assert column[:3] == pytest.approx([1.0, 0.5, 0.5])
    assert np.isnan(column[3])


def test_latency_is_compared_by_its_ratio_not_by_the_clock() -> None:
    """A candidate that ran while the machine was slow is as quick as its pairs say."""
    slow_machine = record(1, measurement(0.8, took=latency(0.5, drift=3.0)))
    quick_machine = record(2, measurement(0.8, took=latency(0.7, drift=1.0)))
    cost = timed_cost()
    assert cost.value(slow_machine.search) > cost.value(quick_machine.search)
    column = COSTS["latency_ms"].losses([slow_machine, quick_machine])
    assert column[0] < column[1]


def test_latencies_without_noise_are_not_rounded() -> None:
    records = [
        record(number, measurement(0.8, took=latency(ratio, half_width=0.0)))
        for number, ratio in enumerate((0.51, 0.52))
    ]
    assert COSTS["latency_ms"].losses(records).tolist() == [0.51, 0.52]
    assert COSTS["latency_ms"].noise([dense()]) == 0.0


def test_candidates_of_the_same_widths_share_their_latency() -> None:
    """The same network measured twice is not twice on the front because the clock said two things."""
    same = {"a": (0, 2)}
    records = [
        dense(0.9, took=latency(1.0)),
        record(1, measurement(0.8, 500, took=latency(0.5)), kept=same),
        record(2, measurement(0.85, 500, took=latency(0.7)), kept={"a": (1, 3)}),
    ]
    ratios = COSTS["latency_ms"].losses(records)
    assert ratios[1] == ratios[2]
    assert [r.number for r in front_of(records, ("quality", "latency_ms")).members] == [0, 2]


@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=20))
def test_equal_values_share_their_mean_rank(values: list[int]) -> None:
    below = [sum(other < one for other in values) for one in values]
    expected = [low + (values.count(one) + 1) / 2 for low, one in zip(below, values, strict=True)]
    assert dominance.mean_ranks(np.array(values)).tolist() == expected
