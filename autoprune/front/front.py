"""Front: the non-dominated candidates, as a table, and the choice of one under limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from autoprune.errors import NotFoundError, SelectionError, error_message
from autoprune.front.choice import Choice, rank, weigh
from autoprune.front.dominance import growing_hypervolume, hypervolume
from autoprune.front.doubts import find_undecided, pools_of
from autoprune.front.limit_check import NO_DENSE, LimitCheck
from autoprune.front.members import find_members, volume_points
from autoprune.front.numbers import Numbers
from autoprune.front.optimism import estimate_optimism
from autoprune.front.scalarised import ScoredChoice, chebyshev, check_weights, choose_by_score, total
from autoprune.front.table import columns, data_rows, share_of
from autoprune.records.annotations import Annotations
from autoprune.records.candidate import CandidateRecord, dense_record
from autoprune.records.columns import Columns
from autoprune.records.confidence import CONFIDENCE
from autoprune.records.limits import Limits
from autoprune.records.objectives import COSTS, QUALITY
from autoprune.records.paired import quantile
from autoprune.records.problem import Problem

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Candidates of a study that no other beats.

    Attributes:
        members: Non-dominated candidates and those dominated within noise only, the most expensive first.
        records: All candidates, also those that were stopped early.
        problem: Objectives that dominance compares, and limits of the search.
        as_good_as: Number of a member dominated within noise -> the one that it is as good as, see `front.as_good`.
        numbers: Numbers of all candidates as arrays.

    Example:
        >>> from autoprune.records.measurement import Measurement
        >>> from autoprune.plan.plan import PruningPlan
        >>> def record(number, quality, multiply_adds):
        ...     numbers = {"parameters": 9, "multiply_adds": multiply_adds, "size_bytes": 36}
        ...     search = Measurement(split="search", quality=quality, quality_error=0.0, metrics={}, **numbers)
        ...     return CandidateRecord(number=number, origin="sampled", plan=PruningPlan(), kept={}, search=search)
        >>> records = [record(0, 0.9, 100), record(1, 0.8, 120), record(2, 0.7, 50)]
        >>> problem = Problem(objectives=("quality", "multiply_adds"), metric="accuracy", higher_is_better=True)
        >>> front = Front.of(records, problem)
        >>> [member.number for member in front.members]
        [0, 2]
    """

    members: tuple[CandidateRecord, ...]
    records: tuple[CandidateRecord, ...]
    problem: Problem
    as_good_as: Mapping[int, int] = field(default_factory=dict)
    numbers: Numbers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", Numbers(self.records, self.problem, self.dense))

    @classmethod
    def of(cls, records: Sequence[CandidateRecord] | Columns, problem: Problem, before: Front | None = None) -> Front:
        """Compute the front of all candidates that were trained to the end, on the search split.

        Args:
            records: All candidates; together they decide which latencies are equal. Removed ones are never members.
            problem: Objectives and limits of the search.
            before: Front at an earlier moment of the same study, whose numbers are taken over.

        Returns:
            The front.
        """
        earlier = None if before is None or before.problem != problem else before.numbers.columns
        columns = records if isinstance(records, Columns) else Columns(records, earlier)
        members, as_good_as = find_members(columns, problem)
        found = cls(members=members, records=columns.records, problem=problem, as_good_as=as_good_as)
        object.__setattr__(found, "numbers", Numbers(columns.records, problem, found.dense, columns))
        return found

    @property
    def strict(self) -> tuple[CandidateRecord, ...]:
        """Members that no other candidate dominates, whatever the noise."""
        return tuple(record for record in self.members if record.number not in self.as_good_as)

    @property
    def undecided(self) -> tuple[CandidateRecord, ...]:
        """Candidates off the front that their measured numbers, some of them in doubt, would put on it."""
        return tuple(self.records[place] for place in find_undecided(self.numbers, self.numbers.places(self.members)))

    @property
    def metric(self) -> str:
        """Name of the metric behind "quality"."""
        return self.problem.metric

    @property
    def complete(self) -> tuple[CandidateRecord, ...]:
        """Candidates that were trained to the end."""
        return tuple(record for record in self.records if not record.stopped)

    @property
    def dense(self) -> CandidateRecord | None:
        """Record of the dense model; None before it was measured."""
        return dense_record(self.records)

    def get(self, number: int) -> CandidateRecord:
        """Look up a finished candidate.

        Args:
            number: Number of the candidate.

        Returns:
            The candidate.

        Raises:
            NotFoundError: For another number; lists the members of the front.
        """
        for record in self.records:
            if record.number == number:
                return record
        known = ", ".join(str(record.number) for record in self.members) or "none yet"
        raise NotFoundError(error_message("a candidate", f"be a finished trial (front: {known})", repr(number)))

    def value(self, record: CandidateRecord, objective: str) -> float:
        """Return the displayed number of an objective, to which limits refer, see `Objective.shown`.

        Args:
            record: Candidate.
            objective: "quality", a cost or a metric of the task.

        Returns:
            The number.
        """
        return self._check(None).value(record, objective)

    def gain(self, record: CandidateRecord) -> float:
        """Compute the gain of quality over dense on the search split.

        Args:
            record: Candidate.

        Returns:
            The gain, positive is better; NaN without a dense record.
        """
        return -self._check(None).drop(record)

    def share(self, record: CandidateRecord) -> float:
        """Compute the multiply-adds as a share of the dense model's.

        Args:
            record: Candidate.

        Returns:
            The share; NaN without a dense record.
        """
        return share_of(COSTS["multiply_adds"], record, self.dense)

    def hypervolume(self, cost: str = "multiply_adds", worst_quality: float | None = None) -> float:
        """Compute the hypervolume over quality and cost as a share of dense, up to the worst quality and a share of 1.

        Args:
            cost: Cost axis.
            worst_quality: Quality at which the hypervolume is 0; that of the worst candidate when None.

        Returns:
            The hypervolume; 0 without candidates, NaN for candidates without a dense record.
        """
        if self.dense is None:
            return float("nan") if self.records else 0.0
        return hypervolume(*volume_points(self.records, self.dense, self.problem, cost, worst_quality))

    def hypervolumes(self, cost: str = "multiply_adds", worst_quality: float | None = None) -> np.ndarray:
        """Compute the hypervolume after each candidate, see `hypervolume`; the curve never falls.

        Args:
            cost: Cost axis. Latencies are rounded to the noise of all measurements.
            worst_quality: Quality at which the hypervolume is 0; that of the worst candidate when None.

        Returns:
            Float [records]; 0 before the dense model, NaN without a dense record.
        """
        if self.dense is None:
            return np.full(len(self.records), np.nan)
        volumes = growing_hypervolume(*volume_points(self.records, self.dense, self.problem, cost, worst_quality))
        volumes[: self.records.index(self.dense)] = 0.0
        return volumes

    def knee(self) -> CandidateRecord:
        """Find the non-dominated member farthest from the line between the cheapest and the best one.

        Both axes are scaled to [0, 1], multiply-adds on a logarithmic scale, see `front.scalarised.total`.

        Returns:
            The member.

        Raises:
            SelectionError: For an empty front.
        """
        return self.knee_choice().choice.record

    def knee_choice(self) -> ScoredChoice:
        """Find the knee, see `knee`, with its lead and its luck.

        Returns:
            The choice.

        Raises:
            SelectionError: For an empty front.
        """
        members = self._pools(CONFIDENCE)[0]
        members = members[[self.records[place].number not in self.as_good_as for place in members.tolist()]]
        if not len(members):
            raise SelectionError(error_message("the front", "hold a candidate", "none"))
        axes = dict.fromkeys((QUALITY, "multiply_adds"), 0.5)
        return choose_by_score(self.numbers, members, self._check(Limits()), axes, total)

    def weighted(
        self, weights: Mapping[str, float], limits: Limits | None = None, confidence: float = CONFIDENCE
    ) -> ScoredChoice:
        """Choose a member of the front by weights, among those that keep limits.

        The member whose largest weighted loss is least is chosen. Losses are scaled to [0, 1] between the best and the
        worst such member, costs on a logarithmic scale, see `front.scalarised.chebyshev`.

        Args:
            weights: Objective -> weight, >= 0: "quality", a cost or a metric of the task. Only their shares count.
            limits: See `choose`.
            confidence: See `choose`.

        Returns:
            The choice, with the share of draws of the samples in which it is ahead of the runner-up.

        Raises:
            SelectionError: See `choose`.
            UnknownNameError: For an unknown objective or limit.
            ConfigurationError: For weights below 0, or all 0, and see `choose`.
        """
        shares = check_weights(weights, self.problem)
        check, places = self._known_check(limits, confidence), self._pools(confidence)[0]
        return choose_by_score(self.numbers, places, check, shares, chebyshev([*shares.values()]))

    def choose(
        self, limits: Limits | None = None, by: str = "multiply_adds", confidence: float = CONFIDENCE
    ) -> CandidateRecord:
        """Choose the best candidate within limits.

        Limits of the loss of quality, and of the quality, are kept with a confidence: by the measured quality and the
        paired standard error of its difference to dense. The dense model itself loses nothing.

        Args:
            limits: Limits to keep; those of the search when None. Limits() has none.
            by: Objective to choose by: "quality", a cost or a metric of the task.
            confidence: One-sided confidence, in [0.5, 1); 0.5 takes numbers as measured, also those in doubt.

        Returns:
            The candidate.

        Raises:
            SelectionError: When no candidate keeps the limits, which names the nearest one, or when limits refer to the
                dense model before it was measured.
            UnknownNameError: For an unknown objective or limit.
            ConfigurationError: When a metric is limited from its better side, or for another confidence.
        """
        self.problem.objective(by, "--by")
        return self.records[rank(self._pools(confidence), self.numbers, self._known_check(limits, confidence), by)[0]]

    def choice(self, limits: Limits | None = None, by: str = "multiply_adds", confidence: float = CONFIDENCE) -> Choice:
        """Choose the best candidate within limits, with its lead and its luck.

        Args:
            limits: See `choose`.
            by: See `choose`.
            confidence: See `choose`.

        Returns:
            The choice: the candidate, its lead over the runner-up, its optimism, and remarks.

        Raises:
            AutopruneError: See `choose`.
        """
        self.problem.objective(by, "--by")
        check, pools = self._known_check(limits, confidence), self._pools(confidence)
        return weigh(rank(pools, self.numbers, check, by)[0], pools, self.numbers, check, by)

    def optimism(
        self, limits: Limits | None = None, by: str = "multiply_adds", confidence: float = 0.5
    ) -> float | None:
        """Estimate how much better the quality of the best candidate within limits looks than it is.

        Args:
            limits: See `choose`.
            by: See `choose`.
            confidence: See `choose`; by default the measured quality decides.

        Returns:
            The difference, see `front.optimism`; None where no error of the quality is known.
        """
        return estimate_optimism(self.numbers, self._check(limits, confidence), by)

    def within(self, limits: Limits, confidence: float = 0.5) -> list[CandidateRecord]:
        """List the candidates, trained to the end, that keep limits.

        Args:
            limits: Limits to keep.
            confidence: One-sided confidence, see `choose`; 0.5 takes the measured quality.

        Returns:
            The candidates.
        """
        kept = self._check(limits, confidence).worst(self.numbers) <= 0
        return [self.records[place] for place in np.flatnonzero(kept & self.numbers.complete).tolist()]

    def table(self) -> pd.DataFrame:
        """Make a table of the members, the most expensive first.

        Returns:
            One row for each member, see `front.table.columns`. Shares and latency_ratio refer to dense;
            search_<metric>_error is the standard error; masks_ratio is the latency against the same model without
            masks; as_good_as is the candidate that dominates the row's within noise only, None for none.
        """
        import pandas as pd

        table = pd.DataFrame(self.rows())
        # Numbers of candidates stay integers beside cells without one.
        return table.assign(
            as_good_as=pd.Series([self.as_good_as.get(one.number) for one in self.members], dtype=object)
        )

    def row(self, record: CandidateRecord, annotations: Annotations | None = None) -> dict[str, object]:
        """Make the row of one candidate.

        Args:
            record: Candidate.
            annotations: Notes and the chosen candidate; None for a row without it.

        Returns:
            Column -> value.
        """
        return self.rows(annotations, [record])[0]

    def rows(
        self, annotations: Annotations | None = None, records: Sequence[CandidateRecord] | None = None
    ) -> list[dict[str, object]]:
        """Make the rows of candidates, for JSON and CSV.

        Args:
            annotations: See `row`.
            records: Candidates; the members of the front when None.

        Returns:
            Column -> value for each; every row has all columns, with None where it has no value.
        """
        shown = columns(self.problem, self.as_good_as, annotations)
        return data_rows(shown, self.members if records is None else records, self.dense)

    def absolute_limits(self, limits: Limits) -> Mapping[str, float]:
        """Convert limits of costs to numbers.

        Args:
            limits: Limits, absolute or as shares of dense.

        Returns:
            Cost -> limit, the tighter one of two; NaN for a share of an unknown dense cost.
        """
        return self._check(limits).absolute()

    def excess(self, record: CandidateRecord, limits: Limits) -> Mapping[str, float]:
        """Compute by how much a candidate exceeds each limit, by its measured quality.

        Args:
            record: Candidate.
            limits: Limits to keep.

        Returns:
            Name -> excess, see `LimitCheck.excess`.
        """
        return self._check(limits).excess(record)

    def _pools(self, confidence: float) -> list[np.ndarray]:
        return pools_of(self.numbers, self.numbers.places(self.members), confidence)

    def _known_check(self, limits: Limits | None, confidence: float) -> LimitCheck:
        check = self._check(limits, confidence)
        self.problem.check_limits(check.limits)
        if self.records and self.dense is None and check.limits.relative:
            raise SelectionError(f"{', '.join(check.limits.relative)} cannot be decided. {NO_DENSE}")
        return check

    def _check(self, limits: Limits | None, confidence: float = 0.5) -> LimitCheck:
        limits = self.problem.limits if limits is None else limits
        quantile(confidence)  # refuses others
        return LimitCheck(problem=self.problem, dense=self.dense, limits=limits, confidence=confidence)
