"""TaskSource: where a worker takes the task from."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprune.records.run_folder import RunFolder
from autoprune.study.executors.source import TaskSource
from autoprune.study.script import ScriptPlace
from tests.end_to_end.script import write
from tests.tasks import flat_task


def test_a_process_that_works_for_two_runs_sees_what_the_script_says_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = ScriptPlace(path=write(tmp_path), start=tmp_path)
    first = TaskSource.of(RunFolder(tmp_path), flat_task(), place)
    assert first.load(RunFolder(tmp_path)).batch_size == 50
    write(tmp_path, change="arguments['batch_size'] = 25")
    second = TaskSource.of(RunFolder(tmp_path), flat_task(), place)
    assert second != first, "or a worker would take the task that it made for the first run"
    assert second.load(RunFolder(tmp_path)).batch_size == 25
