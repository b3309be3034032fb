"""Pinned candidates side by side, as sections."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from autoprune.errors import NotFoundError
from autoprune.front.run import Run
from autoprune.records.annotations import Annotations
from autoprune.report.section import Section
from autoprune.report.sections.comparison import LayerData, comparison_sections, layer_data
from tests.unit.evil import EVIL
from tests.unit.front.builders import run_of
from tests.unit.front.test_compared import DENSE, HALF, ROWS, TABLE, THIRD
from tests.unit.report.drawn import drawn


@pytest.fixture
def run(tmp_path: Path) -> Run:
    found = run_of(tmp_path, [DENSE, HALF, THIRD])
    return replace(found, manifest=replace(found.manifest, groups=ROWS))


def times(widths: Mapping[str, int], dropped: Sequence[str]) -> Mapping[str, float]:
    return dict.fromkeys(("first.weight", "second.weight", "in.weight"), 0.1 * widths["a"])


LAYERS = LayerData(table=TABLE, latencies=times)


def by_anchor(sections: Sequence[Section]) -> dict[str, Section]:
    return {section.anchor: section for section in sections}


def test_numbers_widths_layers_and_training(run: Run) -> None:
    noted = Annotations(chosen=2, notes={1: "smooth\nand small"})
    found = by_anchor(comparison_sections(run, run.front(), [1, 2], LAYERS, noted))
    assert [*found] == ["comparison", "comparison-widths", "comparison-layers", "comparison-training"]
    table = found["comparison"].table
    assert table is not None
    assert table.head == ("", "dense", "candidate 1", "candidate 2 (chosen)")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["trained from"] == ("", "0", "1, 0")
    assert rows["masks"] == ("", "", "2:4, 50% zero")
    assert rows["dropped"] == ("", "", "block")
    assert rows["note"] == ("", "smooth ...", "")
    assert rows["multiply-adds"] == ("1,000", "700", "400")
    notes = found["comparison"].notes
    equal = "accuracy 0.9700 against 0.9700, within the noise of 0.0085 (90% confidence)."
    assert notes[0] == f"Candidate 1 against dense: {equal}"
    assert notes[1].startswith("Candidate 2 (chosen) against dense: accuracy 0.9250 against 0.9700, more than")
    assert notes[2].startswith("Candidate 1 against candidate 2: accuracy 0.9700 against 0.9250, more than")
    widths = found["comparison-widths"].table
    assert widths is not None
    assert widths.rows == (("a", "8", "4 (taylor)", "2 (l1)"), ("b", "4", "4", "1 (l1)"))
    layers = found["comparison-layers"]
    assert layers.table is not None
    assert layers.table.rows[2] == ("in.weight", "linear", "7", "7", "0", "0.8000", "0.4000", "")
    assert [picture.title for picture in layers.pictures] == [
        "Multiply-adds of each layer",
        "Predicted latency of each layer",
    ]
    assert "dense 1,063, candidate 1 343, candidate 2 (chosen) 84" in layers.pictures[0].text
    assert "At the end: candidate 1 0.9700 at 100%, candidate 2 (chosen) 0.9250 at 100%." in (
        found["comparison-training"].pictures[0].text
    )


def test_every_figure_is_one_of_plotly(run: Run) -> None:
    for section in comparison_sections(run, run.front(), [1, 2], LAYERS):
        json.dumps(section.plain(), allow_nan=False)
        for picture in section.pictures:
            assert drawn(picture.figure).data
            assert picture.text.endswith(".")


def test_what_is_not_known_is_left_out(run: Run) -> None:
    """A run of an earlier version stores no layers, and has no device profile."""
    assert layer_data(run) == LayerData(table=None, latencies=None)
    found = by_anchor(comparison_sections(run, run.front(), [1], layer_data(run)))
    assert [*found] == ["comparison", "comparison-widths", "comparison-training"]
    only_dense = by_anchor(comparison_sections(run, run.front(), [0], layer_data(run)))
    assert [*only_dense] == ["comparison", "comparison-widths"]
    with pytest.raises(NotFoundError):
        comparison_sections(run, run.front(), [99], LAYERS)


@pytest.mark.parametrize("name", EVIL)
def test_names_are_text_in_figures(name: str, run: Run) -> None:
    rows = (replace(ROWS[0], name="a"), replace(ROWS[1], name=f"<b>{name}</b>"))
    odd = replace(run, manifest=replace(run.manifest, groups=rows))
    for section in comparison_sections(odd, odd.front(), [1], LAYERS):
        for picture in section.pictures:
            assert "<b>" not in json.dumps(picture.figure["data"])
