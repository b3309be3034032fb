"""Non-dominated candidates by what can be trusted: a latency in doubt puts none on the front, and takes none off."""

from __future__ import annotations

from functools import partial

import numpy as np

from autoprune.front.dominance import non_dominated
from autoprune.records.candidate import CandidateRecord
from autoprune.records.columns import Columns
from autoprune.records.objectives import Objective
from autoprune.records.problem import Problem


def find_doubts(columns: Columns, places: np.ndarray, problem: Problem) -> np.ndarray:
    """Find the objectives that are in doubt.

    Args:
        columns: Numbers of candidates.
        places: Positions of some of them.
        problem: Problem of the study.

    Returns:
        Bool [places, objectives].
    """
    rows = problem.rows
    found = np.zeros((len(places), len(rows)), dtype=bool)
    for column, objective in enumerate(rows):
        if objective.is_compared:  # nothing else is compared with dense
            found[:, column] = columns.column(("doubt", objective.name), partial(_in_doubt, objective))[places] > 0
    return found


def believed_non_dominated(points: np.ndarray, in_doubt: np.ndarray) -> np.ndarray:
    """Find the candidates that no other dominates.

    Candidates with a latency in doubt are compared with all others by the objectives that are not in doubt, and
    dominate none of them.

    Args:
        points: Losses [records, objectives], see `Problem.losses`; lower is better.
        in_doubt: Result of `find_doubts`.

    Returns:
        Bool [records].
    """
    mask = non_dominated(np.where(in_doubt, np.nan, points))  # a twin may have lent a number to what is in doubt
    for place in np.flatnonzero(in_doubt.any(axis=1)).tolist():
        believed = points[:, ~in_doubt[place]]
        no_worse = (believed <= believed[place]).all(axis=1)
        better = (believed < believed[place]).any(axis=1)
        mask[place] = bool(np.isfinite(believed[place]).all() and not (no_worse & better).any())
    return mask


def _in_doubt(objective: Objective, record: CandidateRecord) -> bool:
    found = objective.against_dense(record)
    return found is not None and not found.trusted
