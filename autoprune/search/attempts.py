"""Attempts of a trial, counted on disk before it begins, so that a trial that kills its process is given up."""

from __future__ import annotations

import optuna

from autoprune.search.ledger import is_finished

#: Attempts after which a trial is given up; if it is the dense model's, the run stops.
MAX_ATTEMPTS = 3
#: User attribute of a trial that holds the number of attempts.
ATTEMPTS = "attempts"
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


def reset(study: optuna.Study, trial: optuna.Trial) -> None:
    """Set the attempts to 0 where the process did not die in the trial: after an interruption, or a caught crash.

    Args:
        study: Optuna study.
        trial: Trial that ended without a result.
    """
    if not is_finished(study, trial.number):
        trial.set_user_attr(ATTEMPTS, 0)


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
