"""A study in Optuna's own storages: whole, and fit for Optuna's own figures."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from typer.testing import CliRunner

import autoprune
from autoprune.cli.app import app
from autoprune.errors import AutopruneError, ConfigurationError, NotFoundError, StorageError
from autoprune.search.backend import SearchBackend
from autoprune.search.optuna_export import export_to_optuna
from autoprune.search.told import Details
from tests.unit.search.test_backend import finish, settings, structure


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a failure, a candidate that was stopped early, and a trial that is still out."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    with SearchBackend(structure(), settings(trials=16), folder) as backend:
        finish(backend, most=10)
        failed, stopped = backend.ask(), backend.ask()
        assert failed is not None
        assert stopped is not None
        backend.tell_failed(failed, "out of memory")
        backend.tell(stopped, quality=0.4, details=Details(fidelity=0.5, rungs=((0.0, 0.3), (0.5, 0.4)), note="odd"))
        finish(backend, most=2)
        assert backend.ask() is not None
    return folder


def loaded(storage: str, name: str = "run") -> optuna.Study:
    opened = storage if "://" in storage else JournalStorage(JournalFileBackend(storage))
    return optuna.load_study(study_name=name, storage=opened)


@pytest.mark.parametrize("kind", ["database", "journal"])
def test_a_study_is_copied_whole(kind: str, out: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'optuna.db'}" if kind == "database" else str(tmp_path / "optuna.log")
    before = (out / "journal.log").read_bytes()
    run = autoprune.Run.open(out)
    count = export_to_optuna(run, storage)
    assert (out / "journal.log").read_bytes() == before
    study, own = loaded(storage), loaded(str(out / "journal.log"), "autoprune").trials
    assert count == len(study.trials) == len(own)
    records = {record.number: record for record in run.records}
    for found, trial in zip(study.trials, own, strict=True):
        for name in (
            "number",
            "values",
            "params",
            "distributions",
            "datetime_start",
            "datetime_complete",
            "constraints",
        ):
            assert getattr(found, name) == getattr(trial, name), name
        assert trial.user_attrs.items() <= found.user_attrs.items()
        if found.number in records:
            assert found.user_attrs["quality"] == records[found.number].search.quality
            assert found.user_attrs["parameters"] == records[found.number].search.parameters
    assert study.directions == [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE]
    assert study.metric_names == ["quality", "multiply-adds"]
    states = {trial.number: trial.state.name for trial in study.trials}
    assert [number for number, state in states.items() if state == "PRUNED"] == [11]
    assert [number for number, state in states.items() if state == "FAIL"] == [10]
    assert list(states.values())[-1] == "RUNNING"
    stopped = study.trials[11]
    assert stopped.intermediate_values == {0: 0.3, 50: 0.4}
    assert (stopped.user_attrs["fidelity"], stopped.user_attrs["note"]) == (0.5, "odd")
    assert study.trials[10].user_attrs["error"] == "out of memory"
    assert {trial.number for trial in study.best_trials} <= set(records)
    with pytest.raises(ConfigurationError, match="Give another --name"):
        export_to_optuna(run, storage)
    assert export_to_optuna(run, storage, "again") == len(loaded(storage, "again").trials)


def test_the_figures_of_optuna_can_be_drawn(out: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    result = CliRunner().invoke(app, ["export-optuna", str(out), "--storage", storage, "--name", "mine"])
    assert result.exit_code == 0, result.output
    assert "trials are in sqlite:///" in result.stdout
    study, draw = loaded(storage, "mine"), optuna.visualization
    for figure in (draw.plot_pareto_front, draw.plot_timeline, draw.plot_intermediate_values):
        assert figure(study).data
    for one in (draw.plot_optimization_history, draw.plot_slice, draw.plot_parallel_coordinate, draw.plot_edf):
        assert one(study, target=lambda trial: trial.values[0], target_name="quality").data  # type: ignore[operator]


@pytest.mark.parametrize(
    ("storage", "error", "message"),
    [
        ("nothing://here", StorageError, "NoSuchModuleError"),
        ("sqlite:////not/there/optuna.db", StorageError, "unable to open"),
        ("postgresql+nodriver://me:secret@host/name", StorageError, r"//me:\*\*\*@host/name \(NoSuchModuleError"),
        ("/not/there/optuna.log", StorageError, "be a database that can be opened"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_told(
    storage: str, error: type[AutopruneError], message: str, out: Path
) -> None:
    with pytest.raises(error, match=message):
        export_to_optuna(autoprune.Run.open(out), storage)


def test_half_a_copy_does_not_stay(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, storage, left = autoprune.Run.open(out), f"sqlite:///{tmp_path / 'optuna.db'}", [3]
    original = optuna.Study.add_trial

    def failing(self: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError("No space left on device")
        original(self, trial)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "add_trial", failing)
        with pytest.raises(StorageError, match="No space left"):
            export_to_optuna(run, storage)
    assert optuna.get_all_study_names(storage) == []
    assert export_to_optuna(run, storage)


def test_a_run_without_a_readable_journal_is_refused(out: Path, tmp_path: Path) -> None:
    run = autoprune.Run.open(out)
    moved = tmp_path / "run"
    moved.mkdir()
    for name in ("study.json", "topology.json"):
        (moved / name).write_bytes((out / name).read_bytes())
    with pytest.raises(NotFoundError, match=r"hold journal\.log"):
        export_to_optuna(autoprune.Run.open(moved), str(tmp_path / "x.log"))
    lines = (out / "journal.log").read_bytes().splitlines(keepends=True)
    (moved / "journal.log").write_bytes(b"".join([*lines[:4], lines[4][:10], b"\n", *lines[5:]]))
    with pytest.raises(StorageError, match="be a journal of trials"):
        export_to_optuna(autoprune.Run.open(moved), str(tmp_path / "x.log"))
    assert run.records


def test_a_run_is_not_exported_into_the_journal_of_a_run(out: Path) -> None:
    journal = out / "journal.log"
    before = journal.read_bytes()
    with pytest.raises(ConfigurationError, match="--storage must lie outside run folders"):
        export_to_optuna(autoprune.Run.open(out), str(journal))
    assert journal.read_bytes() == before
