"""Numbers of candidates as arrays, each worked out once: a person who moves a limit asks for them again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar, cast

import numpy as np

from autoprune.records.candidate import CandidateRecord
from autoprune.records.columns import Columns
from autoprune.records.limits import Limit
from autoprune.records.objectives import QUALITY
from autoprune.records.paired import difference_errors, draw_changes
from autoprune.records.problem import Problem

T = TypeVar("T")
#: Draws of the samples, and the largest number of qualities that are drawn: fewer draws for many candidates.
_DRAWS, _QUALITIES = 1000, 300_000


class Numbers:
    """Numbers of candidates, float [records].

    Args:
        records: Candidates.
        problem: Problem of the study.
        dense: Record of the dense model; None before it was measured.
        columns: Numbers of the same candidates that may be known already; None for none.

    Attributes:
        records: The candidates.
        problem: Problem of the study.
        dense: Record of the dense model; None before it was measured.
        columns: Numbers of the candidates, from which those of a later moment can be taken over.
    """

    def __init__(
        self,
        records: Sequence[CandidateRecord],
        problem: Problem,
        dense: CandidateRecord | None,
        columns: Columns | None = None,
    ) -> None:
        self.records, self.problem, self.dense = tuple(records), problem, dense
        self.columns = Columns(self.records) if columns is None else columns
        self._kept: dict[str, object] = {}

    def places(self, records: Sequence[CandidateRecord]) -> np.ndarray:
        """Find the positions of candidates.

        Args:
            records: Some of the candidates.

        Returns:
            Int [records].
        """
        return np.array([self._places[record.number] for record in records], dtype=np.int64)

    @cached_property
    def _places(self) -> dict[int, int]:
        return {record.number: place for place, record in enumerate(self.records)}

    @property
    def times_trained(self) -> np.ndarray:
        """How many candidates have the architecture of each one, int."""
        found = self.columns.architectures
        return np.asarray(np.bincount(found, minlength=1)[found])

    def shown(self, name: str) -> np.ndarray:
        """Return the displayed numbers of an objective, see `Objective.shown`.

        Args:
            name: Name of the objective.

        Returns:
            Numbers; NaN where it was not measured.
        """
        objective = self.problem.objective(name)
        whole = None if self.dense is None else self.dense.search
        return self.column(f"shown {name}", lambda one: objective.shown(one.search, whole))

    def bound(self, limit: Limit) -> np.ndarray:
        """Return the numbers that a limit of a metric bounds.

        Args:
            limit: Limit of the quality or of a metric, whose direction may be unknown.

        Returns:
            Numbers; NaN where the metric was not measured.
        """
        problem = self.problem
        return self.column(f"bound {limit.objective}", lambda one: problem.bound(limit, one))

    def spread(self, cost: str) -> np.ndarray:
        """Return how wide the intervals of ratios to dense are.

        Args:
            cost: Name of a cost.

        Returns:
            Upper end of the 95 % interval as a multiple of the ratio; 1 where nothing was measured in turn, and NaN
            where the ratio is in doubt.
        """
        objective = self.problem.objective(cost)

        def found(record: CandidateRecord) -> float:
            one = objective.against_dense(record)
            if one is None:
                return 1.0
            return one.high / one.ratio if one.trusted else float("nan")

        return self.column(f"spread {cost}", found)

    @cached_property
    def complete(self) -> np.ndarray:
        """Whether each candidate was trained to the end, bool."""
        return np.array([not one.stopped for one in self.records], dtype=bool)

    @cached_property
    def selectable(self) -> np.ndarray:
        """Whether each candidate may be chosen, bool, see `CandidateRecord.selectable`."""
        return np.array([one.selectable for one in self.records], dtype=bool)

    @property
    def losses(self) -> np.ndarray:
        """Losses of the quality."""
        return self.problem.quality.loss(1.0) * self.shown(QUALITY)

    def errors(self, metric: str) -> np.ndarray:
        """Return standard errors of a metric.

        Args:
            metric: Name of a further metric; "" for the quality.

        Returns:
            Standard errors; 0 where they are unknown.
        """
        return self.column(f"errors {metric}", lambda one: one.search.error_of(metric))

    @cached_property
    def dense_errors(self) -> np.ndarray:
        """Standard errors of the difference of the quality to dense; 0 without a dense record."""
        if self.dense is None:
            return np.zeros(len(self.records))
        return difference_errors(self.dense.search, [one.search for one in self.records])

    @cached_property
    def changes(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Changes of the quality of each candidate on draws of the samples, and on the samples not drawn.

        Two of float [draws, records], see `draw_changes`, 0 for candidates that were stopped or have no quality; None
        where no error is known.
        """
        known = np.flatnonzero(self.complete & np.isfinite(self.shown(QUALITY)))
        draws = min(_DRAWS, max(_QUALITIES // max(len(known), 1), 50))
        moved = draw_changes([self.records[place].search for place in known.tolist()], draws)
        if moved is None:
            return None
        whole = np.zeros((2, len(moved[0]), len(self.records)))
        whole[:, :, known] = moved
        return whole[0], whole[1]

    def once(self, key: str, work_out: Callable[[], T]) -> T:
        """Work out something that follows from the candidates, and keep it.

        Args:
            key: Name of the result.
            work_out: Function that gives the result.

        Returns:
            The result, which must not be changed.
        """
        if key not in self._kept:
            self._kept[key] = work_out()
        return cast("T", self._kept[key])

    def column(self, key: str, read: Callable[[CandidateRecord], float]) -> np.ndarray:
        """Collect a number of every candidate, and keep it, also for later moments of the study.

        Args:
            key: Name of the number.
            read: Function from a candidate to the number, which depends on the problem and the dense model at most.

        Returns:
            Float [records], which must not be changed.
        """
        return self.columns.column(key, read, reference=self.dense)
