"""Latency learned from what was measured, as a cost like any other."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from autoprune.errors import ConfigurationError
from autoprune.plan.weights import WeightPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.cost_table import CostTable
from autoprune.search.allocation.cost_model import CostModel
from autoprune.search.allocation.latency_model import MIN_TRIALS_FOR_LATENCY, fit_latency
from autoprune.search.allocation.solver import allocate
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.unit.front.builders import latency, measurement, record
from tests.zoo.convolutional import ResNet


@functools.cache
def resnet() -> Topology:
    return trace(ResNet(widths=(8, 12, 16), depth=2).eval(), torch.randn(2, 1, 8, 8))


@functools.cache
def table() -> CostTable:
    return CostTable.of(resnet())


def true_ratio(widths: dict[str, int]) -> float:
    """A clock that takes a quarter for nothing, half for multiply-adds, and a quarter for the bytes."""
    operations, size = (CostModel(resnet(), axis) for axis in ("multiply_adds", "size_bytes"))
    row = operations.as_array(widths)
    return 0.25 + 0.5 * operations.share(row) + 0.25 * size.share(row)


def measured(count: int, noise: float = 0.0, seed: int = 0) -> list[CandidateRecord]:
    random, found = np.random.default_rng(seed), []
    for number in range(count):
        widths = {name: int(random.integers(1, channels + 1)) for name, channels in resnet().widths.items()}
        took = latency(true_ratio(widths) * float(np.exp(noise * random.normal())))
        kept = {name: tuple(range(width)) for name, width in widths.items()}
        found.append(record(number, measurement(0.9, took=took), kept=kept))
    return found


def test_what_was_measured_comes_out() -> None:
    fit = fit_latency(table(), measured(30))
    assert fit.candidates == 30
    assert fit.error <= fit.worst < 0.02
    for candidate in measured(10, seed=1):
        predicted = fit.model.cost(fit.model.as_array(candidate.widths))
        assert predicted == pytest.approx(true_ratio(candidate.widths), rel=0.02)
    assert fit.model.dense == pytest.approx(1.0, rel=0.02)


def test_the_error_is_that_of_candidates_it_has_not_seen() -> None:
    """With noise of 5 % no fit can be nearer than about that; one that has seen them all would claim so."""
    fit = fit_latency(table(), measured(24, noise=0.05))
    assert 0.02 < fit.error < 0.12
    assert fit.worst > 0.05


def test_it_never_falls_with_a_width() -> None:
    model, random = fit_latency(table(), measured(12, noise=0.2)).model, np.random.default_rng(2)
    for _ in range(20):
        widths = np.array([random.integers(1, channels) for channels in table().channels], dtype=np.float64)
        for one in np.eye(len(widths)):
            assert model.cost(widths + one) >= model.cost(widths) - 1e-12


def test_a_budget_of_latency_is_solved_like_any_other() -> None:
    model = fit_latency(table(), measured(30)).model
    found = allocate(model, None, 0.5, np.ones_like(model.channels))
    assert found.exact
    assert true_ratio(dict(found.widths)) == pytest.approx(0.5, rel=0.03)
    # A quarter is there without any channels.
    nothing = allocate(model, None, 0.1, np.ones_like(model.channels))
    assert not nothing.exact
    assert set(nothing.widths.values()) == {1}


def test_tied_groups_are_priced_together() -> None:
    leaders = [table().channels.index(channels) for channels in table().channels]
    alone, together = fit_latency(table(), measured(20)).model, fit_latency(table(), measured(20), leaders).model
    widths = dict(zip((8, 12, 16), (3.0, 7.0, 10.0), strict=True))
    spread = np.array([widths[channels] for channels in table().channels])
    assert together.cost(np.array([3.0, 7.0, 10.0])) == pytest.approx(alone.cost(spread))


def test_with_too_few_measured_there_is_no_latency() -> None:
    with pytest.raises(
        ConfigurationError, match=f"latency_ms must have {MIN_TRIALS_FOR_LATENCY} different .*got 7.*from trials"
    ):
        fit_latency(table(), measured(MIN_TRIALS_FOR_LATENCY - 1))
    # The same network twice is one, and those without a latency, without blocks or with masks are none.
    one, *_ = measured(MIN_TRIALS_FOR_LATENCY)
    others = [
        record(90, measurement(0.9)),
        record(91, measurement(0.9, took=latency(0.5)), weights=WeightPlan(sparsity=0.5)),
    ]
    with pytest.raises(ConfigurationError, match="got 7"):
        fit_latency(table(), [*measured(MIN_TRIALS_FOR_LATENCY - 1), measured(MIN_TRIALS_FOR_LATENCY - 1)[0], *others])
    assert fit_latency(table(), [*measured(MIN_TRIALS_FOR_LATENCY), one, *others]).candidates == MIN_TRIALS_FOR_LATENCY
