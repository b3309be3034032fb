"""Copies of a study in storages of Optuna, for its visualisations and other dashboards."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from autoprune.display import shorten, without_password
from autoprune.errors import AutopruneError, ConfigurationError, NotFoundError, StorageError, error_message
from autoprune.front.run import Run
from autoprune.records.advice import advises_doctor
from autoprune.records.candidate import CandidateRecord
from autoprune.records.problem import Problem
from autoprune.records.run_folder import STUDY
from autoprune.search.ledger import OUT_OF_MEMORY, STUDY_NAME, without_remarks
from autoprune.search.storage import JOURNAL

#: Step of an intermediate value at the end of a fine-tune: steps count per cent.
_WHOLE = 100


def export_to_optuna(run: Run, storage: str, name: str = "") -> int:
    """Copy the study of a run into a storage of Optuna. The run is not changed, and may go on meanwhile.

    Trials keep their numbers, states, times, parameters, values, constraints and attributes. A trial that was stopped
    early is PRUNED. The qualities at its rungs, and at its end, are its intermediate values, by per cent of the
    fine-tune. What was measured is in the attributes of the trial.

    Args:
        run: The run.
        storage: URL of a database, such as sqlite:///optuna.db or postgresql+psycopg://user@host/name, or path of a
            journal file.
        name: Name of the study there; that of the run when "".

    Returns:
        The number of trials.

    Raises:
        NotFoundError: The run has no trials yet.
        ConfigurationError: The storage is not known, lies in a run folder, or holds a study of that name.
        StorageError: The journal cannot be read, or the storage not be written.
    """
    path = run.folder.path / JOURNAL
    if not path.is_file():
        raise NotFoundError(error_message("a run to export", f"hold {JOURNAL}", f"{run.folder.path} without it"))
    _check_apart(storage)
    name, records = name or run.name, {record.number: record for record in run.records}
    with without_remarks():
        source = _read(path)
        with _opened(storage) as target:
            try:
                study = optuna.create_study(storage=target, study_name=name, directions=source.directions)
            except DuplicatedStudyError:
                got = f"{name!r}, which the storage holds"
                raise ConfigurationError(error_message("the name", "be new", got, "Give another --name.")) from None
            try:
                return _copy(source, study, records, run.problem)
            except BaseException:
                optuna.delete_study(study_name=name, storage=target)  # no half study stays
                raise


def _check_apart(storage: str) -> None:
    """Refuse the journal of a run, whose trials are the run's own."""
    target = Path(storage)
    if "://" not in storage and (target.resolve().parent / STUDY).exists():
        got = f"{shorten(storage)}, in a run folder"
        raise ConfigurationError(error_message("--storage", "lie outside run folders", got, "Name another file."))


def _read(path: Path) -> optuna.Study:
    with advises_doctor(path.parent):
        try:
            return optuna.load_study(study_name=STUDY_NAME, storage=JournalStorage(JournalFileBackend(str(path))))
        except Exception as error:  # Optuna replays any line, and fails in many ways
            got = f"{type(error).__name__}: {shorten(str(error))}"
            raise StorageError(error_message(str(path), "be a journal of trials", got)) from error


@contextlib.contextmanager
def _opened(storage: str) -> Iterator[BaseStorage]:
    """Open a storage by its URL or path, and say in plain words what is wrong with it."""
    target: BaseStorage | None = None
    try:
        target = RDBStorage(storage) if "://" in storage else JournalStorage(JournalFileBackend(storage))
        yield target
    except ImportError as error:
        remedy = (
            "pip install 'psycopg[binary]', for URLs that begin with postgresql+psycopg://, or the driver of yours."
        )
        raise ConfigurationError(error_message("--storage", "have its driver installed", error, remedy)) from error
    except AutopruneError:
        raise
    except (SQLAlchemyError, StorageInternalError, OSError, ValueError) as error:
        got = f"{shorten(without_password(storage))} ({type(error).__name__}: {shorten(str(error))})"
        wants = "be a database that can be opened and written, such as sqlite:///optuna.db, or the path of a journal"
        raise StorageError(error_message("--storage", wants, got)) from error
    finally:
        if isinstance(target, RDBStorage):
            target.remove_session()
            target.engine.dispose()


def _copy(source: optuna.Study, study: optuna.Study, records: dict[int, CandidateRecord], problem: Problem) -> int:
    for key, value in source.user_attrs.items():
        study.set_user_attr(key, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([objective.axis_title for objective in problem.rows])
    trials = source.get_trials()
    for trial in trials:
        study.add_trial(_described(trial, records.get(trial.number), problem))
    return len(trials)


def _described(trial: FrozenTrial, record: CandidateRecord | None, problem: Problem) -> FrozenTrial:
    """Add what the record of a trial holds. One without memory has failed: its quality is none that was measured."""
    if record is None:
        if OUT_OF_MEMORY in trial.constraints:
            trial.state, trial.values = TrialState.FAIL, None
        return trial
    found = record.search
    costs = {name: float(cost.value(found)) for name, cost in problem.costs.items()}
    quality = {problem.metric: found.quality, f"{problem.metric}_error": found.quality_error}
    measured = {**quality, **found.metrics, **costs}
    trial.user_attrs |= {name: value for name, value in measured.items() if math.isfinite(value)}
    trial.user_attrs |= {"parent": record.parent, "fidelity": record.fidelity, "seconds": dict(record.seconds)}
    if record.note:
        trial.user_attrs["note"] = record.note
    if record.rungs:
        steps = {round(_WHOLE * share): quality for share, quality in record.rungs}
        trial.intermediate_values = {**steps, round(_WHOLE * record.fidelity): found.quality}
    if record.stopped and trial.state is TrialState.COMPLETE:
        trial.state = TrialState.PRUNED
    return trial
