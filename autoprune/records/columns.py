"""Columns: numbers of candidates as arrays, each worked out once for each candidate, also while their list grows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoprune.records.candidate import CandidateRecord

#: Function from a candidate to one number or several.
Read = Callable[[CandidateRecord], float | Sequence[float]]


@dataclass(frozen=True, slots=True)
class _Column:
    """Numbers of candidates, the candidates at the moment when they were read, and what the numbers refer to."""

    rows: np.ndarray
    records: tuple[CandidateRecord, ...]
    reference: object


@dataclass(frozen=True, slots=True)
class _Names:
    """Numbers in place of architectures and of records, the same ones while a list grows."""

    known: dict[object, int] = field(default_factory=dict)
    fresh: Iterator[int] = field(default_factory=itertools.count)
    records: Iterator[int] = field(default_factory=itertools.count)

    def number(self, record: CandidateRecord) -> int:
        return self.known.setdefault(record.architecture, next(self.fresh))


class Columns:
    """Numbers of the candidates of a list at one moment.

    Args:
        records: Any candidates.
        before: Columns of an earlier moment of the same study, from which the numbers of candidates that were there are
            taken over; None for none.

    Attributes:
        records: The candidates.
        kept: What was worked out of the candidates, now or at an earlier moment, by its name; for what refers to them
            by their `names`.
    """

    def __init__(self, records: Sequence[CandidateRecord] = (), before: Columns | None = None) -> None:
        self.records = tuple(records)
        self._columns: dict[Hashable, _Column] = {}
        # The latest of each earlier column: not each is asked for at every moment.
        self._earlier: dict[Hashable, _Column] = {} if before is None else {**before._earlier, **before._columns}
        self._names: _Names = _Names() if before is None else before._names
        self._origins: dict[int, np.ndarray] = {}
        self.kept: dict[str, object] = {} if before is None else {**before.kept}

    def column(self, key: Hashable, read: Read, width: int | None = None, *, reference: object = None) -> np.ndarray:
        """Return numbers of the candidates.

        Args:
            key: Name of the numbers.
            read: Function that reads them; the same for the same key and reference.
            width: Number of its numbers; None for one that stands alone.
            reference: What the numbers refer to, such as the record of the dense model; they are read anew for another.

        Returns:
            Float [records], or [records, width], which must not be changed.
        """
        found = self._columns.get(key)
        if found is None or found.reference is not reference:
            found = self._columns[key] = _Column(self._rows(key, read, width, reference), self.records, reference)
        return found.rows

    @property
    def names(self) -> np.ndarray:
        """Numbers that name the candidates, the same ones while their list grows, int [records]."""
        return self.column("name", lambda _: next(self._names.records)).astype(np.int64)

    @property
    def architectures(self) -> np.ndarray:
        """Numbers that are equal for equal architectures, int [records]."""
        return self.column("architecture", self._names.number).astype(np.int64)

    def _rows(self, key: Hashable, read: Read, width: int | None, reference: object) -> np.ndarray:
        earlier = self._earlier.get(key)
        if earlier is None or earlier.reference is not reference or not earlier.records:
            whole = np.array([read(record) for record in self.records], dtype=np.float64)
            return whole if width is None else whole.reshape(len(self.records), width)
        origins = self._origins_in(earlier.records)
        rows: np.ndarray = earlier.rows[origins]
        new = np.flatnonzero(origins < 0).tolist()
        if new:
            rows[new] = [read(self.records[place]) for place in new]
        return rows

    def _origins_in(self, earlier: tuple[CandidateRecord, ...]) -> np.ndarray:
        """Return the place that each candidate had at an earlier moment, -1 for a new one."""
        found = self._origins.get(id(earlier))  # which the columns hold, so that no other has its place
        if found is None:
            places = {id(record): place for place, record in enumerate(earlier)}
            found = np.array([places.get(id(record), -1) for record in self.records], dtype=np.int64)
            self._origins[id(earlier)] = found
        return found
