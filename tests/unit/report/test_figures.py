from __future__ import annotations

import dataclasses
import math

import numpy as np
import plotly.graph_objects as go
import pytest

from autoprune.front.convergence import convergence
from autoprune.front.front import Front
from autoprune.front.importance import Importance, ImportanceRow, Importances
from autoprune.records.candidate import CandidateRecord
from autoprune.records.limits import Limits
from autoprune.records.objectives import COSTS
from autoprune.records.origins import Origin
from autoprune.report.figure import json_values
from autoprune.report.figures.cloud import cloud
from autoprune.report.figures.growth import growth_figure
from autoprune.report.figures.importance import importance
from autoprune.report.figures.layers import kept_shares, layer_bars
from autoprune.report.figures.lineage import lineage_figure
from autoprune.report.figures.parallel import parallel
from autoprune.report.figures.rungs import learning_curves
from autoprune.report.figures.trade_off import ORIGIN_NAMES, TradeOff, trade_off
from autoprune.report.hover import hover_texts
from autoprune.report.theme import ORIGIN_COLOURS
from tests.unit.report.drawn import drawn
from tests.unit.report.noisy import DENSE_MS, dense, front_of, latency, measurement, record

WIDTHS = {"a": 4, "b": 8}


def study() -> list[CandidateRecord]:
    return [
        dense(0.90, 1000, took=latency(1.0)),
        record(1, measurement(0.85, 300, took=latency(0.5, drift=2.0), error=0.03), parent=0, samples_trained=100),
        record(2, measurement(0.60, 100, took=latency(0.3)), kept={"a": (1,), "b": (0, 1)}, samples_trained=50),
        record(3, measurement(0.80, 400, took=latency(0.6)), origin="uniform", samples_trained=100),
    ]


def trace(figure: go.Figure, name: str) -> go.Scatter:
    (found,) = [data for data in figure.data if data.name == name]
    return found


def pareto(front: Front, cost: str, **view: object) -> go.Figure:
    return drawn(trade_off(front, TradeOff(x=cost, **view), hover_texts(front)))  # type: ignore[arg-type]


def line(figure: go.Figure) -> go.Scatter:
    (found,) = [data for data in figure.data if data.mode == "lines"]
    return found


def test_every_candidate_is_on_the_chart_once_under_its_origin() -> None:
    figure = pareto(front_of(study()), "multiply_adds")
    assert list(trace(figure, "dense model").x) == [1000]
    sampled, uniform = trace(figure, "sampled"), trace(figure, "uniform sweep")
    assert list(sampled.x) == [300, 100]
    assert list(sampled.y) == [0.85, 0.60]
    assert list(sampled.error_y.array) == pytest.approx([1.96 * 0.03, 1.96 * 0.01], abs=1e-4), "95 % intervals"
    assert list(uniform.y) == [0.80]
    assert list(sampled.customdata) == [1, 2]
    assert sampled.marker.size > uniform.marker.size, "candidate 1 beats the point of the sweep, which stays visible"
    assert "candidate 1: sampled, from candidate 0" in sampled.text[0]
    assert "-0.0500 against dense" in sampled.text[0]
    assert "multiply-adds 300: 30.0% of dense" in sampled.text[0]
    assert "0.50 (0.48 to 0.52) of dense" in sampled.text[0]
    assert "search" in figure.layout.yaxis.title.text


def test_what_is_beaten_or_stopped_is_pale_and_has_no_bars() -> None:
    halfway = dataclasses.replace(record(5, measurement(0.5, 200)), fidelity=0.5)
    figure = pareto(front_of([*study(), record(4, measurement(0.7, 500)), halfway]), "multiply_adds")
    stopped, (beaten, front) = trace(figure, "stopped early"), (one for one in figure.data if one.name == "sampled")
    assert (list(beaten.customdata), list(front.customdata), list(stopped.customdata)) == ([4], [1, 2], [5])
    assert beaten.marker.opacity < 0.5
    assert stopped.marker.opacity < 0.5
    assert beaten.error_y.array is None
    assert "stopped at 50% of its training" in stopped.text[0]


