"""Non-dominated candidates by what can be trusted: a latency in doubt puts none on the front, and takes none off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.front.dominance import non_dominated
from autoprune.records.candidate import CandidateRecord
from autoprune.records.problem import Problem


def believed_non_dominated(records: Sequence[CandidateRecord], points: np.ndarray, problem: Problem) -> np.ndarray:
    """Find the candidates that no other dominates.

    Candidates with a latency in doubt are compared with all others by the objectives that are not in doubt, and
    dominate none of them.

    Args:
        records: Candidates.
        points: Their losses [records, objectives], see `Problem.losses`; lower is better.
        problem: Problem of the study.

    Returns:
        Bool [records].
    """
    mask = non_dominated(points)
    in_doubt = np.array(
        [[_in_doubt(record, name, problem) for name in problem.objectives] for record in records], dtype=bool
    ).reshape(points.shape)
    for place in np.flatnonzero(in_doubt.any(axis=1)).tolist():
        believed = points[:, ~in_doubt[place]]
        no_worse = (believed <= believed[place]).all(axis=1)
        better = (believed < believed[place]).any(axis=1)
        mask[place] = bool(np.isfinite(believed[place]).all() and not (no_worse & better).any())
    return mask


def _in_doubt(record: CandidateRecord, name: str, problem: Problem) -> bool:
    found = problem.objective(name).comparison(record.search)
    return found is not None and not found.trusted
