"""Losses and violated constraints of Optuna trials as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial


def losses_of(study: Study, trials: Sequence[FrozenTrial]) -> np.ndarray:
    """Return the values of finished trials, float [trials, objectives], all minimised.

    Args:
        study: Their study.
        trials: Trials with values.
    """
    signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions])
    return np.asarray(np.array([trial.values for trial in trials], dtype=np.float64) * signs)


def violations_of(trials: Sequence[FrozenTrial]) -> np.ndarray:
    """Return the sums of the violated constraints, float [trials]; 0 is feasible.

    Args:
        trials: Any trials.
    """
    return np.array([sum(max(value, 0.0) for value in trial.constraints.values()) for trial in trials])


def finite(losses: np.ndarray) -> np.ndarray:
    """Replace infinite losses by values just beyond the finite ones of their column.

    Args:
        losses: Float [trials, objectives].
    """
    if np.isfinite(losses).all():
        return losses
    found = losses.copy()
    for column in found.T:
        known = column[np.isfinite(column)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
        column[np.isposinf(column)] = high + (high - low) + 1.0
        column[np.isneginf(column)] = low - (high - low) - 1.0
    return found
