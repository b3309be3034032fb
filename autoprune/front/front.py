"""Front: the non-dominated candidates, as a table, and the choice of one under limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from autoprune.errors import NotFoundError, SelectionError, UnknownNameError, error_message
from autoprune.front import dominance
from autoprune.front.limits import Limits
from autoprune.records.candidate import CandidateRecord

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
        objectives: Objectives that dominance compares.
        higher_is_better: Direction of the quality.
        quality_name: Name of the metric behind "quality".
        limits: Limits of the search.

    Example:
        >>> from autoprune.records.measurement import Measurement
        >>> from autoprune.plan.plan import PruningPlan
        >>> def record(number, quality, multiply_adds):
        ...     numbers = {"parameters": 9, "multiply_adds": multiply_adds, "size_bytes": 36, "latency": None}
        ...     search = Measurement(split="search", quality=quality, quality_error=0.0, metrics={}, **numbers)
        ...     return CandidateRecord(number=number, origin="sampled", plan=PruningPlan(), kept={}, search=search)
        >>> records = [record(0, 0.9, 100), record(1, 0.8, 120), record(2, 0.7, 50)]
        >>> front = Front.of(records, ("quality", "multiply_adds"), True, "accuracy")
        >>> [member.number for member in front.members]
        [0, 2]
    """

    members: tuple[CandidateRecord, ...]
    records: tuple[CandidateRecord, ...]
    objectives: tuple[str, ...]
    higher_is_better: bool
    quality_name: str
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of(
        cls,
        records: Sequence[CandidateRecord],
        objectives: Sequence[str],
        higher_is_better: bool,
        quality_name: str,
        limits: Limits | None = None,
    ) -> Front:
        """Compute the front of all candidates that were trained to the end, on the search split.

        Args:
            records: All candidates. They decide together which latencies count as equal. Removed ones are never on the
                front.
            objectives: Names of the objectives.
            higher_is_better: Direction of the quality.
            quality_name: Name of the metric behind "quality".
            limits: Limits of the search; None for none.

        Returns:
            The front.
        """
        complete = [record for record in records if not record.stopped]
        points = dominance.objective_matrix(complete, objectives, higher_is_better)
        there = np.array([record.selectable for record in complete], dtype=bool)
        mask = there.copy()
        mask[there] = dominance.non_dominated(points[there])
        members = [record for record, inside in zip(complete, mask, strict=True) if inside]
        members.sort(key=lambda record: (-record.search.multiply_adds, -record.search.size_bytes))
        return cls(
            members=tuple(members),
            records=tuple(records),
            objectives=tuple(objectives),
            higher_is_better=higher_is_better,
            quality_name=quality_name,
            limits=Limits() if limits is None else limits,
        )

    @property
    def complete(self) -> tuple[CandidateRecord, ...]:
        """Candidates that were trained to the end."""
        return tuple(record for record in self.records if not record.stopped)

    @property
    def dense(self) -> CandidateRecord | None:
        """Record of the dense model; None before it was measured."""
        return next((record for record in self.records if record.origin == "dense"), None)

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
        """Return the displayed number of an objective, to which limits refer.

        Latency is the ratio to dense, measured in turn, times the dense model's median in this study: a candidate that
        was measured while the machine was slow does not look slow.

        Args:
            record: Candidate.
            objective: "quality" or a cost.

        Returns:
            The number.
        """
        latency, dense = record.search.latency, self.dense
        if objective == "latency_ms" and latency is not None and dense is not None and dense.search.latency is not None:
            return latency.ratio * dense.search.latency.dense_ms
        return record.search.value(objective)

    def gain(self, record: CandidateRecord) -> float:
        """Compute the gain of quality over dense on the search split.

        Args:
            record: Candidate.

        Returns:
            The gain, positive is better; NaN without a dense record.
        """
        if self.dense is None:
            return float("nan")
        difference = record.search.quality - self.dense.search.quality
        return difference if self.higher_is_better else -difference

    def share(self, record: CandidateRecord) -> float:
        """Compute the multiply-adds as a share of the dense model's.

        Args:
            record: Candidate.

        Returns:
            The share; NaN without a dense record.
        """
        if self.dense is None:
            return float("nan")
        return record.search.multiply_adds / max(self.dense.search.multiply_adds, 1)

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
        points[complete] = dominance.objective_matrix(self.complete, ("quality", cost), self.higher_is_better)
        points[:, 1] /= dense.search.value(cost) if cost != "latency_ms" else 1.0
        finite = points[np.isfinite(points).all(axis=1), 0]
        sign = -1.0 if self.higher_is_better else 1.0
        worst = float(finite.max(initial=-np.inf)) if worst_quality is None else sign * worst_quality
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
        points = dominance.objective_matrix(self.members, ("quality", "multiply_adds"), self.higher_is_better)
        points[:, 1] = np.log(np.maximum(points[:, 1], 1.0))
        span = np.ptp(points, axis=0)
        scaled = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
        return self.members[int(np.argmin(scaled.sum(axis=1)))]

    def choose(self, limits: Limits | None = None, by: str = "multiply_adds") -> CandidateRecord:
        """Choose the best candidate within limits.

        Args:
            limits: Limits to keep; those of the search when None. Limits() has none.
            by: "quality" or the cost to minimise.

        Returns:
            The candidate.

        Raises:
            SelectionError: When no candidate keeps the limits, which names the nearest one, or when limits refer to the
                dense model before it was measured.
            UnknownNameError: For an unknown objective.
        """
        if by not in dominance.OBJECTIVES:
            raise UnknownNameError("--by", by, dominance.OBJECTIVES)
        limits = self.limits if limits is None else limits
        if self.records and self.dense is None and limits.relative:
            raise SelectionError(f"{', '.join(limits.relative)} cannot be decided. {NO_DENSE}")
        # A dominated candidate may be the only one that keeps a limit on a cost that is no objective.
        for records in (self.members, [r for r in self.records if r.selectable]):
            inside = [r for r in records if self._excess(r, limits) <= 0 and np.isfinite(self.value(r, by))]
            if inside:
                sign = -1.0 if by == "quality" and self.higher_is_better else 1.0
                return min(inside, key=lambda record: sign * self.value(record, by))
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
            One row for each member. Shares and latency_ratio refer to dense; search_<metric>_error is the standard
            error; masks_ratio is the latency against the same model without masks.
        """
        return pd.DataFrame([self.row(record) for record in self.members])

    def row(self, record: CandidateRecord) -> dict[str, object]:
        """Make the row of one candidate.

        Args:
            record: Candidate.

        Returns:
            Column -> value.
        """
        search = record.search
        latency, masks = search.latency, search.mask_latency
        row: dict[str, object] = {
            "candidate": record.number,
            "origin": record.origin,
            f"search_{self.quality_name}": search.quality,
            f"search_{self.quality_name}_error": search.quality_error,
        }
        if record.test is not None:
            test = f"test_{self.quality_name}"
            row |= {test: record.test.quality, f"{test}_error": record.test.quality_error}
        row |= {
            "parameters": search.parameters,
            "nonzero_parameters": search.nonzero_parameters,
            "size_bytes": search.size_bytes,
            "multiply_adds": search.multiply_adds,
            "multiply_adds_share": self.share(record),
            "latency_ms": self.value(record, "latency_ms"),
            "latency_ratio": float("nan") if latency is None else latency.ratio,
            "latency_ratio_low": float("nan") if latency is None else latency.ratio_low,
            "latency_ratio_high": float("nan") if latency is None else latency.ratio_high,
            "masks_ratio": float("nan") if masks is None else masks.ratio,
            "masks_ratio_low": float("nan") if masks is None else masks.ratio_low,
            "masks_ratio_high": float("nan") if masks is None else masks.ratio_high,
        }
        return row

    def absolute_limits(self, limits: Limits) -> dict[str, float]:
        """Convert limits of costs to numbers.

        Args:
            limits: Limits, absolute or as shares of dense.

        Returns:
            Cost -> limit; NaN for a share of an unknown dense cost.
        """
        found = limits.cost_limits
        for name, share in limits.cost_share_limits.items():
            limit = float("nan") if self.dense is None else share * self.value(self.dense, name)
            found[name] = float(np.minimum(found.get(name, np.inf), limit))
        return found

    def excess(self, record: CandidateRecord, limits: Limits) -> dict[str, float]:
        """Compute by how much a candidate exceeds each limit.

        Args:
            record: Candidate.
            limits: Limits to keep.

        Returns:
            Cost -> excess relative to the limit, and "drop" -> excess in the metric's unit; <= 0 where the limit is
            kept, infinite where it is unknown.
        """
        excess = {name: self.value(record, name) / limit - 1.0 for name, limit in self.absolute_limits(limits).items()}
        drops = [] if limits.max_drop is None else [limits.max_drop]
        if limits.max_drop_share is not None:
            quality = float("nan") if self.dense is None else self.dense.search.quality
            drops.append(limits.max_drop_share * abs(quality))
        if drops:
            # The tolerance allows a drop of exactly the limit, whatever the rounding of the difference.
            excess["drop"] = -self.gain(record) - float(np.min(drops)) - 1e-9
        return {name: np.inf if np.isnan(value) else value for name, value in excess.items()}

    def _excess(self, record: CandidateRecord, limits: Limits) -> float:
        """Find the largest violation; <= 0 when all limits are kept."""
        return max(self.excess(record, limits).values(), default=0.0)

    def _none_within(self, limits: Limits, by: str) -> str:
        if not self.members:
            return error_message("the front", "hold a candidate", "none", "Run the study first.")
        for name in (by, *self.absolute_limits(limits)):
            if not any(np.isfinite(self.value(record, name)) for record in self.complete):
                remedy = "StudySettings.latency_rounds says how often; 0 leaves it out."
                return error_message(
                    f"{name} of the candidates", "be measured where it decides", "no measurement", remedy
                )
        nearest = min(self.members, key=lambda record: self._excess(record, limits))
        asked = ", ".join(f"{name} {value}" for name, value in limits.given.items())
        search = nearest.search
        latency = self.value(nearest, "latency_ms")
        against = "" if self.dense is None else f"({self.gain(nearest):+.4g} to dense), "
        got = (
            f"none; the nearest is candidate {nearest.number} with {self.quality_name} {search.quality:.4g} "
            f"{against}{search.size_bytes} bytes"
            f"{f', {latency:.3g} ms' if np.isfinite(latency) else ''}"
        )
        return error_message("a candidate", f"keep to {asked}", got, "Loosen a limit or run more trials.")
