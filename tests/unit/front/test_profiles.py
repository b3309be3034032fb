"""Several latency profiles in one study: each is a cost, a limit and a column of its own."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from autoprune.errors import UnknownNameError
from autoprune.front.front import Front
from autoprune.front.table import text_table
from autoprune.records.limits import Limits
from autoprune.records.measurement import DEFAULT_PROFILE, Measurement
from autoprune.records.objectives import find_cost, timed_cost
from autoprune.records.problem import Problem

from .builders import DENSE_MS, dense, latency, measurement, problem_of, record

PROBLEM = problem_of(("quality", "latency_ms[batch32]"), profiles=("batch32",))


def _measured(quality: float, single: float, batch: float) -> Measurement:
    return replace(
        measurement(quality), latencies={DEFAULT_PROFILE: latency(single, 0.001), "batch32": latency(batch, 0.001)}
    )


DENSE = replace(dense(), search=_measured(0.9, 1.0, 1.0))
#: Fast alone, slow in a batch; and the other way round.
ALONE, BATCHED = record(1, _measured(0.8, 0.2, 0.9)), record(2, _measured(0.8, 0.9, 0.2))


def test_each_profile_is_an_objective() -> None:
    assert [one.number for one in Front.of([DENSE, ALONE, BATCHED], PROBLEM).members] == [0, 2]
    default = problem_of(("quality", "latency_ms"))
    assert [one.number for one in Front.of([DENSE, ALONE, BATCHED], default).members] == [0, 1]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_latency_ms": 0.5 * DENSE_MS}, 1),
        ({"max_latency_ms[batch32]": 0.5 * DENSE_MS}, 2),
        ({"max_latency_share": 0.5}, 1),
        ({"max_latency_share[batch32]": 0.5}, 2),
    ],
    ids=str,
)
def test_each_profile_has_limits(limits: dict[str, float], expected: int) -> None:
    front = Front.of([DENSE, ALONE, BATCHED], PROBLEM)
    assert front.choose(Limits(**limits), "quality").number == expected


def test_each_profile_has_columns() -> None:
    headings, rows = text_table(PROBLEM, DENSE, [ALONE])
    cells = dict(zip(headings, rows[0], strict=True))
    assert (cells["latency (ms)"], cells["latency, batch32 (ms)"]) == ("2.000", "9.000")
    row = Front.of([DENSE, ALONE], PROBLEM).row(ALONE)
    assert (row["latency_ratio"], row["latency_ratio[batch32]"]) == (0.2, 0.9)
    assert (row["latency_ms"], row["latency_ms[batch32]"]) == pytest.approx((2.0, 9.0))


def test_a_profile_that_the_study_does_not_have() -> None:
    with pytest.raises(UnknownNameError, match=r"latency_ms\[batch64\]"):
        replace(PROBLEM, objectives=("quality", "latency_ms[batch64]"))
    with pytest.raises(UnknownNameError, match=r"max_latency_share\[batch64\].*max_latency_share\[batch32\]"):
        replace(PROBLEM, limits=Limits(**{"max_latency_share[batch64]": 0.5}))


def test_no_other_cost_has_profiles() -> None:
    assert find_cost("size_bytes[batch32]") is None
    with pytest.raises(UnknownNameError, match="max_size_share"):
        replace(PROBLEM, limits=Limits(**{"max_size_share[batch32]": 0.5}))


def test_a_latency_that_is_missing_is_unknown() -> None:
    assert timed_cost("batch32").value(measurement(0.8)) != timed_cost("batch32").value(measurement(0.8))
    assert Problem(
        objectives=("quality", "latency_ms[a]"), metric="f1", higher_is_better=True, profiles=("a",)
    ).costs.keys() >= {"latency_ms", "latency_ms[a]"}


def test_a_measurement_with_one_latency_of_an_earlier_version() -> None:
    found = replace(_measured(0.8, 0.2, 0.9), latencies={DEFAULT_PROFILE: latency(0.2)})
    data = found.to_dict()
    data["latency"] = data.pop("latencies")[DEFAULT_PROFILE]  # type: ignore[index]
    assert Measurement.from_dict(json.loads(json.dumps(data))) == found
    assert Measurement.from_dict({**data, "latency": None}).latency is None
