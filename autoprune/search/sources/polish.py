"""Polishing: train a member of the front further at its widths.

A new plan has to recover from a cut first; a good candidate only has to recover further. With short fine-tunes the
second is often the better use of the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autoprune.front.front import Front
from autoprune.records.candidate import CandidateRecord


def is_polish_due(sampled: int, share: float) -> bool:
    """Return whether the next trial is a polish, so that `share` of the trials are.

    Args:
        sampled: Trials so far that were no warm start.
        share: Share of polishes, in [0, 1).
    """
    return int((sampled + 1) * share) > int(sampled * share)


def choose_to_polish(front: Front, cost: str, has_weights: Callable[[int], bool]) -> CandidateRecord | None:
    """Choose the member of the front with the most to gain relative to its training.

    The possible gain is the difference in quality to the best larger candidate, divided by the number of candidates
    with the same widths. The newest candidate of equal widths stands for them.

    Args:
        front: Front of all finished candidates.
        cost: Cost by which candidates are larger.
        has_weights: Number of a candidate -> whether its weights are stored.

    Returns:
        The candidate; None if there is none.
    """
    members = [
        record
        for record in _best_of_widths(front)
        if record.plan.recovery.steps > 0 and not record.note and has_weights(record.number)
    ]
    quality = front.problem.quality
    best, best_score = None, -1.0
    for record in members:
        larger = [r for r in front.records if front.value(r, cost) > front.value(record, cost)]
        gap = max((quality.gain(r.search.quality, record.search.quality) for r in larger), default=0.0)
        score = max(gap, 0.0) / sum(r.architecture == record.architecture for r in front.records)
        if score > best_score:
            best, best_score = record, score
    return best


def _best_of_widths(front: Front) -> Sequence[CandidateRecord]:
    """Return the longest trained record for each set of widths on the front."""
    newest: dict[object, CandidateRecord] = {}
    for record in sorted(front.members, key=lambda record: record.lineage_trained):
        newest[record.architecture] = record
    return list(newest.values())