def test_where_everything_was_stopped_the_chart_reaches_as_far_as_that() -> None:
    stopped = [dataclasses.replace(record(n, measurement(0.5 + n / 10, 200 * n)), fidelity=0.5) for n in (1, 2)]
    low, high = pareto(front_of([dense(), *stopped]), "multiply_adds").layout.xaxis.range
    assert 10**low < 200
    assert 10**high > 1000


def test_no_origin_is_forgotten() -> None:
    assert set(ORIGIN_COLOURS) == set(ORIGIN_NAMES) == set(Origin)
    records = [record(n, measurement(0.5, 100 + n), origin=origin) for n, origin in enumerate(Origin)]
    assert {data.name for data in pareto(front_of(records), "multiply_adds").data} >= set(ORIGIN_NAMES.values())


def test_the_line_is_the_best_quality_for_each_cost() -> None:
    found = line(pareto(front_of(study()), "multiply_adds"))
    assert list(found.x) == [100, 300, 1000]
    assert list(found.y) == [0.60, 0.85, 0.90]


def test_the_line_of_one_cost_leaves_out_what_only_another_cost_keeps() -> None:
    """On the front by its size, but both larger in multiply-adds and worse than candidate 1."""
    small = record(4, measurement(0.7, 500, size_bytes=8))
    front = front_of([*study(), small], ("quality", "multiply_adds", "size_bytes"))
    assert list(line(pareto(front, "multiply_adds")).x) == [100, 300, 1000]
    assert list(line(pareto(front, "size_bytes")).x) == [8, 1200, 4000]


def test_the_line_of_an_error_falls() -> None:
    records = [dense(0.1, 1000), record(1, measurement(0.2, 300)), record(2, measurement(0.5, 100))]
    assert list(line(pareto(front_of(records, higher_is_better=False), "multiply_adds")).y) == [0.5, 0.2, 0.1]


def test_latency_is_drawn_as_the_ratio_times_denses_own_median() -> None:
    figure = pareto(front_of(study()), "latency_ms")
    sampled = trace(figure, "sampled")
    assert list(sampled.x) == pytest.approx([0.5 * DENSE_MS, 0.3 * DENSE_MS]), "a slow moment does not move a point"
    assert list(sampled.error_x.array) == pytest.approx([0.2, 0.2])
    assert list(sampled.error_x.arrayminus) == pytest.approx([0.2, 0.2])


def test_the_line_over_latency_leaves_out_what_was_not_timed() -> None:
    records = [
        record(4, measurement(0.95, 5000)),
        dense(0.90, 1000, took=latency(1.0)),
        record(5, measurement(0.88, 500)),
        record(1, measurement(0.85, 300, took=latency(0.5))),
        record(6, measurement(0.70, 200)),
        record(2, measurement(0.60, 100, took=latency(0.3))),
    ]
    found = line(pareto(front_of(records), "latency_ms"))
    assert list(found.x) == pytest.approx([3.0, 5.0, 10.0])
    assert list(found.y) == [0.60, 0.85, 0.90]


def test_any_two_quantities_on_either_split() -> None:
    tested = [
        dataclasses.replace(one, test=measurement(one.search.quality - 0.1, one.search.multiply_adds, split="test"))
        for one in study()[:2]
    ]
    front = front_of([*tested, *study()[2:]])
    figure = drawn(trade_off(front, TradeOff(x="quality", y="size_bytes", split="test")))
    assert list(trace(figure, "dense model").x) == pytest.approx([0.8])
    assert list(trace(figure, "sampled").customdata) == [1], "candidate 2 was not tested"
    assert figure.layout.xaxis.title.text == "accuracy (test split)"
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("linear", "log")
    linear = drawn(trade_off(front, TradeOff(log_x=False)))
    assert linear.layout.xaxis.type == "linear"


def test_what_limits_allow_and_the_noise_of_dense_are_shaded() -> None:
    limits = Limits(max_drop=0.2, max_multiply_adds=400)
    figure = pareto(front_of(study()), "multiply_adds", limits=limits)
    noise, region = figure.layout.shapes
    assert (noise.y0, noise.y1) == pytest.approx((0.9 - 1.96 * 0.01, 0.9 + 1.96 * 0.01))
    assert (noise.xref, noise.x0, noise.x1) == ("paper", 0, 1)
    assert region.x1 == pytest.approx(400)
    assert region.y0 == pytest.approx(0.7)
    low, high = figure.layout.xaxis.range
    assert 10**low < 100
    assert 10**high > 1000
    assert region.x0 == pytest.approx(10**low), "down to the end of the axis"
    assert len(pareto(front_of(study()), "multiply_adds").layout.shapes) == 1


