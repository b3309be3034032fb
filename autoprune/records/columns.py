"""Columns: numbers of a list of candidates as arrays, each worked out once for each candidate while the list grows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from operator import is_

import numpy as np

from autoprune.records.candidate import CandidateRecord

#: Function from a candidate to one number or several.
Read = Callable[[CandidateRecord], float | Sequence[float]]


@dataclass(slots=True)
class _Column:
    """Numbers of the candidates that were ever in the list, float [room, width]."""

    read: Read
    rows: np.ndarray


class Columns:
    """Numbers of the candidates of a list, in which others may replace some.

    Args:
        records: Candidates with different numbers; see `follow`.
    """

    def __init__(self, records: Sequence[CandidateRecord] = ()) -> None:
        self.records: tuple[CandidateRecord, ...] = ()
        self._held: list[CandidateRecord] = []  # by their rows
        self._rows: dict[int, int] = {}
        self._order = np.empty(0, dtype=np.int64)
        self._columns: dict[Hashable, _Column] = {}
        self._architectures: dict[object, int] = {}
        self.follow(records)

    @classmethod
    def of(cls, records: Sequence[CandidateRecord]) -> Columns:
        """Make the columns of candidates that may have equal numbers.

        Args:
            records: Any candidates.
        """
        found = cls()
        found.records, found._held = tuple(records), [*records]
        found._order = np.arange(len(records))
        return found

    def follow(self, records: Sequence[CandidateRecord]) -> None:
        """Take the candidates of a list that has changed; only new ones are read.

        Args:
            records: All candidates, with different numbers.
        """
        if len(records) == len(self.records) and all(map(is_, records, self.records)):
            return
        order, fresh = [], []
        for record in records:
            row = self._rows.setdefault(record.number, len(self._held))
            if row == len(self._held):
                self._held.append(record)
                fresh.append(row)
            elif self._held[row] is not record:
                self._held[row] = record
                fresh.append(row)
            order.append(row)
        self.records, self._order = tuple(records), np.array(order, dtype=np.int64)
        for column in self._columns.values():
            self._fill(column, fresh)

    def column(self, key: Hashable, read: Read, width: int = 1) -> np.ndarray:
        """Return numbers of the candidates.

        Args:
            key: Name of the numbers.
            read: Function that reads them; the same for the same key.
            width: Number of its numbers.

        Returns:
            Float [records], or [records, width] for several.
        """
        found = self._columns.get(key)
        if found is None:
            found = self._columns[key] = _Column(read, np.empty((len(self._held), width)))
            self._fill(found, range(len(self._held)))
        rows = found.rows[self._order]
        return rows[:, 0] if width == 1 else rows

    @property
    def architectures(self) -> np.ndarray:
        """Numbers that are equal for equal architectures, int [records]."""
        known = self._architectures
        found = self.column("architecture", lambda record: known.setdefault(record.architecture, len(known)))
        return found.astype(np.int64)

    def _fill(self, column: _Column, rows: Sequence[int]) -> None:
        if len(self._held) > len(column.rows):
            room = np.empty((2 * len(self._held), column.rows.shape[1]))
            room[: len(column.rows)] = column.rows
            column.rows = room
        for row in rows:
            column.rows[row] = column.read(self._held[row])


#: Candidates, or numbers of them that are known already.
Records = Sequence[CandidateRecord] | Columns
