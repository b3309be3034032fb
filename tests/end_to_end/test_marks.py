"""The commands that write what a person decided, and where it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from autoprune.cli.app import app
from autoprune.front.run import Run
from tests.unit.front.builders import dense, measurement, record, run_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = run_of(tmp_path / "run", [])
    groups = [{"name": "a", "channels": 4}]
    settings = {"objectives": ["quality", "multiply_adds"]}
    run.folder.write_study(
        {"name": "x", "quality": "accuracy", "higher_is_better": True, "settings": settings, "groups": groups}
    )
    points = (dense(), record(1, measurement(0.8, 500)), record(2, measurement(0.7, 600)))
    for one in points:
        data = json.loads(one.to_json()) | {"kept": {"a": [0, 1]}}
        place = run.folder.path / "candidates" / f"{one.number:05d}"
        place.mkdir(parents=True)
        (place / "candidate.json").write_text(json.dumps(data))
    return run.folder.path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_a_mark_is_written_shown_and_removed(folder: Path) -> None:
    assert call("mark", folder).stdout == ""
    assert call("mark", folder, 2).exit_code == 0
    assert call("mark", folder).stdout == "2\n"
    shown = call("front", folder).stdout
    (line,) = (line for line in shown.splitlines() if "chosen" in line and "│" in line)
    assert line.split("│")[1].strip() == "2", "it is shown, although it is off the front"
    assert call("mark", folder, "--none").exit_code == 0
    assert "chosen" not in call("front", folder).stdout
    assert call("mark", folder, 1, "--none").exit_code == 2
    assert "must be a finished trial, but got 9, of 3" in call("mark", folder, 9).stderr


def test_the_best_candidate_within_limits_can_be_marked_at_once(folder: Path) -> None:
    found = call("choose", folder, "--max-drop", 0.2, "--mark")
    assert found.stdout == "1\n"
    assert "chosen" in found.stderr
    assert "The runner-up is candidate 2: multiply-adds 600 against 500" in found.stderr
    assert Run.open(folder).annotations.chosen == 1
    assert call("choose", folder, "--by", "quality").exit_code == 0
    assert Run.open(folder).annotations.chosen == 1, "without --mark nothing is written"


def test_weights_whose_deletion_came_first_are_told(folder: Path) -> None:
    Run.open(folder).folder.remove_weights(2)
    assert "The weights of candidate 2 were deleted" in call("mark", folder, 2).stderr


def test_notes_are_written_shown_replaced_and_removed(folder: Path) -> None:
    assert call("note", folder, "for the \x1b[31mphone", "--candidate", 1).exit_code == 0
    assert call("note", folder, "seed 0").exit_code == 0
    assert call("note", folder).stdout == "Note: seed 0\nNote on candidate 1: for the phone\n"
    assert call("note", folder, "--candidate", 1).stdout == "for the phone\n"
    shown = call("front", folder).stdout
    assert "for the phone" in shown
    assert "Note: seed 0" in shown
    rows = json.loads(call("front", folder, "--json").stdout)
    assert [(row["candidate"], row["chosen"], row["note"]) for row in rows][1] == (1, False, "for the \x1b[31mphone")
    assert "It replaces this note: for the phone" in call("note", folder, "other", "--candidate", 1).stderr
    assert call("note", folder, "", "--candidate", 1).exit_code == 0
    assert call("note", folder).stdout == "Note: seed 0\n"
    assert call("note", folder, "x", "--candidate", 9).exit_code == 2


def test_the_report_shows_marks_and_notes_as_text(folder: Path) -> None:
    call("mark", folder, 2)
    call("note", folder, "<script>alert(1)</script>", "--candidate", 1)
    assert call("report", folder).exit_code == 0
    page = (folder / "report.html").read_text()
    assert "Chosen: candidate 2." in page
    assert "Note on candidate 1: &lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert(1)" not in page
