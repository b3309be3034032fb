"""The scan as a heat map."""

from __future__ import annotations

import pytest

from autoprune.records.sensitivity import BlockSensitivity
from autoprune.report.figures.sensitivity import dropped_block_bars, heat_map
from tests.unit.report.drawn import drawn

ADDED = {"a": (0.1, 1.0), "b": (0.01, 10.0)}


def test_a_row_for_each_share_and_a_column_for_each_group() -> None:
    figure = drawn(heat_map(ADDED, (0.5, 0.25), {"a": 1.0, "b": 1.0}))
    (losses,) = figure.data
    assert [list(row) for row in losses.z] == [pytest.approx([-1.0, -2.0]), pytest.approx([0.0, 1.0])]
    assert [list(row) for row in losses.customdata] == [[0.1, 0.01], [1.0, 10.0]]
    assert list(losses.x) == ["a", "b"]
    assert list(losses.y) == ["keep 50%", "keep 25%"]
    assert (losses.zmin, losses.zmax) == (pytest.approx(-2.0), pytest.approx(1.0))


def test_what_trials_said_is_a_row_of_its_own() -> None:
    figure = drawn(heat_map(ADDED, (0.5, 0.25), {"a": 4.0, "b": 0.5}))
    losses, corrections = figure.data
    assert list(corrections.z[0]) == pytest.approx([2.0, -1.0])
    assert (corrections.zmin, corrections.zmax) == (-2.0, 2.0)
    assert (losses.xaxis, corrections.xaxis, corrections.yaxis) == (None, "x2", "y2")
    upper, lower = figure.layout.yaxis.domain, figure.layout.yaxis2.domain
    assert upper[0] - lower[1] == pytest.approx(0.08)
    assert (upper[1] - upper[0]) / 2 == pytest.approx(lower[1] - lower[0]), "rows are equally high"


def test_nothing_scanned_is_an_empty_map() -> None:
    (losses,) = drawn(heat_map({}, (), {})).data
    assert not losses.z


def test_a_bar_for_each_block_in_the_colour_of_what_goes() -> None:
    left = [
        BlockSensitivity(name=name, added_loss=loss, parameters=0.5, multiply_adds=0.2)
        for name, loss in (("a", 1.0), ("b", -1.0))
    ]
    (trace,) = drawn(dropped_block_bars(left)).data
    assert (list(trace.x), list(trace.y)) == (["a", "b"], [1.0, -1.0])
    assert list(trace.marker.color) == [0.2, 0.2]
    assert [list(row) for row in trace.customdata] == [[0.5, 0.2], [0.5, 0.2]]
