"""Candidates that could not be measured on the test split. The front of the search stays without their numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from autoprune.errors import AutopruneError, AutopruneWarning

#: Equal failures in a row after which no other candidate is tried: each might fail after hours.
SAME_FAILURES = 2


class UntestedCandidates:
    """Candidates without test numbers.

    Attributes:
        why: Number of the candidate -> error of its measurement.
    """

    def __init__(self) -> None:
        self.why: dict[int, str] = {}

    @contextmanager
    def kept(self, number: int) -> Iterator[None]:
        """Record an error in the measurement of one candidate, and go on.

        Args:
            number: Number of the candidate.
        """
        try:
            yield
        except AutopruneError as error:
            self.why[number] = str(error)

    @property
    def hopeless(self) -> bool:
        """Return whether the last candidates failed alike, so that the next would, too."""
        last = list(self.why.values())[-SAME_FAILURES:]
        return len(last) == SAME_FAILURES and len(set(last)) == 1

    def warn(self) -> None:
        """Warn of candidates without test numbers, if there are any."""
        if self.why:
            numbers = ", ".join(str(number) for number in self.why)
            left = ", and others that were not tried any more" if self.hopeless else ""
            reasons = " ".join(dict.fromkeys(self.why.values()))
            warnings.warn(
                f"Test numbers are missing for candidate {numbers}{left}; the front of the search stands. {reasons}",
                AutopruneWarning,
                stacklevel=2,
            )
