"""Trials that were running when their process died."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from optuna.trial import TrialState

from autoprune.errors import AutopruneError
from autoprune.front.limit_check import LimitCheck
from autoprune.records.candidate import CandidateRecord
from autoprune.records.origins import Origin
from autoprune.records.problem import Problem
from autoprune.records.run_folder import RunFolder
from autoprune.search import attempts
from autoprune.search.ledger import Ledger, origin_of


def settle_folder(
    folder: RunFolder,
    ledger: Ledger,
    records: Sequence[CandidateRecord],
    problem: Problem,
    *,
    alive: Collection[int] = (),
) -> list[int]:
    """Settle the interrupted trials of a run folder; those that are given up are stored and told as failed.

    Args:
        folder: Run folder, locked by this process.
        ledger: Its trials.
        records: Its candidates.
        problem: Objectives and limits of the study.
        alive: Numbers of trials whose result a worker stored, or which one is running.

    Returns:
        Numbers of the trials that are given up.

    Raises:
        AutopruneError: The dense model's trial ended its process each time, see `settle_interrupted`.
    """
    given_up = settle_interrupted(ledger, records, problem, alive=alive)
    for number in given_up:
        folder.write_failure(number, attempts.GIVEN_UP)
        attempts.fail(ledger, number, attempts.GIVEN_UP)
    return given_up


def settle_interrupted(
    ledger: Ledger,
    records: Sequence[CandidateRecord],
    problem: Problem,
    *,
    alive: Collection[int] = (),
) -> list[int]:
    """Tell the stored results of interrupted trials, and queue the others again, up to MAX_ATTEMPTS times.

    Where several were out, nobody knows which of them ended the process: none is given up for that.

    Args:
        ledger: Trials of the study.
        records: Stored candidates.
        problem: Objectives and limits of the study.
        alive: Numbers of trials that another worker is running.

    Returns:
        Numbers of the trials that are given up. They are still to be told as failed.

    Raises:
        AutopruneError: The dense model's trial ended its process each time. It is queued again for the next start.
    """
    stored = {record.number: record for record in records}
    limits = LimitCheck.of_search(records, problem)
    given_up = []
    running = [found for found in ledger.trials(TrialState.RUNNING) if found.number not in alive]
    several = sum(found.number not in stored for found in running) > 1
    for found in running:
        record = stored.get(found.number)
        if record is not None:
            ledger.tell(found.number, record, limits)
            continue
        hopeless = not several and attempts.count(found.user_attrs) >= attempts.MAX_ATTEMPTS
        if hopeless and origin_of(found) is not Origin.DENSE:
            given_up.append(found.number)
            continue
        if several or hopeless:  # a user who starts the run again wants the dense model tried
            attempts.reset(ledger, found.number)
        ledger.put_back(found.number)
        if hopeless:
            raise AutopruneError(attempts.dense_failed_message("the process ended in it each time"))
    return given_up
