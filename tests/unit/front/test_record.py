from __future__ import annotations

import dataclasses
import json
import math

import pytest

from autoprune.errors import StorageError
from autoprune.records.candidate import RECORD_VERSION, CandidateRecord
from autoprune.records.measurement import Measurement
from autoprune.records.objectives import timed_cost
from tests.unit.front.builders import dense, latency, measurement, record

FULL = record(
    7,
    measurement(0.8, 500, took=latency(0.5)),
    kept={"a": (0, 2, 5), "b.größe": (1,)},
    samples_trained=320,
    parent=3,
    note="diverged",
)


@pytest.mark.parametrize("given", [FULL, dense()], ids=["full", "dense"])
def test_a_record_survives_json(given: CandidateRecord) -> None:
    assert CandidateRecord.from_json(given.to_json()) == given


def test_the_test_measurement_is_kept_apart() -> None:
    tested = dataclasses.replace(FULL, test=measurement(0.7, split="test"))
    assert CandidateRecord.from_json(tested.to_json()) == FULL
    assert CandidateRecord.from_json(tested.to_json(), tested.test) == tested


def test_a_quality_that_is_no_number_survives_json() -> None:
    spoiled = record(1, measurement(float("nan"), 500))
    assert math.isnan(CandidateRecord.from_json(spoiled.to_json()).search.quality)


def test_widths_count_what_stays() -> None:
    assert FULL.widths == {"a": 3, "b.größe": 1}


def test_a_measurement_survives_and_leaves_out_what_it_does_not_know() -> None:
    taken = measurement(0.8, took=latency(0.5))
    data = json.loads(json.dumps(taken.to_dict()))
    assert Measurement.from_dict(data) == taken
    data["latencies"]["default"]["of_the_future"] = 1
    assert Measurement.from_dict({**data, "of_the_future": 1}) == taken
    assert math.isnan(timed_cost().value(measurement(0.8)))
    with pytest.raises(TypeError):
        taken.metrics["accuracy"] = 1.0  # type: ignore[index]


def test_a_later_version_is_refused() -> None:
    later = FULL.to_json().replace(f'"version": {RECORD_VERSION}', '"version": 99', 1)
    with pytest.raises(StorageError, match=rf"version must be 1 to {RECORD_VERSION}, but got 99\. Upgrade"):
        CandidateRecord.from_json(later)


@pytest.mark.parametrize(
    "change",
    [
        {"version": None},
        {"version": "x"},
        {"plan": None},
        {"plan": {"version": 1, "groups": {"a": {"ratio": 2}}}},
        {"kept": None},
        {"kept": [0, 1]},
        {"kept": {"a": 3}},
        {"search": None},
        {"search": {}},
        {"search": {"latencies": {"default": {}}}},
    ],
    ids=str,
)
def test_a_damaged_record_is_a_storage_error(change: dict[str, object]) -> None:
    with pytest.raises(StorageError, match="must"):
        CandidateRecord.from_json(json.dumps({**json.loads(FULL.to_json()), **change}))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "{", "3"])
def test_text_that_is_no_record_is_a_storage_error(text: str) -> None:
    with pytest.raises(StorageError, match=r"candidate\.json(: its version)? must"):
        CandidateRecord.from_json(text)


#: Records did not have these from the beginning.
LATER = ("version", "dropped", "parameters", "warm_start", "samples_shared")


@pytest.mark.parametrize("name", [name for name in json.loads(FULL.to_json()) if name not in LATER])
def test_a_missing_field_is_named(name: str) -> None:
    data = json.loads(FULL.to_json())
    del data[name]
    with pytest.raises(StorageError, match=name):
        CandidateRecord.from_json(json.dumps(data))


def test_a_record_of_version_1_drops_nothing() -> None:
    data = json.loads(FULL.to_json())
    del data["dropped"]
    assert CandidateRecord.from_json(json.dumps(data | {"version": 1})).dropped == ()


def test_rungs_survive_json() -> None:
    looked = dataclasses.replace(FULL, rungs=((0.0, 0.25), (0.25, 0.5)), fidelity=0.25)
    assert CandidateRecord.from_json(looked.to_json()) == looked
    assert looked.stopped
    assert not FULL.stopped


def test_a_record_of_version_2_was_not_looked_at_and_trained_to_the_end() -> None:
    data = json.loads(FULL.to_json())
    del data["rungs"], data["fidelity"]
    older = CandidateRecord.from_json(json.dumps(data | {"version": 2}))
    assert (older.rungs, older.fidelity) == ((), 1.0)


def test_records_share_what_equals_in_them() -> None:
    """The channels that stay are most of a record's size, and most candidates keep those of an ancestor."""
    text = record(1, measurement(0.9), kept={"a": (0, 300, 301), "b": (0, 1)}).to_json()
    one, other = CandidateRecord.from_json(text), CandidateRecord.from_json(text.replace("301", "302"))
    assert one.kept == {"a": (0, 300, 301), "b": (0, 1)}
    assert one.kept["b"] is other.kept["b"]
    assert other.kept["a"] == (0, 300, 302)
    for part in (lambda each: each.kept, lambda each: each.plan.groups):
        assert [*map(id, part(one))] == [*map(id, part(other))], "names"
