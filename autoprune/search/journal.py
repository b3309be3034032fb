"""Comparison of the Optuna journal with the run folder, and its reconstruction from stored candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoprune.front.limit_check import LimitCheck
from autoprune.records.candidate import CandidateRecord
from autoprune.records.problem import Problem
from autoprune.records.run_folder import RunFolder
from autoprune.search.journal_file import transaction
from autoprune.search.ledger import STOPPED, STUDY_NAME, Ledger, bounded, directions_of, values_of
from autoprune.search.space.space import Space
from autoprune.search.storage import open_journal


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSource:
    """Data that a journal is compared with and rebuilt from.

    Attributes:
        records: Stored candidates.
        problem: Objectives of the study.
        trial_count: One more than the highest number of a trial with any file in the run folder.
        space: Function that builds the space, for candidates without stored parameters.
        excess: Function from a record to its excess over each limit, see ledger.set_constraints.
    """

    records: Sequence[CandidateRecord]
    problem: Problem
    trial_count: int
    space: Callable[[], Space]
    excess: Callable[[CandidateRecord], Mapping[str, float]]

    def ledger(self, storage: BaseStorage) -> Ledger:
        """Open the study of a storage; create it if it does not exist.

        Args:
            storage: Optuna storage.
        """
        return Ledger.of(storage, self.problem)


def open_ledger(
    folder: RunFolder, records: Sequence[CandidateRecord], problem: Problem, space: Callable[[], Space]
) -> Ledger:
    """Open the trials of a run folder; a lost journal is rebuilt from its candidates.

    Args:
        folder: Run folder, locked by this process.
        records: Its candidates.
        problem: Objectives and limits of the study.
        space: Function that builds the space, for candidates without stored parameters.

    Returns:
        The trials.

    Raises:
        StorageError: The journal cannot be read or written.
    """
    source = JournalSource(
        records=records,
        problem=problem,
        trial_count=folder.trials_seen(),
        space=space,
        excess=LimitCheck.of_search(records, problem).excess,
    )
    storage = open_journal(folder.path, partial(matches_folder, source=source), partial(restore, source=source))
    return source.ledger(storage)


def matches_folder(storage: BaseStorage, source: JournalSource) -> bool:
    """Return whether a journal has a trial for each candidate of the run folder, with the stored parameters and values.

    Timed objectives are not compared: they are told as a ratio, which earlier versions need not have done.

    Args:
        storage: Optuna storage.
        source: Data of the run folder.
    """
    names = optuna.get_all_study_names(storage)
    if not names and not source.trial_count:
        return True
    if names != [STUDY_NAME]:
        return False
    study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
    found = study.get_trials(deepcopy=False)
    directions = directions_of(source.problem)
    if study.directions != directions or len(found) < source.trial_count:
        return False
    return all(_matches(found[record.number], record, source.problem) for record in source.records)


def restore(storage: BaseStorage, source: JournalSource) -> None:
    """Write a trial for each stored candidate into an empty storage, under its number.

    Numbers of trials that failed or reused a known result become failed trials, so that no number is given twice.
    Missing parameters are those nearest to the plan.

    Args:
        storage: Empty Optuna storage.
        source: Data of the run folder.
    """
    with transaction(storage):
        _restore(source.ledger(storage).study, source)


def _restore(study: optuna.Study, source: JournalSource) -> None:
    space, stored = source.space(), {record.number: record for record in source.records}
    places = {"uniform": 0, "solved": 0}
    for number in range(source.trial_count):
        record = stored.get(number)
        if record is None:
            study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"error": "lost with the journal"}))
            continue
        key = record.warm_start or _warm_start(record.origin, places)
        study.add_trial(_trial(record, key, space, source))


def _matches(trial: FrozenTrial, record: CandidateRecord, problem: Problem) -> bool:
    if record.parameters and trial.params != record.parameters:  # lines of the journal are missing
        return False
    if trial.state == TrialState.COMPLETE:
        pairs = zip(problem.rows, trial.values, values_of(record, problem), strict=True)
        return all(told == value for objective, told, value in pairs if not objective.is_compared)
    return trial.state in (TrialState.RUNNING, TrialState.FAIL)


def _warm_start(origin: str, places: dict[str, int]) -> str:
    """Return the key of a warm start without a stored key; warm starts ran in their order."""
    if origin not in places:
        return origin if origin == "dense" else ""
    places[origin] += 1
    return f"{origin} {places[origin] - 1}"


def _trial(record: CandidateRecord, warm_start: str, space: Space, source: JournalSource) -> FrozenTrial:
    values = values_of(record, source.problem)
    attributes: dict[str, object] = {} if record.origin == "sampled" else {"origin": record.origin}
    if warm_start:
        attributes["warm_start"] = warm_start
    if record.origin == "polished":
        attributes["of"] = record.parent
    constraints = {name: bounded(value) for name, value in source.excess(record).items()}
    if record.stopped:
        constraints[STOPPED], attributes["fidelity"] = 1.0 - record.fidelity, record.fidelity
    if not all(math.isfinite(value) for value in values):
        return create_trial(state=TrialState.FAIL, user_attrs=attributes)
    for parameters in ([record.parameters] if record.parameters else []) + [space.encode(record.plan)]:
        chosen = {name: value for name, value in parameters.items() if name in space.distributions}
        try:
            return create_trial(
                values=values,
                params=chosen,
                distributions={name: space.distributions[name] for name in chosen},
                user_attrs=attributes,
                constraints=constraints,
            )
        except (ValueError, KeyError):  # of another space
            continue
    return create_trial(values=values, user_attrs=attributes, constraints=constraints)
