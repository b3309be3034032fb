"""Run folders of every version that was ever written: they open for ever, whatever the code becomes.

`runs/v3` is a run of studies/digits with seed 0, without its weights, lock files and report.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import autoprune
from autoprune.cli.app import app

RUNS = Path(__file__).parent / "runs"


@pytest.fixture(params=["v3"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy: a report is written into a run folder."""
    return Path(shutil.copytree(RUNS / request.param, tmp_path / "run"))


def test_candidates_say_what_they_always_said(run: Path) -> None:
    study = autoprune.Study.open(run)
    assert len(study.records) == 16
    for record in study.records:
        folder = run / "candidates" / f"{record.number:05}"
        stored = json.loads((folder / "candidate.json").read_text(encoding="utf-8"))
        assert record.search.quality == stored["search"]["quality"]
        assert record.widths == {name: len(indices) for name, indices in stored["kept"].items()}
        assert (record.origin, record.parent) == (stored["origin"], stored["parent"])
        assert (record.samples_forward, record.samples_trained, record.samples_shared) == (
            stored["samples_forward"],
            stored["samples_trained"],
            0,
        )
        assert (record.test is not None) is (folder / "test.json").is_file()
    scan = json.loads((run / "sensitivity.json").read_text(encoding="utf-8"))
    assert study.samples().total == sum(record.samples_forward + record.samples_trained for record in study.records) + (
        scan["samples_forward"] + scan["samples_trained"]
    )
    assert study.ending is not None
    assert study.ending.reason == "trials"


@pytest.mark.parametrize(
    "command", [("front",), ("choose", "--max-drop", "0.05"), ("report",), ("solve", "--budget", "0.3")]
)
def test_commands_that_only_read_work(run: Path, command: tuple[str, ...]) -> None:
    name, *options = command
    found = CliRunner().invoke(app, [name, str(run), *options])
    assert found.exit_code == 0, found.output
    if name == "report":
        assert (run / "report.html").stat().st_size > 10_000
