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
    """Numbers of the candidates, and what they refer to."""

    rows: np.ndarray
    reference: object


@dataclass(frozen=True, slots=True)
class _Names:
    """Numbers in place of architectures, the same ones while a list grows."""

    known: dict[object, int] = field(default_factory=dict)
    fresh: Iterator[int] = field(default_factory=itertools.count)

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
    """

    def __init__(self, records: Sequence[CandidateRecord] = (), before: Columns | None = None) -> None:
        self.records = tuple(records)
        self._columns: dict[Hashable, _Column] = {}
        # Columns of the earlier moment, the place of each candidate in them, and the places of new candidates.
        self._earlier: dict[Hashable, _Column] = {}
        self._origins, self._new = np.zeros(0, dtype=np.int64), list[int]()
        self._names = _Names()
        if before is None or not before.records:
            return
        places = {id(record): place for place, record in enumerate(before.records)}
        origins = [places.get(id(record), -1) for record in self.records]
        self._earlier, self._names = before._columns, before._names
        self._origins = np.array(origins, dtype=np.int64)
        self._new = [place for place, origin in enumerate(origins) if origin < 0]

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
            found = self._columns[key] = _Column(self._rows(key, read, width, reference), reference)
        return found.rows

    @property
    def architectures(self) -> np.ndarray:
        """Numbers that are equal for equal architectures, int [records]."""
        return self.column("architecture", self._names.number).astype(np.int64)

    def _rows(self, key: Hashable, read: Read, width: int | None, reference: object) -> np.ndarray:
        earlier = self._earlier.get(key)
        if earlier is None or earlier.reference is not reference:
            rows = np.array([read(record) for record in self.records], dtype=np.float64)
            return rows if width is None else rows.reshape(len(self.records), width)
        rows = earlier.rows[self._origins]
        if self._new:
            rows[self._new] = [read(self.records[place]) for place in self._new]
        return rows
