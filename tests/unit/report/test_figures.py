from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
import pytest

from autoprune.front.convergence import convergence
from autoprune.front.front import Front
from autoprune.front.importance import Importance, ImportanceRow, Importances
from autoprune.records.candidate import CandidateRecord
from autoprune.records.objectives import COSTS
from autoprune.records.origins import Origin
from autoprune.report import figures
from autoprune.report.figure import json_values
from autoprune.report.history_figures import growth_figure, lineage_figure
from tests.unit.report.drawn import drawn
from tests.unit.report.noisy import DENSE_MS, dense, front_of, latency, measurement, record

GROUPS = [{"name": "a", "channels": 4}, {"name": "b", "channels": 8}]


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


def pareto(front: Front, cost: str) -> go.Figure:
    return drawn(figures.pareto(front, front.problem.objective(cost), figures.hover_texts(front)))


def pareto_3d(front: Front) -> go.Figure:
    return drawn(figures.pareto_3d(front, figures.hover_texts(front)))


def test_every_candidate_is_on_the_chart_once_under_its_origin() -> None:
    figure = pareto(front_of(study()), "multiply_adds")
    assert list(trace(figure, "dense").x) == [1000]
    assert list(trace(figure, "sampled").x) == [300, 100]
    assert list(trace(figure, "sampled").y) == [0.85, 0.60]
    assert list(trace(figure, "sampled").error_y.array) == [0.03, 0.01]
    assert list(trace(figure, "uniform").y) == [0.80]
    assert trace(figure, "uniform").marker.symbol == ("circle-open",), "candidate 1 beats it"
    assert trace(figure, "sampled").marker.symbol == ("circle", "circle")
    assert "candidate 1" in trace(figure, "sampled").text[0]
    assert "from candidate 0" in trace(figure, "sampled").text[0]
    assert "search" in figure.layout.yaxis.title.text


def test_no_origin_is_forgotten() -> None:
    assert set(figures.ORIGIN_COLOURS) == set(Origin)
    assert len(set(figures.ORIGIN_COLOURS.values())) == len(Origin)
    records = [record(n, measurement(0.5, 100 + n), origin=origin) for n, origin in enumerate(Origin)]
    assert {data.name for data in pareto(front_of(records), "multiply_adds").data} >= set(Origin)


def test_the_line_is_the_best_quality_for_each_cost() -> None:
    figure = pareto(front_of(study()), "multiply_adds")
    assert list(figure.data[-1].x) == [100, 300, 1000]
    assert list(figure.data[-1].y) == [0.60, 0.85, 0.90]


def test_the_line_of_one_cost_leaves_out_what_only_another_cost_keeps() -> None:
    """On the front by its size, but both larger in multiply-adds and worse than candidate 1."""
    small = record(4, measurement(0.7, 500, size_bytes=8))
    figure = pareto(front_of([*study(), small], ("quality", "multiply_adds", "size_bytes")), "multiply_adds")
    assert list(figure.data[-1].x) == [100, 300, 1000]
    by_size = pareto(front_of([*study(), small], ("quality", "multiply_adds", "size_bytes")), "size_bytes")
    assert list(by_size.data[-1].x) == [8, 1200, 4000]


def test_the_line_of_an_error_falls() -> None:
    records = [dense(0.1, 1000), record(1, measurement(0.2, 300)), record(2, measurement(0.5, 100))]
    figure = pareto(front_of(records, higher_is_better=False), "multiply_adds")
    assert list(figure.data[-1].y) == [0.5, 0.2, 0.1]


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
    line = pareto(front_of(records), "latency_ms").data[-1]
    assert list(line.x) == pytest.approx([3.0, 5.0, 10.0])
    assert list(line.y) == [0.60, 0.85, 0.90]


def test_the_cloud_has_front_and_dominated_and_only_what_was_timed() -> None:
    records = [*study(), record(4, measurement(0.99, 50))]
    figure = pareto_3d(front_of(records, ("quality", "latency_ms")))
    assert list(trace(figure, "front").z) == [0.90, 0.85, 0.60]
    assert list(trace(figure, "front").x) == [4000, 1200, 400]
    assert list(trace(figure, "front").y) == pytest.approx([10.0, 5.0, 3.0])
    assert list(trace(figure, "dominated").z) == [0.80]


