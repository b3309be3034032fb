"""Figures alone from Python: objects of plotly, and files of pictures."""

from __future__ import annotations

import os
from pathlib import Path

import plotly.graph_objects as go
import pytest

import autoprune
from autoprune.errors import NotFoundError, UnknownNameError
from autoprune.front.front import Front
from tests.browser.chromium import CHROMIUM
from tests.slow import slow
from tests.unit.front.builders import problem_of
from tests.unit.report.noisy import dense, latency, measurement, record


def front() -> Front:
    whole = {"a": (0, 1, 2, 3)}
    records = [
        record(0, measurement(0.9, 1000, took=latency(1.0)), origin="dense", kept=whole),
        record(1, measurement(0.85, 300, took=latency(0.5)), kept={"a": (0, 2)}),
    ]
    return Front.of(records, problem_of(limits=autoprune.Limits(max_multiply_adds=500)))


def test_two_or_three_quantities_of_any_kind() -> None:
    flat = autoprune.figure(front())
    assert isinstance(flat, go.Figure)
    assert [shape.name for shape in flat.layout.shapes] == ["noise of the dense model (95 %)", "within the limits"]
    assert flat.layout.paper_bgcolor == "#ffffff"
    swapped = autoprune.figure(front(), x="quality", y="latency_ms", limits=autoprune.Limits())
    assert swapped.layout.yaxis.title.text == "latency (ms)"
    assert len(swapped.layout.shapes) == 1, "Limits() has none"
    space = autoprune.figure(front(), x="size_bytes", y="latency_ms", z="quality")
    assert {trace.type for trace in space.data} == {"scatter3d"}


def test_layers_of_the_front_and_of_one_candidate() -> None:
    (heat,) = autoprune.figure_layers(front()).data
    assert [list(row) for row in heat.z] == [[0.5]]
    _, own = autoprune.figure_layers(front(), candidate=1).data
    assert list(own.y) == [2]


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(UnknownNameError, match=r"a measured quantity must be one of .*quality"):
        autoprune.figure(front(), x="nothing")
    with pytest.raises(UnknownNameError, match="a split must be one of search, test"):
        autoprune.figure(front(), split="train")
    with pytest.raises(NotFoundError, match="a candidate"):
        autoprune.figure_layers(front(), candidate=7)
    assert not autoprune.figure(Front.of([dense()], problem_of()), split="test").data


@pytest.mark.parametrize("ending", [slow("png"), slow("svg")])
def test_a_figure_is_written_as_a_picture(ending: str, tmp_path: Path) -> None:
    if CHROMIUM is None and not os.environ.get("AUTOPRUNE_REQUIRE_BROWSER"):
        pytest.skip("no Chromium on this machine")
    path = tmp_path / f"front.{ending}"
    autoprune.figure(front()).write_image(path)
    start = {"png": b"\x89PNG", "svg": b"<svg"}[ending]
    assert path.read_bytes().startswith(start)
