"""Importances in the report and on the command line: figure, tables, sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoprune.cli.app import app
from autoprune.front.importance import Importance, ImportanceRow, Importances, importances
from autoprune.front.run import Run
from autoprune.records.run_folder import RunFolder
from autoprune.report.html import write_report
from autoprune.report.terminal import show_importances
from tests.settings import study_of
from tests.unit.front.test_importance import EQUAL, OBJECTIVES, front, simulated
from tests.unit.report.test_html import Page


def run_folder(path: Path, trials: int | None) -> RunFolder:
    """A run folder with so many trials; None for one without a candidate."""
    folder = RunFolder(path)
    described = {"name": "digits", "groups": [], "unprunable": [], "quality": "accuracy", "higher_is_better": True}
    settings = study_of(objectives=OBJECTIVES)
    folder.write_study({**described, "settings": settings.to_dict()})
    for record in simulated(trials or 0):
        place = path / "candidates" / f"{record.number:05d}"
        place.mkdir(parents=True)
        (place / "candidate.json").write_text(record.to_json(), encoding="utf-8")
    return folder


def page(path: Path, trials: int | None) -> Page:
    return Page(write_report(Run.open(run_folder(path, trials).path)).read_text(encoding="utf-8"))


def test_the_report_shows_what_mattered(tmp_path: Path) -> None:
    shown = page(tmp_path, 40)
    assert "Which parameters mattered" in shown.headings
    assert sum("importances" in str(one.get("data-figure")) for _, one in shown.tags) == 1
    start = next(number for number, row in enumerate(shown.rows) if row[0] == "parameter")
    assert shown.rows[start] == ["parameter", "quality", "size_bytes", EQUAL]
    found = importances(front(simulated(40)))
    for row, cells in zip((*found.parameters, *found.members), shown.rows[start + 1 :], strict=False):
        assert cells == [row.name, *(str(row.targets[target]) for target in found.targets)]


def test_too_few_trials_are_told(tmp_path: Path) -> None:
    few = write_report(Run.open(run_folder(tmp_path, 5).path)).read_text(encoding="utf-8")
    assert "Which parameters mattered" in Page(few).headings
    assert "Importances need 20 trials that the sampler chose and that were trained to the end; there are 5." in few
    assert "importances-figure" not in few


def test_names_in_the_section_are_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Importance(share=0.5, low=0.4, high=0.6, chance=0.1)
    row = ImportanceRow(name="<b>x</b>", members=1, targets={"<i>": cell})
    evil = Importances(trials=20, targets=("<i>",), parameters=(row,), left_out={"<u>": "<s>"}, notes=("<em>",))
    monkeypatch.setattr("autoprune.report.sections.importances.importances", lambda _: evil)
    shown = page(tmp_path, None)
    assert ["<b>x</b>", "50%, 40% to 60%"] in shown.rows
    assert not {tag for tag, _ in shown.tags} & {"b", "i", "u", "s", "em"}


def test_the_command_prints_the_table(tmp_path: Path) -> None:
    run_folder(tmp_path, 40)
    answer = CliRunner().invoke(app, ["importances", str(tmp_path)])
    assert answer.exit_code == 0, answer.output
    assert "What mattered over 40 trials" in answer.output
    found = importances(front(simulated(40)))
    for row in (*found.parameters, *found.members):
        (line,) = [line for line in answer.output.splitlines() if f" {row.name} " in line]
        assert all(str(row.targets[target]) in line for target in found.targets)


def test_the_command_prints_json(tmp_path: Path) -> None:
    run_folder(tmp_path, 40)
    answer = CliRunner().invoke(app, ["importances", str(tmp_path), "--json"])
    found = importances(front(simulated(40)))
    printed = json.loads(answer.output)
    assert printed == found.to_dict()
    top = found.parameters[0].targets[EQUAL]
    assert printed["parameters"]["distillation"][EQUAL] == {
        "share": top.share,
        "low": top.low,
        "high": top.high,
        "chance": top.chance,
        "is_noise": False,
    }
    assert list(printed["members"]) == [row.name for row in found.members]
    assert (printed["trials"], printed["targets"]) == (40, list(found.targets))


@pytest.mark.parametrize("trials", [0, 3])
def test_the_command_says_that_there_is_too_little(tmp_path: Path, trials: int) -> None:
    run_folder(tmp_path, trials)
    expected = "Importances need 20 trials that the sampler chose and that were trained to the end; "
    answer = CliRunner().invoke(app, ["importances", str(tmp_path)])
    assert (answer.exit_code, answer.output.strip()) == (0, f"{expected}there are {trials}.")
    printed = json.loads(CliRunner().invoke(app, ["importances", str(tmp_path), "--json"]).output)
    assert printed["notes"] == [f"{expected}there are {trials}."]
    assert printed["parameters"] == {}


def test_the_command_fails_in_words_without_a_study(tmp_path: Path) -> None:
    missing = CliRunner().invoke(app, ["importances", str(tmp_path)])
    assert missing.exit_code == 2
    assert "must hold study.json" in missing.output


def test_what_is_left_out_is_told_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    cell = Importance(share=0.05, low=0.0, high=0.1, chance=0.2)
    row = ImportanceRow(name="criterion/a[red]b", members=1, targets={"quality": cell})
    show_importances(
        Importances(
            trials=20, targets=("quality",), parameters=(row,), left_out={"drop/[1]": "False in 20 of 20 trials"}
        )
    )
    printed = capsys.readouterr().out
    assert "criterion/a[red]b" in printed
    assert "(5%, 0% to 10%)" in printed, "in brackets: no more than chance"
    assert "left out: drop/[1], False in 20 of 20 trials" in printed
