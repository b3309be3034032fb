"""Front: the non-dominated candidates, as a table, and the choice of one under limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autoprune.errors import NotFoundError, SelectionError, error_message
from autoprune.front import dominance
from autoprune.front.believed import believed_non_dominated
from autoprune.front.table import columns, share_of
from autoprune.records.candidate import CandidateRecord, dense_record
from autoprune.records.limits import Limits
from autoprune.records.objectives import COSTS, QUALITY
from autoprune.records.problem import Problem

if TYPE_CHECKING:
    import pandas as pd

#: Message where something refers to the dense model and its record is missing.
NO_DENSE = (
    "The dense model has not been measured in this run folder, so drops, shares and limits relative to it are unknown. "
    "Run the study again: it measures the dense model first, and keeps all that is finished."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Non-dominated candidates of a study.

    Attributes:
        members: Candidates on the front, the most expensive first.
        records: All candidates, also those that were stopped early.
        problem: Objectives that dominance compares, and limits of the search.

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

    @classmethod
    def of(cls, records: Sequence[CandidateRecord], problem: Problem) -> Front:
        """Compute the front of all candidates that were trained to the end, on the search split.

        Args:
            records: All candidates. They decide together which latencies count as equal. Removed ones are never on the
                front.
            problem: Objectives and limits of the search.

        Returns:
            The front.
        """
        complete = [record for record in records if not record.stopped]
        points = problem.losses(complete)
        there = np.array([record.selectable for record in complete], dtype=bool)
        mask = there.copy()
        pool = [record for record in complete if record.selectable]
        mask[there] = believed_non_dominated(pool, points[there], problem)
        members = [record for record, inside in zip(complete, mask, strict=True) if inside]
        members.sort(key=lambda record: (-record.search.multiply_adds, -record.search.size_bytes))
        return cls(members=tuple(members), records=tuple(records), problem=problem)

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
        dense = self.dense
        return self.problem.objective(objective).shown(record.search, None if dense is None else dense.search)

    def gain(self, record: CandidateRecord) -> float:
        """Compute the gain of quality over dense on the search split.

        Args:
            record: Candidate.

        Returns:
            The gain, positive is better; NaN without a dense record.
        """
        if self.dense is None:
            return float("nan")
        return self.problem.quality.gain(record.search.quality, self.dense.search.quality)

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
        return dominance.hypervolume(*self._volume(self.dense, cost, worst_quality))

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
        volumes = dominance.growing_hypervolume(*self._volume(self.dense, cost, worst_quality))
        volumes[: self.records.index(self.dense)] = 0.0
        return volumes

    def _volume(
        self, dense: CandidateRecord, cost: str, worst_quality: float | None
    ) -> tuple[np.ndarray, tuple[float, float]]:
        """Collect points [records, (quality, share of dense)], all minimised, and the reference; NaN for stopped
        candidates.
        """
        points = np.full((len(self.records), 2), np.nan)
        complete = np.array([not record.stopped for record in self.records])
        points[complete] = self.problem.losses(self.complete, (QUALITY, cost))
        objective = self.problem.objective(cost)
        points[:, 1] /= 1.0 if objective.is_timed else objective.value(dense.search)
        finite = points[np.isfinite(points).all(axis=1), 0]
        worst = float(finite.max(initial=-np.inf))
        if worst_quality is not None:
            worst = self.problem.quality.loss(worst_quality)
        return points, (worst, 1.0 + 1e-9)

    def knee(self) -> CandidateRecord:
        """Find the member farthest from the line between the cheapest and the best member, both axes scaled to [0, 1].

        Source: Das, On characterizing the "knee" of the Pareto curve, 1999.

        Returns:
            The member.

        Raises:
            SelectionError: For an empty front.
        """
        if not self.members:
            raise SelectionError(error_message("the front", "hold a candidate", "none"))
        points = self.problem.losses(self.members, (QUALITY, "multiply_adds"))
        points[:, 1] = np.log(np.maximum(points[:, 1], 1.0))
        span = np.ptp(points, axis=0)
        scaled = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
        return self.members[int(np.argmin(scaled.sum(axis=1)))]

    def choose(self, limits: Limits | None = None, by: str = "multiply_adds") -> CandidateRecord:
        """Choose the best candidate within limits.

        Args:
            limits: Limits to keep; those of the search when None. Limits() has none.
            by: Objective to choose by: "quality", a cost or a metric of the task.

        Returns:
            The candidate.

        Raises:
            SelectionError: When no candidate keeps the limits, which names the nearest one, or when limits refer to the
                dense model before it was measured.
            UnknownNameError: For an unknown objective or limit.
            ConfigurationError: When a metric is limited from its better side.
        """
        best_by = self.problem.objective(by, "--by")
        limits = self.problem.limits if limits is None else limits
        self.problem.check_limits(limits)
        if self.records and self.dense is None and limits.relative:
            raise SelectionError(f"{', '.join(limits.relative)} cannot be decided. {NO_DENSE}")
        # A dominated candidate may be the only one that keeps a limit on a cost that is no objective.
        for records in (self.members, [r for r in self.records if r.selectable]):
            inside = [r for r in records if self._excess(r, limits) <= 0 and np.isfinite(self.value(r, by))]
            if inside:
                return min(inside, key=lambda record: best_by.loss(self.value(record, by)))
        raise SelectionError(self._none_within(limits, by))

    def within(self, limits: Limits) -> list[CandidateRecord]:
        """List the candidates, trained to the end, that keep limits.

        Args:
            limits: Limits to keep.

        Returns:
            The candidates.
        """
        return [record for record in self.complete if self._excess(record, limits) <= 0]

    def table(self) -> pd.DataFrame:
        """Make a table of the members, the most expensive first.

        Returns:
            One row for each member, see `front.table.columns`. Shares and latency_ratio refer to dense;
            search_<metric>_error is the standard error; masks_ratio is the latency against the same model without
            masks.
        """
        import pandas as pd

        return pd.DataFrame([self.row(record) for record in self.members])

    def row(self, record: CandidateRecord) -> dict[str, object]:
        """Make the row of one candidate.

        Args:
            record: Candidate.

        Returns:
            Column -> value.
        """
        found: dict[str, object] = {}
        for column in columns(self.problem):
            found |= column.data(record, self.dense)
        return found

    def absolute_limits(self, limits: Limits) -> dict[str, float]:
        """Convert limits of costs to numbers.

        Args:
            limits: Limits, absolute or as shares of dense.

        Returns:
            Cost -> limit, the tighter one of two; NaN for a share of an unknown dense cost.
        """
        found: dict[str, float] = {}
        each = limits.each
        for cost in self.problem.costs:
            for name in (name for name, limit in each.items() if limit.objective == cost):
                dense = float("nan") if self.dense is None else self.value(self.dense, cost)
                number = limits.given[name] * (dense if each[name].share else 1.0)
                found[cost] = float(np.minimum(found.get(cost, np.inf), number))
        return found

    def excess(self, record: CandidateRecord, limits: Limits) -> dict[str, float]:
        """Compute by how much a candidate exceeds each limit.

        Args:
            record: Candidate.
            limits: Limits to keep.

        Returns:
            Cost -> excess relative to the limit, "drop" -> excess in the metric's unit, and limit of a metric -> excess
            in its unit; <= 0 where the limit is kept, infinite where it is unknown.
        """
        excess = {name: self.value(record, name) / limit - 1.0 for name, limit in self.absolute_limits(limits).items()}
        quality = float("nan") if self.dense is None else self.dense.search.quality
        drops = []
        for name, limit in limits.each.items():
            number = limits.given[name]
            if limit.drop:
                drops.append(number * abs(quality) if limit.share else number)
            elif not limit.is_cost:
                over = self.problem.bound(limit, record) - number
                excess[name] = (-over if limit.lowest else over) - _rounding(number)
        if drops:
            excess["drop"] = -self.gain(record) - float(np.min(drops)) - _rounding(quality)
        return {name: np.inf if np.isnan(value) else value for name, value in excess.items()}

    def _excess(self, record: CandidateRecord, limits: Limits) -> float:
        """Find the largest violation; <= 0 when all limits are kept."""
        return max(self.excess(record, limits).values(), default=0.0)

    def _none_within(self, limits: Limits, by: str) -> str:
        if not self.members:
            return error_message("the front", "hold a candidate", "none", "Run the study first.")
        for name in (by, *self.absolute_limits(limits)):
            if not any(np.isfinite(self.value(record, name)) for record in self.complete):
                timed = self.problem.objective(name).is_timed
                remedy = "measure.latency_rounds says how often; 0 leaves it out." if timed else ""
                return error_message(
                    f"{name} of the candidates", "be measured where it decides", "no measurement", remedy
                )
        nearest = min(self.members, key=lambda record: self._excess(record, limits))
        asked = ", ".join(f"{name} {value}" for name, value in limits.given.items())
        against = "" if self.dense is None else f" ({self.gain(nearest):+.4g} to dense)"
        numbers = {
            limit.objective: self.value(nearest, limit.objective)
            if limit.is_cost
            else self.problem.bound(limit, nearest)
            for limit in limits.each.values()
            if limit.objective not in (QUALITY, self.metric)
        }
        others = "".join(f", {name} {value:.6g}" for name, value in numbers.items() if np.isfinite(value))
        quality = f"{self.metric} {nearest.search.quality:.4g}{against}"
        got = f"none; the nearest is candidate {nearest.number} with {quality}{others}"
        return error_message("a candidate", f"keep to {asked}", got, "Loosen a limit or run more trials.")


def _rounding(value: float) -> float:
    """Return the tolerance of a limit: metrics are computed in float32, and differ from their limit by rounding."""
    return max(1e-6 * abs(value), 1e-9)
