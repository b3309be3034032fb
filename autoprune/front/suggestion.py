"""The candidate that a report suggests, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.errors import SelectionError
from autoprune.front.front import Front
from autoprune.front.limit_check import INTERVAL
from autoprune.records.candidate import CandidateRecord
from autoprune.records.limits import Limits
from autoprune.records.origins import Origin
from autoprune.records.paired import difference_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A smaller candidate to look at first.

    Attributes:
        record: The candidate.
        dense: The dense model.
        keeps: Whether it does what was asked for: it keeps the limits of the search, or, without limits, loses no more
            quality than noise.
        limits: Limits by which it was chosen: those of the search, or a loss within the noise.
        gain: Gain of quality over dense on the search split; positive is better.
        noise: Half the 95 % interval of that gain, by the same samples for both.
        test_gain: The same gain on the test split, which chose nothing; NaN where it was not measured.
        test_noise: Half the 95 % interval of that.
    """

    record: CandidateRecord
    dense: CandidateRecord
    keeps: bool
    limits: Limits
    gain: float
    noise: float
    test_gain: float = math.nan
    test_noise: float = math.nan

    @property
    def is_worse_on_test(self) -> bool:
        """Whether the test split shows a loss that is no noise."""
        return self.test_gain < -self.test_noise


def suggest(front: Front) -> Suggestion | None:
    """Suggest the smallest candidate that does what was asked for; the one that comes nearest where none does.

    With limits of the search, it is the one that `Front.choose` takes. Without, it is the cheapest member of the front
    whose loss of quality is within the noise of its difference to dense.

    Args:
        front: Front of a study.

    Returns:
        The suggestion; None before the dense model and a smaller candidate of the front were measured.
    """
    dense = front.dense
    smaller = [record for record in front.members if record.origin is not Origin.DENSE]
    if dense is None or not smaller:
        return None
    if front.problem.limits.given:
        record, keeps = _within_limits(front, smaller)
        limits = front.problem.limits
    else:
        record = suggest_candidate(front, smaller)
        keeps = -front.gain(record) <= noise_of(record, dense)
        limits = Limits(max_drop=max(noise_of(record, dense), 0.0))
    test_gain, test_noise = _on_test(front, record, dense)
    return Suggestion(
        record=record,
        dense=dense,
        keeps=keeps,
        limits=limits,
        gain=front.gain(record),
        noise=noise_of(record, dense),
        test_gain=test_gain,
        test_noise=test_noise,
    )


def suggest_candidate(front: Front, records: Sequence[CandidateRecord]) -> CandidateRecord:
    """Select the cheapest candidate whose loss of quality is within the noise; the best one when there is none.

    Args:
        front: Front of a study.
        records: One or more candidates to select from.

    Returns:
        The candidate.
    """
    dense = front.dense
    fitting = [r for r in records if dense is not None and -front.gain(r) <= noise_of(r, dense)]
    if fitting:
        return min(fitting, key=lambda record: record.search.multiply_adds)
    return max(records, key=front.gain)


def noise_of(one: CandidateRecord, other: CandidateRecord) -> float:
    """Compute how large a difference of two qualities on the search split may be by noise.

    Args:
        one: Candidate.
        other: Another one.

    Returns:
        Half the 95 % interval of the difference.
    """
    return INTERVAL * difference_error(one.search, other.search)


def _within_limits(front: Front, smaller: Sequence[CandidateRecord]) -> tuple[CandidateRecord, bool]:
    """Choose within the limits of the search, and tell whether a smaller candidate keeps them."""
    try:
        chosen = front.choose()
    except SelectionError:
        chosen = None
    if chosen is not None and chosen.origin is not Origin.DENSE:
        return chosen, True
    limits = front.problem.limits
    return min(smaller, key=lambda record: max(front.excess(record, limits).values(), default=0.0)), False


def _on_test(front: Front, record: CandidateRecord, dense: CandidateRecord) -> tuple[float, float]:
    if record.test is None or dense.test is None:
        return math.nan, math.nan
    gain = front.problem.quality.gain(record.test.quality, dense.test.quality)
    return gain, INTERVAL * difference_error(record.test, dense.test)
