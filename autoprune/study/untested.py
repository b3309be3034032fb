"""Candidates that could not be measured on the test split: the search is over, and its front is kept without them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from autoprune.errors import AutopruneError, AutopruneWarning

#: After that many in a row that fail alike, the others are not tried: they would fail alike, perhaps after hours each.
SAME_FAILURES = 2


class UntestedCandidates:
    """Who is without test numbers, and why.

    Attributes:
        why: Number of a candidate -> what stopped its measurement.

    """

    def __init__(self) -> None:
        self.why: dict[int, str] = {}

    @contextmanager
    def kept(self, number: int) -> Iterator[None]:
        """Go on after an error in the measurement of one candidate.

        Args:
            number: Of the candidate.

        """
        try:
            yield
        except AutopruneError as error:
            self.why[number] = str(error)

    @property
    def hopeless(self) -> bool:
        """Whether the last ones failed alike, so that the next would."""
        last = list(self.why.values())[-SAME_FAILURES:]
        return len(last) == SAME_FAILURES and len(set(last)) == 1

    def warn(self) -> None:
        """Warn of those without test numbers, if there are any."""
        if self.why:
            numbers = ", ".join(str(number) for number in self.why)
            left = ", and others that were not tried any more" if self.hopeless else ""
            reasons = " ".join(dict.fromkeys(self.why.values()))
            warnings.warn(
                f"Test numbers are missing for candidate {numbers}{left}; the front of the search stands. {reasons}",
                AutopruneWarning,
                stacklevel=2,
            )
