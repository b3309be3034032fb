"""Pairs: facts about pairs of candidates that hold for good, kept while their list grows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


def no_names() -> np.ndarray:
    """Return an empty list of names, int [0]."""
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Pairs:
    """A fact about pairs of candidates, which are named by numbers >= 0.

    Attributes:
        ones: Names of candidates, int [ones].
        others: Names of candidates, int [others].
        holds: Whether the fact is known to hold, bool [ones, others].
    """

    ones: np.ndarray = field(default_factory=no_names)
    others: np.ndarray = field(default_factory=no_names)
    holds: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))

    def at(self, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Look up pairs.

        Args:
            ones: Names of candidates.
            others: Names of candidates.

        Returns:
            Whether the fact is known to hold, bool [ones, others]; a new array.
        """
        found = np.zeros((len(ones), len(others)), dtype=bool)
        mine, theirs = places_in(self.ones, ones), places_in(self.others, others)
        rows, columns = np.flatnonzero(mine >= 0), np.flatnonzero(theirs >= 0)
        found[np.ix_(rows, columns)] = self.holds[np.ix_(mine[rows], theirs[columns])]
        return found


def places_in(names: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Find the positions of names in a list.

    Args:
        names: Names, int >= 0, each once.
        wanted: Names, -1 for none.

    Returns:
        Int [wanted]; -1 where a name is not in the list.
    """
    largest = max(int(names.max(initial=-1)), int(wanted.max(initial=-1)))
    places = np.full(largest + 2, -1, dtype=np.int64)  # the last one is that of no name
    places[names] = np.arange(len(names))
    return np.asarray(places[wanted])
