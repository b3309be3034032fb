"""WorkerCrew: how long a trial has taken, and what becomes of one that takes too long."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from autoprune.errors import ConfigurationError
from autoprune.records.results import Results
from autoprune.records.run_folder import RunFolder
from autoprune.search.ledger import Ledger
from autoprune.search.proposal import Failure, Proposal, Result
from autoprune.search.search import Search
from autoprune.search.storage import open_journal
from autoprune.study.executors import worker_crew
from autoprune.study.executors.source import TaskSource
from autoprune.study.executors.unit import Unit
from autoprune.study.executors.worker_crew import WorkerCrew
from tests.unit.search.synthetic import PROBLEM, model, run_trial, settings


class Never(Executor):
    """An executor whose calls go on for ever."""

    def submit(self, fn: Callable[..., object], /, *args: object, **kwargs: object) -> Future[object]:  # type: ignore[override]
        future: Future[object] = Future()
        future.set_running_or_notify_cancel()
        return future


@dataclass
class Crewed:
    """A crew with one trial out, and the time that it is told."""

    folder: Path
    now: list[float] = field(default_factory=lambda: [0.0])

    def __post_init__(self) -> None:
        (self.folder / "run").mkdir()
        ledger = Ledger.of(open_journal(self.folder / "run"), PROBLEM)
        self.search = Search(model(), settings(), ledger=ledger, records=[])
        self.results = Results(RunFolder(self.folder / "run"))
        unit = Unit(folder=str(self.folder / "run"), source=TaskSource(), settings="{}")
        self.crew = WorkerCrew(Never(), 1, unit, self.results, self.search, timeout=60.0, clock=lambda: self.now[0])
        found = self.search.ask()
        assert found is not None
        self.proposal: Proposal = found
        self.crew.start(found)
        self.results.path.mkdir(exist_ok=True)
        self.results.begin(found.number)
        assert not self.crew.wait()

    def pass_seconds(self, seconds: float, step: float) -> None:
        """Let time pass, with a look at the trial in each step but the last."""
        while seconds > step:
            self.now[0] += step
            seconds -= step
            assert not self.crew.wait()
        self.now[0] += seconds


@pytest.fixture
def crewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crewed:
    monkeypatch.setattr(worker_crew, "_LOOK", 0.0)
    return Crewed(tmp_path)


def test_time_in_which_this_process_was_stopped_is_no_time_of_the_trial(crewed: Crewed) -> None:
    crewed.now[0] += 3600.0  # Ctrl-Z, and the next morning `fg`
    assert not crewed.crew.wait()
    assert crewed.crew.workers[0].seconds == 0.0
    crewed.pass_seconds(61.0, step=5.0)
    (ended,) = crewed.crew.wait()
    assert isinstance(ended.outcome, Failure)
    assert ended.outcome.message == "it took more than 60 s (workers.trial_timeout), and was ended"


def test_a_result_that_is_stored_counts_however_late_its_worker_is(crewed: Crewed) -> None:
    result = run_trial(crewed.search, crewed.proposal)
    assert isinstance(result, Result)
    crewed.results.write(crewed.proposal.number, crewed.proposal.to_json(), result.to_json(), b"")
    crewed.pass_seconds(61.0, step=5.0)
    (ended,) = crewed.crew.wait()
    assert ended.outcome == result
    assert crewed.crew.out == 0


def test_time_in_which_a_worker_makes_the_task_is_no_time_of_the_trial_and_has_a_limit(crewed: Crewed) -> None:
    number = crewed.proposal.number
    crew = WorkerCrew(
        Never(),
        1,
        Unit(folder=str(crewed.folder / "run"), source=TaskSource(), settings="{}"),
        crewed.results,
        crewed.search,
        timeout=60.0,
        task_timeout=600.0,
        clock=lambda: crewed.now[0],
    )
    crew.start(crewed.proposal)
    assert not crewed.results.worker(number)
    for seconds in range(0, 1000, 5):  # it waits for a worker
        crewed.now[0] += 5
        assert not crew.wait(), seconds
    crewed.results.prepare(number)
    for _ in range(119):
        crewed.now[0] += 5
        assert not crew.wait()
    assert not crew.workers
    crewed.now[0] += 3600.0  # Ctrl-Z
    assert not crew.wait()
    crewed.now[0] += 5
    assert not crew.wait()
    crewed.now[0] += 9
    with pytest.raises(ConfigurationError, match=r"within 600 s \(workers.task_timeout\), but got none yet from"):
        crew.wait()
    crewed.results.begin(number)
    assert not crew.wait()
    assert [one.trial for one in crew.workers] == [number]
