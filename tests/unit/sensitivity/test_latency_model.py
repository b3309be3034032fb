"""Latency learned from models that were timed, as a cost like any other."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.plan.weights import WeightPlan
from autoprune.proof.discover import discover_structure
from autoprune.records.candidate import CandidateRecord
from autoprune.records.cost_table import CostTable
from autoprune.records.device_profile import TimedModel
from autoprune.records.layer_table import LayerTable
from autoprune.records.objectives import timed_cost
from autoprune.search.allocation.allowed_widths import allowed_widths
from autoprune.search.allocation.cost_model import CostModel
from autoprune.search.allocation.latency_model import MIN_TIMED_MODELS, LatencyModel, fit_latency, timed_models
from autoprune.search.allocation.solver import allocate
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.unit.front.builders import latency, measurement, record
from tests.zoo.convolutional import ResNet


@functools.cache
def resnet() -> Topology:
    return trace(ResNet(widths=(8, 12, 16), depth=2).eval(), torch.randn(2, 1, 8, 8))


@functools.cache
def table() -> LayerTable:
    return LayerTable.of(resnet())


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


def fit(count: int, noise: float = 0.0) -> LatencyModel:
    return fit_latency(table(), timed_models(measured(count, noise)))


def test_what_was_timed_comes_out() -> None:
    found = fit(30)
    assert found.models == 30
    assert found.error <= found.worst < 0.05
    assert found.rank > 0.99
    cost = found.cost_model()
    for candidate in measured(10, seed=1):
        assert found.ratio(candidate.widths) == pytest.approx(true_ratio(candidate.widths), rel=0.03)
        assert cost.cost(cost.as_array(candidate.widths)) == pytest.approx(found.ratio(candidate.widths))
    assert cost.dense == pytest.approx(1.0, rel=0.03)


def test_the_costs_of_a_run_without_a_device_profile_do_as_well() -> None:
    found = fit_latency(LayerTable.of_costs(CostTable.of(resnet())), timed_models(measured(30)))
    assert found.error < 0.02
    assert found.ratio({}) == pytest.approx(1.0, rel=0.03)


def test_the_error_is_that_of_models_it_has_not_seen() -> None:
    """With noise of 5 % no fit can be nearer than about that; one that has seen them all would claim so."""
    found = fit(24, noise=0.05)
    assert 0.02 < found.error < 0.12
    assert found.worst > 0.05


def test_a_certain_measurement_counts_more_than_a_doubtful_one() -> None:
    right = timed_models(measured(24))
    wrong = [replace(one, ratio=3 * one.ratio, half_width=2.0) for one in right[:12]]
    assert fit_latency(table(), [*right, *wrong]).ratio({}) == pytest.approx(1.0, rel=0.05)


def test_it_never_falls_with_a_width() -> None:
    model, random = fit(12, noise=0.2).cost_model(), np.random.default_rng(2)
    for _ in range(20):
        widths = np.array([random.integers(1, channels) for channels in table().channels], dtype=np.float64)
        for one in np.eye(len(widths)):
            assert model.cost(widths + one) >= model.cost(widths) - 1e-12


def test_padding_and_a_slow_path_off_the_grain_are_learned() -> None:
    """A runtime that pads to multiples of 4, and takes a tenth longer where one width is none."""
    random, grains = np.random.default_rng(0), dict.fromkeys(table().names, 4)

    def clock(widths: dict[str, int]) -> float:
        padded = {name: -(-width // 4) * 4 for name, width in widths.items()}
        return true_ratio(padded) * (1.1 if any(width % 4 for width in widths.values()) else 1.0)

    def one(step: int) -> TimedModel:
        widths = {
            name: int(random.integers(1, channels // step + 1)) * step for name, channels in resnet().widths.items()
        }
        return TimedModel(widths=widths, ratio=clock(widths), half_width=0.01)

    timed = [one(step) for step in (4, 1, 4) for _ in range(12)]
    on_grid, off_grid = [one(4) for _ in range(10)], [one(1) for _ in range(10)]
    knows, ignores = fit_latency(table(), timed, grains), fit_latency(table(), timed)

    def error(model: LatencyModel, models: list[TimedModel]) -> float:
        return float(np.median([abs(model.ratio(other.widths) / other.ratio - 1.0) for other in models]))

    assert error(knows, on_grid) < 0.02
    assert error(knows, off_grid) < 0.5 * error(ignores, off_grid)
    widths = dict.fromkeys(table().names, 8)
    for width in (5, 7):
        off = dict.fromkeys(table().names, width)
        assert knows.ratio(off) == pytest.approx(clock(off), rel=0.15)
    assert knows.ratio(dict.fromkeys(table().names, 7)) >= knows.ratio(widths)
    assert knows.ratio(dict.fromkeys(table().names, 7)) > knows.ratio(dict.fromkeys(table().names, 4))


def test_below_one_grain_a_layer_takes_less_time_though_it_is_slower() -> None:
    """A runtime that pads to multiples of 4, or below 4 to 1 and 2, where each layer takes a third longer."""
    random, grains = np.random.default_rng(1), dict.fromkeys(table().names, 4)
    operations = CostModel(resnet(), "multiply_adds")

    def clock(widths: dict[str, int]) -> float:
        slower = 4 / 3 if min(widths.values()) < 4 else 1.0
        padded = {name: width if width <= 2 else -(-width // 4) * 4 for name, width in widths.items()}
        return 0.2 + 0.8 * slower * operations.share(operations.as_array(padded))

    def one(narrow: float) -> TimedModel:
        widths = {
            name: int(random.choice([1, 2] if random.random() < narrow else range(4, whole + 1, 4)))
            for name, whole in resnet().widths.items()
        }
        return TimedModel(widths=widths, ratio=clock(widths), half_width=0.01)

    found = fit_latency(table(), [one(narrow) for narrow in (0.0, 0.3, 1.0) for _ in range(14)], grains)
    for narrow, most in ((0.0, 0.03), (0.3, 0.12), (1.0, 0.03)):
        models = [one(narrow) for _ in range(10)]
        assert np.median([abs(found.ratio(other.widths) / other.ratio - 1.0) for other in models]) < most
    narrow_all, grain_all = (found.ratio(dict.fromkeys(table().names, width)) for width in (2, 4))
    assert narrow_all < 0.98 * grain_all
    assert (found.further[2] > 0).any()


def test_a_dropped_block_takes_no_time() -> None:
    topology = discover_structure(ResNet(widths=(8, 12), depth=2).eval(), torch.randn(2, 1, 8, 8))
    table, names = LayerTable.of(topology), [block.name for block in topology.blocks]
    assert names
    random = np.random.default_rng(0)

    def clock(widths: dict[str, int], dropped: list[str]) -> float:
        return 0.2 + 0.8 * topology.share(widths, dropped)

    timed = []
    for _ in range(30):
        widths = {name: int(random.integers(2, channels + 1)) for name, channels in topology.widths.items()}
        dropped = [name for name in names if random.random() < 0.5]
        timed.append(TimedModel(widths=widths, dropped=tuple(dropped), ratio=clock(widths, dropped), half_width=0.01))
    found = fit_latency(table, timed)
    assert found.error < 0.03
    assert found.ratio({}, names) == pytest.approx(clock({}, names), rel=0.03)
    cost = found.cost_model(names)
    assert cost.share(cost.channels) == pytest.approx(clock({}, names), rel=0.05)
    assert cost.dense == pytest.approx(1.0, rel=0.03)
    with pytest.raises(UnknownNameError, match="a dropped block must be one of"):
        found.ratio({}, ["none"])


def test_layers_add_up_to_the_latency_but_for_what_all_share() -> None:
    found = replace(fit(30), dense_ms=4.0)
    for widths in ({}, dict.fromkeys(table().names, 3)):
        each = found.layers(widths)
        assert [*each] == [*dict.fromkeys(one.layer for one in table().work)]
        assert sum(each.values()) / 4.0 + found.prices[-1] == pytest.approx(found.ratio(widths))


def test_a_prediction_says_that_it_is_one() -> None:
    found = replace(fit(30, noise=0.05), dense_ms=4.0, backend="onnxruntime")
    told = found.predict({})
    assert told.is_predicted
    assert told.latency_ms == pytest.approx(4.0 * found.ratio({}))
    assert told.ratio_low < told.ratio * (1 - found.error) < told.ratio * (1 + found.error) < told.ratio_high
    candidate = record(5, measurement(0.9, took=told))
    assert timed_models([candidate]) == [], "the model does not learn from itself"
    others = [record(6, measurement(0.9, took=latency(0.5)))]
    assert timed_cost().noise([*others, candidate]) == timed_cost().noise(others), "nor is its error noise of the clock"


def test_a_budget_of_latency_is_solved_like_any_other() -> None:
    model = fit(30).cost_model()
    allowed = allowed_widths(CostTable.of(resnet()), 0.95, 1)
    found = allocate(model, None, 0.5, allowed)
    assert found.exact
    assert true_ratio(dict(found.widths)) == pytest.approx(0.5, rel=0.04)
    # A quarter is there without any channels.
    nothing = allocate(model, None, 0.1, allowed)
    assert not nothing.exact
    assert set(nothing.widths.values()) == {1}


def test_tied_groups_are_priced_together() -> None:
    leaders = [table().channels.index(channels) for channels in table().channels]
    alone, together = fit(20).cost_model(), fit(20).cost_model(leaders=leaders)
    widths = dict(zip((8, 12, 16), (3.0, 7.0, 10.0), strict=True))
    spread = np.array([widths[channels] for channels in table().channels])
    assert together.cost(np.array([3.0, 7.0, 10.0])) == pytest.approx(alone.cost(spread))


def test_with_too_few_timed_there_is_no_latency() -> None:
    with pytest.raises(
        ConfigurationError, match=f"latency_ms must have {MIN_TIMED_MODELS} different .*got 7.*from trials.*profile"
    ):
        fit(MIN_TIMED_MODELS - 1)
    # The same network twice is one, and those without a latency or with masks are none.
    one, *_ = measured(MIN_TIMED_MODELS)
    others = [
        record(90, measurement(0.9)),
        record(91, measurement(0.9, took=latency(0.5)), weights=WeightPlan(sparsity=0.5)),
    ]
    with pytest.raises(ConfigurationError, match="got 7"):
        fit_latency(table(), timed_models([*measured(MIN_TIMED_MODELS - 1), one, *others]))
    both = timed_models([*measured(MIN_TIMED_MODELS), one, *others])
    assert fit_latency(table(), both).models == MIN_TIMED_MODELS + 1
