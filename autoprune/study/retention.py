"""Weights that nothing will need any more are removed; what is known of their candidates stays."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.front.front import Front
from autoprune.front.record import BASELINES, CandidateRecord
from autoprune.measure.measurement import COSTS

#: What follows from a model and not from the clock.
_COUNTED = tuple(name for name in COSTS if name != "latency_ms")


def removable_weights(front: Front) -> Sequence[CandidateRecord]:
    """Candidates whose weights nobody will need: beaten for good, without descendants, and no baseline.

    Not every candidate off the front is: which latencies count as equal follows from all that was measured, so that one
    may come back, and a limit on a cost that is no objective may leave it alone. What was stopped early is on no front
    and in no lineage. Candidates whose weights were removed already are not named again.
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
    """Whether it is better in quality, no worse in any count, and no slower beyond doubt. sign: 1 for higher is better.

    The same widths are the same network to the clock; of others the intervals must not overlap.
    """
    one, other = rival.search, record.search
    better = sign * one.quality > sign * other.quality
    no_dearer = all(one.value(name) <= other.value(name) for name in _COUNTED)
    if not (better and no_dearer):
        return False
    if one.latency is None or other.latency is None or rival.architecture == record.architecture:
        return other.latency is None or one.latency is not None
    return one.latency.ratio_high <= other.latency.ratio_low