def test_the_suggested_one_has_a_ring() -> None:
    front = front_of(study())
    figure = drawn(trade_off(front, TradeOff(), marked=(1,)))
    assert (list(trace(figure, "suggested").x), list(trace(figure, "suggested").y)) == ([300], [0.85])


def test_many_points_are_drawn_by_webgl() -> None:
    many = [record(number, measurement(0.5, 5000 + number)) for number in range(10, 1100)]
    kinds = {data.name: data.type for data in pareto(front_of([*study(), *many]), "multiply_adds").data}
    assert kinds["dense model"] == "scatter"
    assert "scattergl" in {data.type for data in pareto(front_of([*study(), *many]), "multiply_adds").data}


def test_the_cloud_has_front_and_dominated_and_only_what_was_timed() -> None:
    records = [*study(), record(4, measurement(0.99, 50))]
    figure = drawn(cloud(front_of(records, ("quality", "latency_ms"))))
    assert list(trace(figure, "front").z) == [0.85, 0.60]
    assert list(trace(figure, "front").x) == [1200, 400]
    assert list(trace(figure, "front").y) == pytest.approx([5.0, 3.0])
    assert list(trace(figure, "beaten or stopped").z) == [0.80]
    assert list(trace(figure, "dense model").z) == [0.90]


def test_the_heat_map_has_a_row_for_each_member_and_a_column_for_each_group() -> None:
    dropped = dataclasses.replace(record(4, measurement(0.5, 50), kept={"a": (1,), "b": (0,)}), dropped=("block",))
    (heat,) = drawn(kept_shares(front_of([*study(), dropped]), WIDTHS)).data
    assert list(heat.y) == ["candidate 1 (30%)", "candidate 2 (10%)", "candidate 4 (5%)"]
    assert list(heat.x) == ["a", "b", "block"]
    assert [list(row) for row in heat.z] == [[0.5, 1.0, 1.0], [0.25, 0.25, 1.0], [0.25, 0.125, 0.0]]
    assert heat.text[1][1] == "b<br>2 of 8 channels kept<br>chosen by l1"
    assert heat.text[2][2] == "block<br>dropped"


def test_bars_show_what_one_candidate_keeps_of_each_group() -> None:
    whole, own = drawn(layer_bars(study()[2], WIDTHS)).data
    assert (list(whole.y), list(own.y)) == ([4, 8], [1, 2])
    assert own.text[1] == "b<br>2 of 8 channels kept<br>chosen by l1"


def row_of(name: str, members: int, **shares: tuple[float, float, float, float]) -> ImportanceRow:
    """A row; shares: target -> (share, low, high, chance)."""
    targets = {
        target: Importance(share=share, low=low, high=high, chance=chance)
        for target, (share, low, high, chance) in shares.items()
    }
    return ImportanceRow(name=name, members=members, targets=targets)


def test_importance_has_a_bar_for_each_parameter_and_target() -> None:
    rows = (
        row_of("lr", 1, quality=(0.1, 0.0, 0.3, 0.2), size=(0.0, 0.1, 0.2, 0.3), equal=(0.6, 0.5, 0.8, 0.2)),
        row_of("criterion/*", 9, quality=(0.4, 0.2, 0.5, 0.2), size=(0.3, 0.2, 0.4, 0.1), equal=(0.2, 0.1, 0.3, 0.2)),
    )
    figure = drawn(importance(Importances(trials=30, targets=("quality", "size", "equal"), parameters=rows)))
    assert [bar.name for bar in figure.data] == ["equal", "size", "quality"]
    assert [bar.visible for bar in figure.data] == [True, "legendonly", True]
    assert len({bar.marker.color for bar in figure.data}) == 3
    equal, size, quality = figure.data
    assert list(equal.y) == ["lr", "criterion/* (9)"]
    assert list(equal.x) == [0.6, 0.2]
    assert list(equal.error_x.array) == pytest.approx([0.2, 0.1])
    assert list(equal.error_x.arrayminus) == pytest.approx([0.1, 0.1])
    assert list(size.error_x.arrayminus) == pytest.approx([0.0, 0.1]), "an interval above the share has no lower arm"
    assert list(equal.marker.opacity) == [1.0, 0.25], "no more than chance is pale"
    assert list(quality.marker.opacity) == [0.25, 1.0]
    assert equal.hovertext[0] == "lr<br>equal: 60%, 50% to 80%"
    assert figure.layout.yaxis.autorange == "reversed", "the most important is on top"


