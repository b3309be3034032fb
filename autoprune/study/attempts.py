"""Attempts: how often a trial was begun, stored before it begins, so that one that kills its process is given up."""

from __future__ import annotations

import optuna

from autoprune.study.ledger import is_finished

#: Attempts after which a trial is given up; the dense model's ends the run then.
MAX_ATTEMPTS = 3
#: User attribute of a trial that holds their number.
ATTEMPTS = "attempts"
#: What is said of a trial that never came to its end.
GIVEN_UP = (
    f"the process ended in this trial {MAX_ATTEMPTS} times (killed from outside, out of memory, or a crash below "
    "Python); it is left behind"
)


def begin(trial: optuna.Trial) -> None:
    """Count one attempt, on disk before the trial begins."""
    trial.set_user_attr(ATTEMPTS, count(trial.user_attrs) + 1)


def reset(study: optuna.Study, trial: optuna.Trial) -> None:
    """Count none where the process did not end in the trial: it was interrupted, or it crashed and is tried again."""
    if not is_finished(study, trial.number):
        trial.set_user_attr(ATTEMPTS, 0)


def count(attributes: dict[str, object]) -> int:
    """Attempts that the user attributes of a trial hold."""
    found = attributes.get(ATTEMPTS, 0)
    return found if isinstance(found, int) else 0


def dense_failed_message(message: str) -> str:
    """Say that the run stops since the dense model's own trial fails. message: of the last attempt."""
    return (
        f"The dense model's own trial failed {MAX_ATTEMPTS} times: {message}. Nothing can be said of candidates "
        "without it, so the run stops; everything finished is kept. Mend the cause and run the same command again: it "
        "measures the dense model first."
    )
