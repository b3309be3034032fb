"""Everything measured, as arrays."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from autoprune.errors import UnknownNameError
from autoprune.front.front import Front
from autoprune.front.quantities import allowed_range, find_quantity, quantities
from autoprune.records.limits import Limits
from tests.unit.front.builders import dense, latency, measurement, problem_of, record


def front(higher_is_better: bool = True) -> Front:
    tested = measurement(0.8, 300, split="test", error=0.02)
    records = [
        dense(0.9, 1000, took=latency(1.0), error=0.01),
        record(1, measurement(0.85, 300, took=latency(0.5, drift=2.0), error=0.03), test=tested),
        record(2, replace(measurement(0.6, 100), metrics={"speckle": 7.0})),
    ]
    return Front.of(records, problem_of(higher_is_better=higher_is_better, metrics={"speckle": None, "absent": True}))


def test_what_was_measured_of_any_candidate_is_listed() -> None:
    assert list(quantities(front())) == [
        "quality",
        "speckle",
        "parameters",
        "size_bytes",
        "multiply_adds",
        "latency_ms",
    ], "neither a metric nor a cost that nobody has, nor parameters other than zero where all are"


def test_numbers_are_missing_where_they_were_not_measured() -> None:
    found = front()
    assert find_quantity(found, "quality").values(found).tolist() == [0.9, 0.85, 0.6]
    test = find_quantity(found, "accuracy").values(found, "test").tolist()
    assert (test[1], math.isnan(test[0]), math.isnan(test[2])) == (0.8, True, True)
    took = find_quantity(found, "latency_ms").values(found).tolist()
    assert took[:2] == pytest.approx([10.0, 5.0]), "the ratio times dense's own median"
    assert math.isnan(took[2])
    assert find_quantity(found, "speckle").values(found).tolist()[2] == 7.0
    assert find_quantity(found, "speckle").better == ""


def test_arms_reach_to_the_ends_of_the_interval() -> None:
    found = front()
    quality, took = (find_quantity(found, name).arms(found) for name in ("quality", "latency_ms"))
    assert quality is not None
    assert quality[0].tolist() == pytest.approx([0.0196, 0.0588, 0.0], rel=1e-3)
    assert took is not None
    assert took[0].tolist() == pytest.approx([0.0, 0.2, 0.0]), "the dense model against itself is 1"
    assert find_quantity(found, "multiply_adds").arms(found) is None


def test_limits_bound_the_quantities_that_they_name() -> None:
    found, limits = front(), Limits(max_drop=0.1, min_quality=0.7, max_latency_share=0.5)
    assert allowed_range(found, limits, find_quantity(found, "quality")) == (pytest.approx(0.8), math.inf)
    assert allowed_range(found, limits, find_quantity(found, "latency_ms")) == (-math.inf, pytest.approx(5.0))
    assert allowed_range(found, limits, find_quantity(found, "size_bytes")) == (-math.inf, math.inf)
    error = front(higher_is_better=False)
    assert allowed_range(error, Limits(max_drop=0.1), find_quantity(error, "quality")) == (
        -math.inf,
        pytest.approx(1.0),
    )


def test_what_there_is_not_is_told() -> None:
    with pytest.raises(UnknownNameError, match=r"a measured quantity must be one of absent, .*speckle, but got"):
        find_quantity(front(), "nothing")
    with pytest.raises(UnknownNameError, match="a split must be one of search, test"):
        find_quantity(front(), "quality").values(front(), "train")
