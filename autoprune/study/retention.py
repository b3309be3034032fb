"""Retention of weights: find weights that no later trial can need."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.front.front import Front
from autoprune.records.candidate import BASELINES, CandidateRecord
from autoprune.records.measurement import COSTS

#: Costs that are counted, not timed.
_COUNTED = tuple(name for name in COSTS if name != "latency_ms")


def removable_weights(front: Front) -> Sequence[CandidateRecord]:
    """Return the candidates whose weights can be deleted: dominated for good, without descendants, no baseline.

    Some candidates off the front stay: which latencies count as equal depends on all measurements, so a candidate may
    come back, and a limit on a cost that is no objective may leave it as the best one. Stopped candidates are on no
    front and in no lineage. Candidates whose weights are deleted already are left out.

    Args:
        front: Front of all finished candidates.
    """
    members = {record.number for record in front.members}
    parents = {record.parent for record in front.records}
    sign = 1.0 if front.higher_is_better else -1.0
    return [
        record
        for record in front.records
        if not record.removed
        and record.number not in members
        and record.number not in parents
        and record.origin not in BASELINES
        and (record.stopped or any(_beats(rival, record, sign) for rival in front.members))
    ]


def _beats(rival: CandidateRecord, record: CandidateRecord, sign: float) -> bool:
    """Return whether a rival has better quality, no larger count, and is certainly no slower. sign: 1 for higher is
    better.

    Equal widths have equal latency; for others the intervals of the latency must not overlap.
    """
    one, other = rival.search, record.search
    better = sign * one.quality > sign * other.quality
    no_dearer = all(one.value(name) <= other.value(name) for name in _COUNTED)
    if not (better and no_dearer):
        return False
    if one.latency is None or other.latency is None or rival.architecture == record.architecture:
        return other.latency is None or one.latency is not None
    return one.latency.ratio_high <= other.latency.ratio_low
