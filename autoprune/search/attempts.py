"""Attempts of a trial, counted on disk before it begins, so that a trial that kills its process is given up."""

from __future__ import annotations

import optuna

from autoprune.records.origins import Origin
from autoprune.search.ledger import ATTEMPTS, Ledger, origin_of

#: Attempts after which a trial is given up; if it is the dense model's, the run stops.
MAX_ATTEMPTS = 3
#: Error of a trial that never ended.
GIVEN_UP = (
    f"the process ended in this trial {MAX_ATTEMPTS} times (killed from outside, out of memory, or a crash below "
    "Python); it is given up"
)


def begin(trial: optuna.Trial) -> None:
    """Count one attempt, on disk before the trial begins.

    Args:
        trial: Trial that begins.
    """
    trial.set_user_attr(ATTEMPTS, count(trial.user_attrs) + 1)


def begin_again(ledger: Ledger, number: int) -> bool:
    """Count one more attempt of a running trial whose worker died, unless it had its last one.

    Args:
        ledger: Trials of the study.
        number: Number of the trial.

    Returns:
        Whether it may be tried again.
    """
    trial = ledger.trial(number)
    if count(trial.user_attrs) >= MAX_ATTEMPTS:
        return False
    begin(trial)
    return True


def reset(ledger: Ledger, number: int) -> None:
    """Set the attempts to 0 where the process did not die in the trial: after an interruption, or a caught crash.

    Args:
        ledger: Trials of the study.
        number: Number of a trial that ended without a result.
    """
    if not ledger.is_finished(number):
        ledger.trial(number).set_user_attr(ATTEMPTS, 0)


def fail(ledger: Ledger, number: int, message: str) -> None:
    """Mark a trial as failed. The dense model's trial is queued again.

    Args:
        ledger: Trials of the study.
        number: Number of the trial.
        message: Error in one line.
    """
    trial = ledger.trial(number)
    if origin_of(trial) is not Origin.DENSE:
        ledger.end(number, None, lambda ended: ended.set_user_attr("error", message))
        return
    with ledger.transaction():
        trial.set_user_attr("error", message)
        reset(ledger, number)
        ledger.put_back(number)


def count(attributes: dict[str, object]) -> int:
    """Return the number of attempts.

    Args:
        attributes: User attributes of a trial.
    """
    found = attributes.get(ATTEMPTS, 0)
    return found if isinstance(found, int) else 0


def dense_failed_message(message: str) -> str:
    """Return the error message of a run that stops because the dense model's trial fails.

    Args:
        message: Error of the last attempt.
    """
    return (
        f"The dense model's own trial failed {MAX_ATTEMPTS} times: {message}. Candidates are compared with the "
        "dense model, so the run stops; everything finished is kept. Mend the cause and run the same command again: it "
        "measures the dense model first."
    )
