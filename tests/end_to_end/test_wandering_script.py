"""Scripts that change the process they run in: the working directory, the way out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import autoprune
from tests.end_to_end.script import command, write


def test_a_task_that_changes_the_working_directory_moves_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    script = write(tmp_path / "mine", change=f"os.chdir({str(tmp_path / 'elsewhere')!r})")
    monkeypatch.chdir(tmp_path / "mine")
    answer = command("run", "study.py", "--out", "out", "--trials", 3)
    assert answer.code == 0, answer.text
    assert Path.cwd() == tmp_path / "elsewhere"
    assert list(Path.cwd().iterdir()) == []
    assert len(autoprune.Study.open(tmp_path / "mine" / "out").records) == 3
    assert (tmp_path / "mine" / "out" / "report.html").is_file()
    # The commands are for the directory in which the user is; what they name is the same candidate.
    number = re.search(r"autoprune export out --candidate (\d+)", answer.sentence)
    assert number is not None
    monkeypatch.chdir(script.parent)
    assert command("choose", "out", "--max-drop", "0.01").out.strip() == number.group(1)


def test_sys_exit_in_a_trial_is_no_end_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaving = "arguments['loss'] = lambda o, t: sys.exit(0) if o.requires_grad and armed() else loss(o, t)"
    script = write(tmp_path, change=leaving)
    armed = "import sys\n\n\ndef armed():\n    import pathlib\n    return pathlib.Path('out/candidates').is_dir()\n\n\n"
    script.write_text(script.read_text().replace("def loss(", f"{armed}def loss("))
    monkeypatch.chdir(tmp_path)
    answer = command("run", "study.py", "--out", "out", "--trials", 3)
    assert answer.code == 1
    assert "5 trials crashed one after the other, the last with SystemExit: 0" in answer.sentence
    study = autoprune.Study.open(tmp_path / "out")
    assert len(study.records) == 1, "the dense model, which trains nothing"
    assert study.ending is not None
    assert study.ending.reason == "error"
    shown = command("front", tmp_path / "out")
    assert "The run ended with 1 of 3 trials: 5 trials crashed" in shown.sentence


def test_workers_begin_where_the_script_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    script = write(tmp_path, change="assert os.path.basename(os.getcwd()) == 'data'")
    script.write_text(script.read_text().replace("import autoprune\n", "import autoprune\n\nos.chdir('data')\n", 1))
    monkeypatch.chdir(tmp_path)
    answer = command("run", "study.py", "--out", "out", "--trials", 2, "--workers", 1)
    assert answer.code == 0, answer.text
    assert len(autoprune.Study.open(tmp_path / "out").records) == 2
