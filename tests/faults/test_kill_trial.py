"""A trial that ends its process at every start is left behind after three; without the dense model the run stops."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

import autoprune
from tests.faults.trial_victims import starts_of_each
from tests.unit.study.small import journal_trials


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """The run folders' parent, and how each start of each study ended."""
    folder = tmp_path_factory.mktemp("starts")
    return folder, starts_of_each(folder)


def test_after_three_starts_the_trial_is_left_behind(starts: tuple[Path, dict[str, list[str]]]) -> None:
    folder, found = starts
    assert found["uniform"][:3] == ["signal 9", "signal 11", "exit 0"]
    assert found["uniform"][3].startswith("done: trial 1: the process ended in this trial 3 times")
    study = autoprune.Study.open(folder / "uniform")
    assert [(record.number, record.origin) for record in study.records] == [(0, "dense"), (2, "sampled")]
    trial = journal_trials(folder / "uniform")[1]
    assert trial.state == TrialState.FAIL
    assert "the process ended in this trial 3 times" in trial.user_attrs["error"]
    assert (folder / "uniform" / "failures" / "00001.txt").is_file()


def test_without_the_dense_model_the_run_stops_and_says_so(starts: tuple[Path, dict[str, list[str]]]) -> None:
    folder, found = starts
    assert found["dense"][:3] == ["signal 9", "signal 11", "exit 0"]
    assert found["dense"][3].startswith("done: The dense model's own trial failed 3 times: the process ended in it")
    assert found["dense"][4] == "signal 11", "whoever starts it once more has it tried"
    study = autoprune.Study.open(folder / "dense")
    assert study.records == ()
    assert [trial.state for trial in journal_trials(folder / "dense")].count(TrialState.FAIL) == 0