@pytest.mark.parametrize("records", [[], [dense()]], ids=["none", "dense only"])
def test_every_figure_works_with_next_to_nothing(records: list[CandidateRecord]) -> None:
    front = front_of(records)
    unmeasured = ("energy_mj", "latency_ms", "peak_memory_bytes")
    for cost in COSTS:
        assert len(pareto(front, cost).data) == len(records) * (cost not in unmeasured) * 2
    for figure in (kept_shares(front, WIDTHS), cloud(front), parallel(front), learning_curves(front)):
        drawn(figure)
    drawn(lineage_figure(front))
    drawn(growth_figure([convergence(front)]))


@pytest.mark.parametrize("by", ["samples", "seconds"])
def test_the_growth_of_several_studies_has_a_range_and_a_median(by: str) -> None:
    curve = convergence(front_of(study()))
    one, several = drawn(growth_figure([curve], by)), drawn(growth_figure([curve] * 2, by))
    assert [data.name for data in one.data] == ["this study"]
    assert list(one.data[0].x) == pytest.approx(list(curve[by]))
    assert list(one.data[0].y) == pytest.approx(list(curve["hypervolume"]), rel=1e-6)
    assert [data.name for data in several.data if data.showlegend is not False] == ["lowest to highest", "median"]
    beside = drawn(growth_figure([curve], by, curve))
    assert [data.name for data in beside.data] == ["this study", "uniform sweep alone"]


def test_a_lineage_has_a_line_from_each_parent() -> None:
    lines, *points = drawn(lineage_figure(front_of(study()))).data
    assert list(lines.x) == [1000, 300, None]
    assert list(lines.y) == [0.90, 0.85, None]
    assert [one.name for one in points] == ["dense model", "uniform sweep", "sampled"]


def test_parallel_coordinates_have_an_axis_for_each_quantity_and_better_is_up() -> None:
    halfway = dataclasses.replace(record(5, measurement(0.5, 200, took=latency(0.2))), fidelity=0.5)
    untimed = record(6, measurement(0.5, 200))
    front = front_of([*study(), halfway, untimed], ("quality", "latency_ms"))
    (lines,) = drawn(parallel(front)).data
    assert [one.label for one in lines.dimensions] == ["accuracy", "parameters", "multiply-adds", "latency (ms)"]
    assert list(lines.meta) == [0, 1, 2, 3], "neither what was stopped nor what lacks a number"
    quality, _, adds, _ = lines.dimensions
    assert list(quality.range) == [0.60, 0.90]
    assert list(adds.range) == [3, 2], "fewer are better, so they are on top"
    assert list(adds.values) == pytest.approx([3, np.log10(300), 2, np.log10(400)], rel=1e-4)
    assert adds.ticktext[0] == "100"
    assert adds.ticktext[-1] == "1k"


def test_learning_curves_end_where_training_ended() -> None:
    rungs = ((0.0, 0.3), (0.5, 0.6))
    looked = [dataclasses.replace(one, rungs=rungs) for one in study()[1:3]]
    halfway = dataclasses.replace(record(5, measurement(0.6, 200)), fidelity=0.5, rungs=rungs)
    figure = drawn(learning_curves(front_of([study()[0], *looked, halfway])))
    front, stopped = trace(figure, "front"), trace(figure, "stopped early")
    assert list(front.x) == [0.0, 0.5, 1.0, None] * 2
    assert list(front.y)[:4] == [0.3, 0.6, 0.85, None]
    assert list(stopped.x) == [0.0, 0.5, None]


def test_json_has_no_arrays_and_no_nan() -> None:
    assert json_values({"x": np.array([1.0, math.nan]), "y": [(1, math.inf), "a"], "z": True}) == {
        "x": [1.0, None],
        "y": [[1, None], "a"],
        "z": True,
    }
