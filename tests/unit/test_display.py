"""Text of users is data in every medium: names, paths and errors that would be markup, tags, escapes or formulas."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import autoprune
from autoprune import display
from autoprune.cli import following
from autoprune.cli.app import app
from autoprune.cli.output import fail, print_path
from autoprune.errors import UnknownNameError, error_message
from autoprune.explaining.explain import explain_topology
from autoprune.explaining.explanation import show
from autoprune.front.repeats import Repeats
from autoprune.front.run import Run
from autoprune.report import terminal
from autoprune.search.settings import StudySettings
from autoprune.structure.reasons import UNKNOWN, Reason
from autoprune.structure.topology import Topology
from autoprune.structure.unprunable import UnprunableLayer
from autoprune.study.progress import Progress
from tests.unit.evil import EVIL, importances_of
from tests.unit.front.builders import dense, measurement, record, run_of


class Broken:
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(("name", "seen"), EVIL.items())
def test_what_stays_of_a_text(name: str, seen: str) -> None:
    assert display.printable_lines(name) == seen
    assert display.printable_lines(f"one\n{name}\ttwo") == f"one\n{seen}\ttwo"
    assert display.printable_line(f"one\n{name}\ttwo") == f"one {seen} two"


def test_ten_megabytes_and_what_has_no_text() -> None:
    text = display.printable_line("x" * 10_000_000)
    assert len(text) <= display.MAX_LINE
    assert "10,000,000 characters" in text
    assert display.printable_line(Broken()) == "<Broken whose str() raises ValueError>"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "＝1", "\x1b[31m=1"])
def test_text_in_a_csv_is_no_formula_and_numbers_stay_numbers(text: str) -> None:
    assert str(display.csv_cell(text)).startswith("'")
    assert display.csv_cell("a=1") == "a=1"
    assert [display.csv_cell(number) for number in (-1, -0.5)] == [-1, -0.5]


@pytest.mark.parametrize("name", EVIL)
def test_messages_hold_plain_text_of_limited_length(name: str) -> None:
    long = "y" * 1_000_000
    for message in (error_message(name, name, name), str(UnknownNameError("a metric", name + long, ["accuracy"]))):
        assert message.isprintable()
        assert len(message) < 20_000


def run_named(name: str, path: Path) -> Run:
    """A run whose metric has this name, with a candidate from a folder that somebody changed."""
    return run_of(path, [dense(), record(1, measurement(0.8, 500), note=name)], quality=name)


def topology_of(name: str) -> Topology:
    """A traced model in which this module is left alone, for this reason."""
    why = Reason(kind=UNKNOWN, detail=f"it is {name}", note=name, operator=name, module=name, line=name)
    left = UnprunableLayer(module=name, channels=3, of=3, why=why, group=name)
    return Topology(groups=(), unprunable=(left,), tensors={}, products=(), contractions=(), blocks=())


def shown(name: str, tmp_path: Path) -> None:
    """Everything that is printed, with this name wherever there is one."""
    run = run_named(name, tmp_path / "seed-0")
    front = run.front()
    terminal.show_front(front)
    terminal.show_candidate(front, front.members[-1])
    following.show_next(front, Path(name), tmp_path / name)
    terminal.show_importances(importances_of(name))
    show(explain_topology(topology_of(name), autoprune.SpaceSettings()))
    terminal.show_repeats(Repeats(runs=(run,)))


@pytest.mark.parametrize(("name", "seen"), EVIL.items())
def test_a_terminal_shows_text_as_text(
    name: str, seen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    shown(name, tmp_path)
    with following.live(FakeStudy()) as update:  # type: ignore[arg-type]
        update(progress_of(name))
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert seen in text
        assert all(character.isprintable() or character == "\n" for character in text), ascii(text)


@pytest.mark.parametrize(("name", "seen"), EVIL.items())
def test_a_real_terminal_gets_no_escapes_of_others(
    name: str, seen: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Styles of ours are escapes too; what is left without them is text."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "300")
    with following.live(FakeStudy()) as update:  # type: ignore[arg-type]
        update(progress_of(name))
    printed = capsys.readouterr().err
    assert f"a trial failed: {seen}" in printed
    assert f"{seen} (search)" in printed
    assert "title" not in printed
    assert "\x1b[2J" not in printed


class FakeStudy:
    """What `live` reads of a study."""

    settings = StudySettings()
    records = ()


def progress_of(name: str) -> Progress:
    return Progress(
        stage="trial",
        done=1,
        target=2,
        front=run_named(name, Path("run")).front(),
        elapsed_seconds=1.0,
        remaining_seconds=1.0,
        failed=name,
    )


@pytest.mark.parametrize(("name", "seen"), EVIL.items())
def test_the_message_of_an_error_is_text(name: str, seen: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="2"):
        fail(name, 2)
    assert capsys.readouterr().err == f"{seen}\n"


def test_a_path_is_text_on_a_terminal_and_bytes_in_a_pipe(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(os.fsdecode(b"a\x1b[2J\xff"))
    print_path(path)
    assert capfdbinary.readouterr().out == b"a\x1b[2J\xff\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_path(path)
    assert capfdbinary.readouterr().out == b"a\\udcff\n"


@pytest.mark.parametrize("name", ["[/x]", "=1+1", "error", "<b>", 'a"b,c', "half \ud800"])
def test_front_prints_csv_and_json_that_can_be_read_back(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [dense(), record(1, measurement(0.8, 500, error=0.25))]
    monkeypatch.setattr(Run, "open", lambda _: run_of(tmp_path, records, quality=name))
    rows = pd.read_csv(io.StringIO(CliRunner().invoke(app, ["front", str(tmp_path), "--csv"]).output))
    assert list(rows["origin"]) == ["dense", "sampled"]
    told = json.loads(CliRunner().invoke(app, ["front", str(tmp_path), "--json"]).output)
    assert told[1]["origin"] == "sampled"
    assert told[1]["latency_ms"] is None
    for row, known in ((dict(rows.iloc[1]), display.printable_line(name)), (told[1], name)):
        assert row[f"search_{known}"] == 0.8, "no other column takes its place"
        assert row[f"search_{known}_error"] == 0.25


def test_a_broken_limit_on_the_command_line_is_told_as_text(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["choose", str(tmp_path), "--limit", "[/x]\x1b[2J=1"])
    assert answer.exit_code == 2
    assert "but got '[/x]\\x1b[2J'" in answer.output


@pytest.mark.parametrize(
    ("value", "text"),
    [(25448.0, "25,448"), (25448.5, "25,448"), (25448, "25,448"), (0.63231, "0.6323"), (61.347, "61.35"), ("x", "x")],
)
def test_numbers_of_a_table_have_four_digits_and_no_exponent(value: object, text: str) -> None:
    assert display.number_text(value) == text
