"""The candidate that a report suggests, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoprune.errors import SelectionError
from autoprune.front.choice import Choice
from autoprune.front.doubts import first_left_out, pools_of
from autoprune.front.front import Front
from autoprune.front.limit_check import INTERVAL, LimitCheck
from autoprune.records.candidate import CandidateRecord
from autoprune.records.confidence import CONFIDENCE
from autoprune.records.limits import Limits
from autoprune.records.measurement import Measurement
from autoprune.records.origins import Origin
from autoprune.records.paired import difference_error

#: Limits where the search has none: at most 1 % of the dense model's quality is lost.
USUAL_LIMITS = Limits(max_drop_share=0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A smaller candidate to look at first.

    Attributes:
        record: The candidate.
        dense: The dense model.
        choice: The choice behind it; None where no smaller candidate keeps the limits for certain. Then the one that
            would be chosen by numbers in doubt is told, or the nearest one.
        limits: Limits to keep: those of the search, or USUAL_LIMITS.
        gain: Gain of quality over dense on the search split; positive is better.
        noise: Half the 95 % interval of that gain, by the same samples for both.
        doubts: Titles of the costs in doubt by which alone the candidate keeps the limits; none where it does not, or
            nothing that decides is in doubt.
        test_gain: The same gain on the test split, which chose nothing; NaN where it was not measured.
        test_noise: Half the 95 % interval of that.
    """

    record: CandidateRecord
    dense: CandidateRecord
    choice: Choice | None
    limits: Limits
    gain: float
    noise: float
    doubts: tuple[str, ...] = ()
    test_gain: float = math.nan
    test_noise: float = math.nan

    @property
    def keeps(self) -> bool:
        """Whether the candidate keeps the limits, those of quality with confidence."""
        return self.choice is not None

    @property
    def is_worse_on_test(self) -> bool:
        """Whether the test split shows a loss that is no noise."""
        return self.test_gain < -self.test_noise


def limits_to_suggest(front: Front) -> Limits:
    """Return the limits of the search, or USUAL_LIMITS where it has none.

    Args:
        front: Front of a study.

    Returns:
        Limits to choose by.
    """
    return front.problem.limits if front.problem.limits.given else USUAL_LIMITS


def suggest(front: Front) -> Suggestion | None:
    """Suggest the candidate that `Front.choose` takes; the smaller one that comes nearest where it takes none.

    Args:
        front: Front of a study.

    Returns:
        The suggestion; None before the dense model and a smaller candidate of the front were measured.
    """
    dense, limits = front.dense, limits_to_suggest(front)
    smaller = [record for record in front.members if record.origin is not Origin.DENSE]
    if dense is None or not smaller:
        return None
    choice = _choice(front, limits)
    doubted = None if choice is not None else _in_doubt(front, limits)
    doubts: tuple[str, ...] = ()
    if choice is not None:
        record = choice.record
    elif doubted is not None:
        record, doubts = doubted
    else:
        record = min(smaller, key=lambda one: max(front.excess(one, limits).values(), default=0.0))
    test_gain, test_noise = _on_test(front, record, dense)
    return Suggestion(
        record=record,
        dense=dense,
        choice=choice,
        limits=limits,
        gain=front.gain(record),
        noise=noise_of(record.search, dense.search),
        doubts=doubts,
        test_gain=test_gain,
        test_noise=test_noise,
    )


def noise_of(one: Measurement, other: Measurement) -> float:
    """Compute how large a difference of two qualities on the same split may be by noise.

    Args:
        one: Measurement of a candidate.
        other: Measurement of another one.

    Returns:
        Half the 95 % interval of the difference.
    """
    return INTERVAL * difference_error(one, other)


def _choice(front: Front, limits: Limits) -> Choice | None:
    """Choose within limits; None where only the dense model keeps them, or none."""
    try:
        choice = front.choice(limits)
    except SelectionError:
        return None
    return None if choice.record.origin is Origin.DENSE else choice


def _in_doubt(front: Front, limits: Limits) -> tuple[CandidateRecord, tuple[str, ...]] | None:
    """Find the candidate that would be chosen if numbers in doubt counted, and what of it is in doubt."""
    check = LimitCheck(problem=front.problem, dense=front.dense, limits=limits, confidence=CONFIDENCE)
    numbers = front.numbers
    pools = pools_of(numbers, numbers.places(front.members), CONFIDENCE)
    found = first_left_out(pools, numbers, check, "multiply_adds")
    return None if found is None else found[1:]


def _on_test(front: Front, record: CandidateRecord, dense: CandidateRecord) -> tuple[float, float]:
    if record.test is None or dense.test is None:
        return math.nan, math.nan
    gain = front.problem.quality.gain(record.test.quality, dense.test.quality)
    return gain, noise_of(record.test, dense.test)
