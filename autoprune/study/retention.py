"""Retention of weights: find weights that no later trial can need."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.front.front import Front
from autoprune.records.candidate import BASELINES, CandidateRecord
from autoprune.records.objectives import COSTS
from autoprune.records.problem import Problem


def removable_weights(front: Front) -> Sequence[CandidateRecord]:
    """Return the candidates whose weights can be deleted: dominated for good, without descendants, no baseline.

    Some candidates off the front stay: which latencies count as equal depends on all measurements, so a candidate may
    come back, and a limit on a cost that is no objective may leave it as the best one. Further metrics count where they
    are objectives or limits of the search. Stopped candidates are on no
    front and in no lineage. Candidates whose weights are deleted already are left out.

    Args:
        front: Front of all finished candidates.
    """
    members = {record.number for record in front.members}
    parents = {record.parent for record in front.records}
    return [
        record
        for record in front.records
        if not record.removed
        and record.number not in members
        and record.number not in parents
        and record.origin not in BASELINES
        and (record.stopped or any(_beats(rival, record, front.problem) for rival in front.members))
    ]


def _beats(rival: CandidateRecord, record: CandidateRecord, problem: Problem) -> bool:
    """Return whether a rival has better quality, and is certainly no worse in any cost or metric that matters."""
    if not problem.quality.gain(rival.search.quality, record.search.quality) > 0:
        return False
    limited = (limit.objective for limit in problem.limits.each.values())
    names = dict.fromkeys((*COSTS, *problem.objectives, *limited))
    return all(problem.objective(name).is_never_worse(rival, record) for name in names)
