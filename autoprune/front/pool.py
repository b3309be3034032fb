"""Candidates that are compared with each other, and which of their objectives have noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.records.candidate import CandidateRecord
from autoprune.records.metric_objectives import further_metric
from autoprune.records.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Candidates that are compared with each other.

    Attributes:
        records: Candidates.
        points: Their losses [records, objectives]; lower is better.
        strict: Whether each is non-dominated, bool [records].
        in_doubt: Losses that decide nothing, bool [records, objectives].
        problem: Problem of the study.
        names: Numbers >= 0 that name the candidates, the same ones while their list grows; int [records].
    """

    records: Sequence[CandidateRecord]
    points: np.ndarray
    strict: np.ndarray
    in_doubt: np.ndarray
    problem: Problem
    names: np.ndarray


@dataclass(frozen=True, slots=True)
class Noisy:
    """Objectives that are metrics, so that they have noise.

    Attributes:
        columns: Their numbers among the objectives.
        metrics: Names of the metrics, "" for the quality.
        first: Number of the quality among them, 0 where it is no objective.
    """

    columns: tuple[int, ...]
    metrics: tuple[str, ...]
    first: int

    @classmethod
    def of(cls, problem: Problem) -> Noisy:
        """Find the objectives that are metrics.

        Args:
            problem: Problem of the study.
        """
        columns = [place for place, row in enumerate(problem.rows) if not row.is_cost]
        metrics = [further_metric(problem.objectives[place]) for place in columns]
        return cls(tuple(columns), tuple(metrics), metrics.index("") if "" in metrics else 0)

    def independent(self, records: Sequence[CandidateRecord]) -> bool:
        """Tell whether no noise is known to be common to candidates, as in older records.

        Args:
            records: Candidates.
        """
        return not any(record.search.deviations_of(name) for record in records for name in self.metrics)
