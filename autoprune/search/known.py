"""Known: the finished candidates of a search, indexed by what each ask looks up."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_

from autoprune.front.front import Front
from autoprune.front.limit_check import LimitCheck
from autoprune.records.candidate import CandidateRecord
from autoprune.records.columns import Columns
from autoprune.records.problem import Problem
from autoprune.search import duplicates
from autoprune.search.width_table import WidthTable
from autoprune.structure.topology import Topology


class Known:
    """Index of a list of candidates that grows in place, and in which others may replace a record.

    On each use the list is compared with the indexed records, and only those that differ are indexed anew.

    Args:
        records: Finished candidates, in the order of their numbers.
        topology: Structure of the dense model.
        problem: Objectives and limits of the study.
    """

    def __init__(self, records: list[CandidateRecord], topology: Topology, problem: Problem) -> None:
        self._records, self._topology, self._problem = records, topology, problem
        self._by_number: dict[int, CandidateRecord] = {}
        self._by_key: dict[object, list[CandidateRecord]] = {}
        self._front: Front | None = None
        self._columns = Columns()
        self._widths = WidthTable(topology, self._columns)

    def get(self, number: int | None) -> CandidateRecord | None:
        """Look up a candidate.

        Args:
            number: Its number.

        Returns:
            The candidate; None where there is none of that number.
        """
        self._follow()
        return None if number is None else self._by_number.get(number)

    def twin(self, key: object, answers: Callable[[CandidateRecord], bool]) -> CandidateRecord | None:
        """Find the best trained (latest) candidate whose trial was the same.

        Args:
            key: Key of the trial, see `duplicates.key`.
            answers: Function that tells whether a candidate may answer for the trial.

        Returns:
            The candidate, one that was stopped early only if no other matches; None if there is none.
        """
        self._follow()
        found = [record for record in self._by_key.get(key, ()) if not record.note and answers(record)]
        return min(found, key=lambda record: (record.stopped, -record.number), default=None)

    def is_tried(self, key: object) -> bool:
        """Tell whether some candidate's trial was the same.

        Args:
            key: Key of a trial, see `duplicates.key`.

        Returns:
            Whether there is one that went well.
        """
        return self.twin(key, lambda _: True) is not None

    def front(self) -> Front:
        """Return the front of all candidates, computed once for each state of the list."""
        self._follow()
        if self._front is None:
            self._front = Front.of(self._columns, self._problem)
        return self._front

    def front_with(self, record: CandidateRecord) -> Front:
        """Return the front as it would be with one more candidate.

        Args:
            record: A candidate that is not in the list.
        """
        self._follow()
        return Front.of(Columns([*self._records, record], self._columns), self._problem)

    @property
    def columns(self) -> Columns:
        """Numbers of all candidates."""
        self._follow()
        return self._columns

    @property
    def widths(self) -> WidthTable:
        """Widths of all candidates."""
        self._follow()
        return self._widths

    @property
    def limits(self) -> LimitCheck:
        """Limits of the search, and the dense model to which they refer."""
        return LimitCheck.of_search(self._records, self._problem)

    def _follow(self) -> None:
        """Index what has changed."""
        indexed = self._by_number.values()
        if len(self._records) == len(indexed) and all(map(is_, self._records, indexed)):
            return
        now = {record.number: record for record in self._records}
        for record in indexed:
            if now.get(record.number) is not record:
                self._by_key[duplicates.key_of(record, self._topology)].remove(record)
        for number, record in now.items():
            if self._by_number.get(number) is not record:
                self._by_key.setdefault(duplicates.key_of(record, self._topology), []).append(record)
        self._by_number, self._front = now, None
        self._columns = self._widths.columns = Columns(self._records, self._columns)
