"""Front: the candidates that nothing beats, as a table, and the choice of one under limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from autoprune.errors import NotFoundError, SelectionError, UnknownNameError, error_message
from autoprune.front import dominance
from autoprune.front.limits import Limits
from autoprune.front.record import CandidateRecord

#: Said wherever something refers to the dense model, and its record is not there.
NO_DENSE = (
    "The dense model has not been measured in this run folder, so drops, shares and limits relative to it are unknown. "
    "Run the study again: it measures the dense model first, and keeps all that is finished."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The non-dominated candidates of a study.

    members: them, the most expensive first. records: all candidates, those that were stopped early included.
    objectives: what dominance looks at. higher_is_better: direction of the quality.
    quality_name: the metric behind "quality". limits: what the search was to keep to.
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
        """The front of all candidates that were trained to the end, decided on the search split.

        Which latencies count as equal follows from all that was measured. What was removed since then stays off.
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
        """Every candidate that was trained to the end."""
        return tuple(record for record in self.records if not record.stopped)

    @property
    def dense(self) -> CandidateRecord | None:
        """The dense model's record, None before it was measured."""
        return next((record for record in self.records if record.origin == "dense"), None)

    def get(self, number: int) -> CandidateRecord:
        """The finished candidate of that number; NotFoundError lists the front's."""
        for record in self.records:
            if record.number == number:
                return record
        known = ", ".join(str(record.number) for record in self.members) or "none yet"
        raise NotFoundError(error_message("a candidate", f"be a finished trial (front: {known})", repr(number)))

    def value(self, record: CandidateRecord, objective: str) -> float:
        """The number of an objective ("quality" or a cost) as it is shown and limited.

        Latency is the ratio to dense, measured in turn, times the dense model's own median in this study: a
        candidate measured while the machine was slow does not look slow.
        """
        latency, dense = record.search.latency, self.dense
        if objective == "latency_ms" and latency is not None and dense is not None and dense.search.latency is not None:
            return latency.ratio * dense.search.latency.dense_ms
        return record.search.value(objective)

    def gain(self, record: CandidateRecord) -> float:
        """Quality over dense on the search split, positive is better; not a number without a dense record."""
        if self.dense is None:
            return float("nan")
        difference = record.search.quality - self.dense.search.quality
        return difference if self.higher_is_better else -difference

    def share(self, record: CandidateRecord) -> float:
        """Multiply-adds as a share of the dense model's; not a number without a dense record."""
        if self.dense is None:
            return float("nan")
        return record.search.multiply_adds / max(self.dense.search.multiply_adds, 1)

    def hypervolume(self, cost: str = "multiply_adds", worst_quality: float | None = None) -> float:
        """Hypervolume over (quality, cost as a share of dense) up to (worst quality, 1).

        worst_quality: the reference; that of the worst candidate when None. Not a number for candidates without
        a dense record.
        """
        if self.dense is None:
            return float("nan") if self.records else 0.0
        return dominance.hypervolume(*self._volume(self.dense, cost, worst_quality))

    def hypervolumes(self, cost: str = "multiply_adds", worst_quality: float | None = None) -> np.ndarray:
        """Hypervolume after each candidate, float [records], see `hypervolume`; 0 until dense is there, and not
        numbers where it is not.

        Latencies are rounded to the noise of all that was measured, so the curve never falls.
        """
        if self.dense is None:
            return np.full(len(self.records), np.nan)
        volumes = dominance.growing_hypervolume(*self._volume(self.dense, cost, worst_quality))
        volumes[: self.records.index(self.dense)] = 0.0
        return volumes

    def _volume(
        self, dense: CandidateRecord, cost: str, worst_quality: float | None
    ) -> tuple[np.ndarray, tuple[float, float]]:
        """Points [records, (quality, share of dense)] to be minimised, and the reference.

        What was stopped early is not a number.
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
        """The front's member farthest from the line between its cheapest and its best, both axes scaled to [0, 1].

        Source: Das, On characterizing the "knee" of the Pareto curve, 1999. Raises SelectionError when empty.
        """
        if not self.members:
            raise SelectionError(error_message("the front", "hold a candidate", "none"))
        points = dominance.objective_matrix(self.members, ("quality", "multiply_adds"), self.higher_is_better)
        points[:, 1] = np.log(np.maximum(points[:, 1], 1.0))
        span = np.ptp(points, axis=0)
        scaled = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
        return self.members[int(np.argmin(scaled.sum(axis=1)))]

    def choose(self, limits: Limits | None = None, by: str = "multiply_adds") -> CandidateRecord:
        """The candidate within the limits that is best `by` "quality" or a cost.

        limits: those of the search when None; Limits() is none at all.
        Raises SelectionError that names the nearest candidate when none is within the limits, and where limits refer
        to the dense model before it was measured.
        """
        if by not in dominance.OBJECTIVES:
            raise UnknownNameError("--by", by, dominance.OBJECTIVES)
        limits = self.limits if limits is None else limits
        if self.records and self.dense is None and limits.relative:
            raise SelectionError(f"{', '.join(limits.relative)} cannot be decided. {NO_DENSE}")
        # A limit on what is no objective may be kept by a dominated candidate alone.
        for records in (self.members, [r for r in self.records if r.selectable]):
            inside = [r for r in records if self._excess(r, limits) <= 0 and np.isfinite(self.value(r, by))]
            if inside:
                sign = -1.0 if by == "quality" and self.higher_is_better else 1.0
                return min(inside, key=lambda record: sign * self.value(record, by))
        raise SelectionError(self._none_within(limits, by))

    def within(self, limits: Limits) -> list[CandidateRecord]:
        """The candidates trained to the end that keep to the limits."""
        return [record for record in self.complete if self._excess(record, limits) <= 0]

    def table(self) -> pd.DataFrame:
        """One row for each member, the most expensive first; shares are of dense, latency_ratio too.

        search_<metric>_error: its standard error. masks_ratio: latency against the same model without masks.
        """
        return pd.DataFrame([self.row(record) for record in self.members])

    def row(self, record: CandidateRecord) -> dict[str, object]:
        """The columns of one candidate."""
        search = record.search
        latency, masks = search.latency, search.masked
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
        """Cost name -> limit as a number. A share is of the dense model: not a number where that is not known."""
        found = limits.cost_limits
        for name, share in limits.cost_share_limits.items():
            limit = float("nan") if self.dense is None else share * self.value(self.dense, name)
            found[name] = float(np.minimum(found.get(name, np.inf), limit))
        return found

    def excess(self, record: CandidateRecord, limits: Limits) -> dict[str, float]:
        """Limit -> by how much a candidate exceeds it, <= 0 when it keeps to it; infinite for what is not known.

        Costs by their name, relative to the limit; "drop" in the metric's unit.
        """
        excess = {name: self.value(record, name) / limit - 1.0 for name, limit in self.absolute_limits(limits).items()}
        drops = [] if limits.max_drop is None else [limits.max_drop]
        if limits.max_drop_share is not None:
            quality = float("nan") if self.dense is None else self.dense.search.quality
            drops.append(limits.max_drop_share * abs(quality))
        if drops:
            # The tolerance keeps a drop of exactly the limit inside, whatever the rounding of the difference.
            excess["drop"] = -self.gain(record) - float(np.min(drops)) - 1e-9
        return {name: np.inf if np.isnan(value) else value for name, value in excess.items()}

    def _excess(self, record: CandidateRecord, limits: Limits) -> float:
        """Largest violation, <= 0 when all are kept."""
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
