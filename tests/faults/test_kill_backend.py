"""kill -9 of a loop around SearchBackend at any moment: what was told is there, and the search goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoprune.search.backend import SearchBackend
from tests.faults.backend_victims import MOMENTS, killed_moments
from tests.unit.search.test_backend import finish, settings, structure
from tests.unit.study.small import journal_trials


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run folder for each moment, each left by a process that was killed."""
    folder = tmp_path_factory.mktemp("killed")
    assert killed_moments(folder) == list(MOMENTS)
    return folder


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at(moment: str, killed: Path) -> None:
    out = killed / moment
    for path in out.rglob("*.json"):
        json.loads(path.read_text())
    with SearchBackend(structure(), settings(), out) as backend:
        assert len(backend.run.records) == MOMENTS[moment][1]
        asked = finish(backend, out=3)
        assert len({proposal.number for proposal in asked}) == len(asked)
        numbers = [record.number for record in backend.run.records]
    assert len(numbers) == len({*numbers}) == 14
    states = {trial.number: trial.state.name for trial in journal_trials(out)}
    assert {states[number] for number in numbers} == {"COMPLETE"}
    assert "RUNNING" not in states.values()
    assert not list(out.rglob("*.tmp"))
