"""Polishing: a member of the front is trained on, at the widths it has.

A new plan has to recover from a cut first; a candidate that is already good only has to recover further. With brief
fine-tunes the second is often the better use of the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autoprune.front.front import Front
from autoprune.front.record import CandidateRecord


def is_polish_due(sampled: int, share: float) -> bool:
    """Whether the trial after `sampled` trials that were no warm start is a polish, so that `share` of them are."""
    return int((sampled + 1) * share) > int(sampled * share)


def choose_to_polish(front: Front, cost: str, has_weights: Callable[[int], bool]) -> CandidateRecord | None:
    """The member of the front with the most to gain for the training it has had; None when there is none.

    What there is to gain is the distance in quality to the best candidate that costs more; it is divided by
    the number of candidates of the same widths so far. The newest of equal widths stands for them.
    has_weights: number of a candidate -> whether there is something to train on.
    """
    members = [
        record
        for record in _best_of_widths(front)
        if record.plan.recovery.steps > 0 and not record.note and has_weights(record.number)
    ]
    sign = 1.0 if front.higher_is_better else -1.0
    best, best_score = None, -1.0
    for record in members:
        larger = [r for r in front.records if front.value(r, cost) > front.value(record, cost)]
        gap = max((sign * (r.search.quality - record.search.quality) for r in larger), default=0.0)
        score = max(gap, 0.0) / sum(r.architecture == record.architecture for r in front.records)
        if score > best_score:
            best, best_score = record, score
    return best


def _best_of_widths(front: Front) -> Sequence[CandidateRecord]:
    """One record for each set of widths on the front: the one that was trained longest."""
    newest: dict[object, CandidateRecord] = {}
    for record in sorted(front.members, key=lambda record: record.lineage_trained):
        newest[record.architecture] = record
    return list(newest.values())
