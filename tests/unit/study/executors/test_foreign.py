"""Executors of the user's: any of concurrent.futures but threads."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

import autoprune
from autoprune.errors import AutopruneError, ConfigurationError
from autoprune.records.candidate import CandidateRecord
from autoprune.study.executors import inline
from autoprune.trial.candidate import Candidate
from tests.tasks import flat_task
from tests.unit.study.small import comparable, settings


def study(out: Path, **changes: object) -> autoprune.Study:
    return autoprune.Study.create(flat_task(**changes), settings(), out=out)


def test_one_worker_gives_what_no_worker_gives(tmp_path: Path) -> None:
    here, elsewhere = (
        autoprune.Study.create(flat_task(), settings(trials=5), out=tmp_path / name) for name in ("here", "elsewhere")
    )
    here.run()
    assert any(record.parent for record in here.records), "all start from the dense model, which a worker has anyhow"
    front = elsewhere.run(workers=1)
    assert comparable(elsewhere.records) == comparable(here.records)
    assert [one.number for one in front.members] == [one.number for one in here.front().members]


@pytest.mark.slow
def test_a_pool_of_the_standard_library(tmp_path: Path) -> None:
    found = study(tmp_path / "run")
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        found.run(executor=pool)
        assert pool.submit(len, "still open").result() == 10, "it is the user's"
    assert len(found.records) == 8
    assert not (tmp_path / "run" / "task.pickle").exists()
    assert not (tmp_path / "run" / "results").exists()


@pytest.mark.slow
def test_a_broken_pool_ends_the_run_which_goes_on_with_another(tmp_path: Path) -> None:
    found = study(tmp_path / "run")
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        pool.submit(_die)
        with pytest.raises(AutopruneError, match="The executor runs no trials any more: BrokenProcessPool"):
            found.run(executor=pool)
    assert not found.stored.failures, "no trial is blamed for it"
    found.run(workers=1)
    assert len(found.records) == 8


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_without_workers_clears_up_after_workers_that_were_killed(tmp_path: Path) -> None:
    found = study(tmp_path / "run")
    found.run(trials=1)
    results = tmp_path / "run" / "results"
    results.mkdir()
    (results / "00001.begun").write_text("one:7")
    found.run(trials=2)
    assert not results.exists()


def test_threads_are_refused(tmp_path: Path) -> None:
    found = study(tmp_path / "run")
    with ThreadPoolExecutor(1) as pool, pytest.raises(ConfigurationError, match="run calls in other processes"):
        found.run(executor=pool)
    assert not found.records


def test_a_task_that_cannot_be_pickled_is_refused_before_any_trial_trains(tmp_path: Path) -> None:
    def predict(outputs: object, held: object = (one for one in "abc")) -> object:
        return outputs

    found = study(tmp_path / "run", predict=predict)
    with pytest.raises(ConfigurationError, match="the task must be one that can be sent to worker processes, or be"):
        found.run(workers=1)
    assert [str(record.origin) for record in found.records] == ["dense"]
    assert not (tmp_path / "run" / "task.pickle").exists()


@pytest.mark.slow
def test_settings_of_workers_may_change_from_run_to_run(tmp_path: Path) -> None:
    study(tmp_path / "run").run(trials=2)
    again = autoprune.Study.create(flat_task(), settings().changed({"workers.count": 1}), out=tmp_path / "run")
    again.run(trials=4)
    assert len(again.records) == 4


@pytest.mark.slow
@pytest.mark.parametrize(("how", "timed"), [("end", False), ("quiet", True)])
def test_latency_is_predicted_while_workers_train_and_measured_at_the_end(
    how: str, timed: bool, tmp_path: Path
) -> None:
    chosen = settings(objectives=("quality", "latency_ms"), latency_rounds=2, latency_backend="eager")
    chosen = chosen.changed({"workers.latency": how, "measure.latency_seconds": 0.05})
    found = autoprune.Study.create(flat_task(test=None), chosen, out=tmp_path / "run")
    seen: list[str] = []
    front = found.run(workers=1, on_progress=lambda progress: seen.append(progress.stage))
    assert not any(record.search.predicted for record in front.members)
    trained = [found.folder.path / "candidates" / f"{one.number:05d}" / "candidate.json" for one in found.records[1:]]
    at_first = [CandidateRecord.from_json(path.read_text()).search.latency for path in trained]
    assert all(latency is not None and latency.is_predicted is not timed for latency in at_first)
    whole = found.records[0].search.multiply_adds
    for record, latency in zip(found.records[1:], at_first, strict=True):
        if latency is not None and latency.is_predicted:
            assert latency.ratio == pytest.approx(record.search.multiply_adds / whole)
            assert latency.ratio_high == 1.0


@pytest.mark.slow
def test_a_run_without_workers_predicts_nothing_because_an_earlier_one_had_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(objectives=("quality", "latency_ms"), latency_rounds=2, latency_backend="eager")
    found = autoprune.Study.create(
        flat_task(test=None), chosen.changed({"measure.latency_seconds": 0.05}), out=tmp_path / "run"
    )
    found.run(trials=3, workers=1)
    predicted: list[Candidate] = []
    monkeypatch.setattr(inline, "measure_latency", lambda _, one: predicted.append(one) or one)
    found.run(trials=8)
    later = [record.search.latency for record in found.records[3:]]
    assert len(later) == 5
    assert not any(latency is None or latency.is_predicted for latency in later)
    assert not predicted
