"""Measurement is plain data that can be written and read again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from autoprune.errors import ConfigurationError
from autoprune.records.measurement import DEFAULT_PROFILE, Latency, Measurement

LATENCY = Latency(
    latency_ms=2.0,
    low_ms=1.5,
    high_ms=2.5,
    dense_ms=4.0,
    ratio=0.5,
    ratio_low=0.4,
    ratio_high=0.6,
    backend="torch",
    rounds=30,
)


def measurement(latency: Latency | None) -> Measurement:
    return Measurement(
        split="search",
        quality=0.9,
        quality_error=0.01,
        metrics={"accuracy": 0.9, "recall": 0.8},
        parameters=100,
        multiply_adds=2000,
        size_bytes=500,
        latencies={} if latency is None else {DEFAULT_PROFILE: latency},
    )


@pytest.mark.parametrize("latency", [LATENCY, None])
def test_there_and_back_through_json(latency: Latency | None) -> None:
    found = measurement(latency)
    assert Measurement.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_masks_there_and_back_through_json() -> None:
    found = replace(measurement(LATENCY), nonzero_parameters=30, mask_latency=replace(LATENCY, ratio=1.01))
    data = json.loads(json.dumps(found.to_dict()))
    assert Measurement.from_dict(data) == found
    assert data["nonzero_parameters"] == 30
    assert data["mask_latency"]["ratio"] == 1.01


def test_a_record_of_the_time_when_it_was_called_masked() -> None:
    found = replace(measurement(LATENCY), mask_latency=replace(LATENCY, ratio=1.01))
    data = found.to_dict()
    data["masked"] = data.pop("mask_latency")
    assert Measurement.from_dict(data) == found


def test_a_record_from_before_there_were_masks() -> None:
    data = measurement(LATENCY).to_dict()
    del data["nonzero_parameters"], data["mask_latency"]
    found = Measurement.from_dict(data)
    assert found == measurement(LATENCY)
    assert (found.nonzero_parameters, found.mask_latency) == (100, None)


def test_nothing_but_zeros_is_not_all() -> None:
    assert replace(measurement(None), nonzero_parameters=0).nonzero_parameters == 0


def test_fields_of_a_later_version_are_left_out() -> None:
    data = {**measurement(LATENCY).to_dict(), "energy_joules": 3.0}
    assert Measurement.from_dict(data) == measurement(LATENCY)


def test_metrics_are_a_copy_that_can_not_change() -> None:
    with pytest.raises(TypeError):
        measurement(None).metrics["accuracy"] = 1.0  # type: ignore[index]


def test_deviations_that_no_metric_has_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="deviations must lie within 1e\\+60 of 0"):
        replace(measurement(None), deviations=(0.1, 1e308))
