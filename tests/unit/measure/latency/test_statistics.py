"""Means and intervals."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import t as student
from scipy.stats import trim_mean

from autoprune.measure.latency.statistics import another, burst_mean, trimmed_mean


@pytest.mark.parametrize("count", [2, 5, 6, 12, 30])
def test_the_trimmed_mean(count: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64).tolist()
    assert trimmed_mean(values)[0] == pytest.approx(trim_mean(values, 0.2))


def test_of_few_values_the_interval_is_students() -> None:
    values = [1.0, 2.0, 4.0]
    mean, half = trimmed_mean(values)
    assert mean == pytest.approx(7 / 3)
    assert half == pytest.approx(student.ppf(0.975, 2) * torch.tensor(values).std().item() / math.sqrt(3))


def test_one_value_has_no_interval() -> None:
    assert trimmed_mean([2.0]) == (2.0, math.inf)


def test_one_burst_that_was_disturbed_hardly_moves_the_mean() -> None:
    calm = [0.99, 1.0, 1.01, 1.0, 1.02, 0.98]
    assert trimmed_mean([*calm[:5], 9.0])[0] == pytest.approx(trimmed_mean(calm)[0], abs=0.01)


@pytest.mark.parametrize("count", [3, 6, 10, 30])
def test_the_interval_covers_the_mean_as_often_as_it_says(count: int) -> None:
    draws = torch.randn(1000, count, generator=torch.Generator().manual_seed(0)).tolist()
    covered = sum(abs(mean) <= half for mean, half in map(trimmed_mean, draws))
    assert 0.93 <= covered / 1000 <= 0.975


def test_another_measurement_differs_by_more() -> None:
    assert another(0.01, 0.0) == pytest.approx(0.01 * math.sqrt(2))
    assert another(0.0, 0.01) == pytest.approx(0.0196 * math.sqrt(2))


def test_bursts_that_resemble_the_ones_before_tell_less() -> None:
    alternating, rising = [1.0, 2.0] * 5, [float(number) for number in range(10)]
    assert burst_mean(alternating) == trimmed_mean(alternating)
    assert burst_mean(rising)[1] > 2 * trimmed_mean(rising)[1]
    assert burst_mean([2.0]) == (2.0, math.inf)
    assert burst_mean([2.0] * 6) == (2.0, 0.0)


def test_the_interval_covers_the_mean_of_a_noise_that_lasts() -> None:
    """Where the interval of independent values covers it in four of five cases."""
    draws = torch.randn(1000, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lasting = [draws[:, 0]]
    for place in range(1, 30):
        lasting.append(0.6 * lasting[-1] + 0.8 * draws[:, place])
    rows = torch.stack(lasting, 1).tolist()
    plain, widened = (sum(abs(mean) <= half for mean, half in map(found, rows)) for found in (trimmed_mean, burst_mean))
    assert plain < 780
    assert widened > 880