def test_layers_shows_what_is_kept_of_each_group() -> None:
    front = front_of(study())
    figure = drawn(figures.layers(front, GROUPS))
    bars = {data.name: data for data in figure.data}
    assert list(bars["dense"].y) == [4, 8]
    assert list(bars["candidate 0"].y) == [4, 8], "a group that the plan leaves alone is whole"
    assert list(bars["candidate 1"].y) == [2, 8]
    assert list(bars["candidate 2"].y) == [1, 2]
    assert bars["candidate 2"].hovertext[1] == "b<br>2 of 8 kept<br>l1"


def test_the_menu_of_layers_shows_one_candidate_and_starts_with_the_knee() -> None:
    front = front_of(study())
    figure = drawn(figures.layers(front, GROUPS))
    buttons = figure.layout.updatemenus[0].buttons
    assert [button.label.split(":")[0] for button in buttons] == ["candidate 0", "candidate 1", "candidate 2"]
    for position, button in enumerate(buttons):
        (change,) = button.args
        assert change["visible"] == [True, *(other == position for other in range(3))]
    knee = front.members.index(front.knee())
    assert figure.layout.updatemenus[0].active == knee
    assert [data.visible for data in figure.data[1:]] == [position == knee for position in range(3)]


def test_progress_never_falls_and_adds_up_what_was_trained() -> None:
    front = front_of(study())
    figure = drawn(figures.progress(front, convergence(front)))
    volumes, trained = trace(figure, "hypervolume"), trace(figure, "samples trained")
    assert list(volumes.x) == [0, 1, 2, 3]
    assert list(volumes.y) == sorted(volumes.y)
    assert volumes.y[-1] == pytest.approx(front.hypervolume())
    assert volumes.y[0] < volumes.y[1]
    assert list(trained.y) == [0, 100, 150, 250]


def test_progress_of_an_error() -> None:
    front = front_of(
        [dense(0.1, 1000), record(1, measurement(0.2, 300)), record(2, measurement(0.5, 100))], higher_is_better=False
    )
    volumes = trace(drawn(figures.progress(front, convergence(front))), "hypervolume")
    assert volumes.y[-1] == pytest.approx(front.hypervolume())
    assert volumes.y[-1] > 0


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
    figure = drawn(figures.importance(Importances(trials=30, targets=("quality", "size", "equal"), parameters=rows)))
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
    for cost in COSTS:
        assert len(pareto(front, cost).data) >= 1
    assert len(drawn(figures.layers(front, GROUPS)).data) == 1 + len(records)
    assert all(
        not math.isnan(value) for value in trace(drawn(figures.progress(front, convergence(front))), "hypervolume").y
    )
    pareto_3d(front)


@pytest.mark.parametrize("studies", [1, 2])
def test_the_growth_is_drawn_against_samples_and_seconds(studies: int) -> None:
    figure = drawn(growth_figure([convergence(front_of(study()))] * studies))
    assert {(line.xaxis, line.yaxis) for line in figure.data} == {("x", "y"), ("x2", "y2")}
    assert figure.layout.xaxis.title.text == "samples processed"
    assert figure.layout.xaxis2.title.text == "seconds"
    assert figure.layout.yaxis2.matches == "y", "both halves have one scale"
    named = [line.name for line in figure.data if line.showlegend]
    assert named == ([] if studies == 1 else ["lowest to highest", "median"]), "a legend for both halves"


def test_a_lineage_has_a_line_from_each_parent() -> None:
    lines, *points = drawn(lineage_figure(front_of(study()))).data
    assert list(lines.x) == [1000, 300, None]
    assert list(lines.y) == [0.90, 0.85, None]
    assert [one.name for one in points] == ["dense", "uniform", "sampled"]


def test_json_has_no_arrays_and_no_nan() -> None:
    assert json_values({"x": np.array([1.0, math.nan]), "y": [(1, math.inf), "a"], "z": True}) == {
        "x": [1.0, None],
        "y": [[1, None], "a"],
        "z": True,
    }
