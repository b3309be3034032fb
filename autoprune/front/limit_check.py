"""Limits that candidates keep or exceed, as far as they can be told from the noise of their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.front.numbers import Numbers
from autoprune.records.candidate import CandidateRecord, dense_record
from autoprune.records.confidence import AS_MEASURED
from autoprune.records.limits import Limit, Limits
from autoprune.records.paired import difference_error, quantile
from autoprune.records.problem import Problem

#: Message where something refers to the dense model and its record is missing.
NO_DENSE = (
    "The dense model has not been measured in this run folder, so drops, shares and limits relative to it are unknown. "
    "Run the study again: it measures the dense model first, and keeps all that is finished."
)
#: Standard errors in half a 95 % interval.
INTERVAL = quantile(0.975)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitCheck:
    """Limits of a study, and what they refer to.

    Attributes:
        problem: Problem of the study.
        dense: Record of the dense model; None before it was measured.
        limits: Limits to keep.
        confidence: One-sided confidence with which limits of the quality and of latency are kept; 0.5 takes the
            measured numbers, also those in doubt.
    """

    problem: Problem
    dense: CandidateRecord | None
    limits: Limits
    confidence: float = 0.5

    @classmethod
    def of_search(cls, records: Sequence[CandidateRecord], problem: Problem) -> LimitCheck:
        """Take the limits of the search, by the measured numbers.

        Args:
            records: Finished candidates, the dense model among them once it was measured.
            problem: Problem of the study.
        """
        return cls(problem=problem, dense=dense_record(records), limits=problem.limits)

    def value(self, record: CandidateRecord, objective: str) -> float:
        """Return the displayed number of an objective, to which limits refer, see `Objective.shown`.

        Args:
            record: Candidate.
            objective: Name of the objective.

        Returns:
            The number; NaN where it was not measured.
        """
        whole = None if self.dense is None else self.dense.search
        return self.problem.objective(objective).shown(record.search, whole)

    def bounded(self, numbers: Numbers, cost: str) -> np.ndarray:
        """Return the numbers of a cost that a limit bounds: at the confidence, where it was measured in turn.

        Args:
            numbers: Numbers of candidates.
            cost: Name of the cost.

        Returns:
            Float [records]; NaN where it was not measured, or where it is in doubt and the confidence above 0.5.
        """
        if self.confidence == AS_MEASURED:
            return numbers.shown(cost)
        return np.asarray(numbers.shown(cost) * numbers.spread(cost) ** (quantile(self.confidence) / INTERVAL))

    def is_known(self, numbers: Numbers, name: str) -> np.ndarray:
        """Tell of which candidates a number can decide: it was measured, and is in no doubt that counts.

        Args:
            numbers: Numbers of candidates.
            name: Objective.

        Returns:
            Bool [records].
        """
        found = self.bounded(numbers, name) if name in self.problem.costs else numbers.shown(name)
        return np.asarray(np.isfinite(found))

    def absolute(self) -> dict[str, float]:
        """Convert limits of costs to numbers.

        Returns:
            Cost -> limit, the tighter one of two; NaN for a share of an unknown dense cost.
        """
        found: dict[str, float] = {}
        each = self.limits.each
        for cost in self.problem.costs:
            for name in (name for name, limit in each.items() if limit.objective == cost):
                dense = float("nan") if self.dense is None else self.value(self.dense, cost)
                number = self.limits.given[name] * (dense if each[name].share else 1.0)
                found[cost] = float(np.minimum(found.get(cost, np.inf), number))
        return found

    @property
    def largest_drop(self) -> float:
        """Largest loss of quality against dense, in the metric's unit; NaN where it is unknown or not limited."""
        return self.limits.largest_drop(float("nan") if self.dense is None else self.dense.search.quality)

    def drop(self, record: CandidateRecord) -> float:
        """Compute the loss of quality against dense on the search split.

        Args:
            record: Candidate.

        Returns:
            The loss; NaN without a dense record.
        """
        if self.dense is None:
            return float("nan")
        return self.problem.quality.gain(self.dense.search.quality, record.search.quality)

    def drop_margin(self, record: CandidateRecord) -> float:
        """Compute how much larger than measured the loss of quality may be, at the confidence.

        Args:
            record: Candidate.

        Returns:
            The quantile times the paired standard error of the difference to dense; 0 without a dense record.
        """
        if self.dense is None:
            return 0.0
        return quantile(self.confidence) * difference_error(record.search, self.dense.search)

    def excess(self, record: CandidateRecord) -> Mapping[str, float]:
        """Compute by how much a candidate exceeds each limit.

        Args:
            record: Candidate.

        Returns:
            Name -> excess, see `excesses`.
        """
        found = self.excesses(Numbers([record], self.problem, self.dense))
        return {name: float(value[0]) for name, value in found.items()}

    def excesses(self, numbers: Numbers) -> dict[str, np.ndarray]:
        """Compute by how much candidates exceed each limit.

        Args:
            numbers: Numbers of the candidates.

        Returns:
            Cost -> excess relative to the limit, "drop" -> excess in the metric's unit, and limit of a metric -> excess
            in its unit, each [records]; <= 0 where the limit is kept, infinite where it is unknown.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # dense costs of 0, infinities, tiny limits
            excess = self._excesses(numbers)
        return {name: np.where(np.isnan(value), np.inf, value) for name, value in excess.items()}

    def _excesses(self, numbers: Numbers) -> dict[str, np.ndarray]:
        excess = {name: self.bounded(numbers, name) / limit - 1.0 for name, limit in self.absolute().items()}
        for name, limit in self.limits.each.items():
            if limit.objective not in self.problem.costs and not limit.drop:
                excess[name] = self._over(numbers, limit)
        if any(limit.drop for limit in self.limits.each.values()):
            dense = float("nan") if self.dense is None else self.dense.search.quality
            drops = numbers.losses - self.problem.quality.loss(dense)
            margins = quantile(self.confidence) * numbers.dense_errors
            excess["drop"] = drops + margins - (self.largest_drop + _rounding(dense))
        return excess

    def worst(self, numbers: Numbers) -> np.ndarray:
        """Find the largest violation of each candidate.

        Args:
            numbers: Numbers of the candidates.

        Returns:
            Violations [records]; <= 0 when all limits are kept.
        """
        found = [*self.excesses(numbers).values()]
        return np.max(found, axis=0) if found else np.zeros(len(numbers.records))

    def is_of_quality(self, limit: Limit) -> bool:
        """Tell whether a limit is one of the quality, in which candidates have noise.

        Args:
            limit: One of the limits.

        Returns:
            Whether it limits the loss of quality, or the quality.
        """
        return limit.drop or self.problem.is_quality(limit.objective)

    def told(self, record: CandidateRecord) -> list[str]:
        """Write the limited numbers of a candidate besides its quality: shares where the limit is one.

        Args:
            record: Candidate.

        Returns:
            Such as "latency_share 0.4375, in doubt"; nothing for a number that was not measured.
        """
        found: dict[str, str] = {}
        for limit in self.limits.each.values():
            if self.is_of_quality(limit):
                continue
            name, cost = limit.objective, self.problem.costs.get(limit.objective)
            value = self.problem.bound(limit, record) if cost is None else self.value(record, name)
            compared = None if cost is None else cost.against_dense(record)
            if cost is not None and limit.share and self.dense is not None:
                name, value = cost.derived("share"), value / (self.value(self.dense, name) or float("nan"))
            doubt = "" if compared is None or compared.trusted else ", in doubt"
            if np.isfinite(value):
                found[name] = f"{name} {value:.{4 if limit.share else 6}g}{doubt}"
        return [*found.values()]

    def noise_of(self, limit: Limit) -> str:
        """Return the name by which measurements keep the noise of a limited metric.

        Args:
            limit: Limit of a metric, or of the loss of quality.

        Returns:
            The name; "" for the quality.
        """
        return "" if self.is_of_quality(limit) else limit.objective

    def margin(self, record: CandidateRecord, limit: Limit) -> float:
        """Compute how much worse than measured a limited metric may be, at the confidence.

        Args:
            record: Candidate.
            limit: Any limit.

        Returns:
            The quantile times the standard error; 0 where it is unknown, and for a limit of a cost.
        """
        if limit.drop:
            return self.drop_margin(record)
        if limit.is_cost:
            return 0.0
        return quantile(self.confidence) * record.search.error_of(self.noise_of(limit))

    def _over(self, numbers: Numbers, limit: Limit) -> np.ndarray:
        number = self.limits.given[limit.name]
        over = numbers.bound(limit) - number
        margins = quantile(self.confidence) * numbers.errors(self.noise_of(limit))
        return np.asarray((-over if limit.lowest else over) - _rounding(number) + margins)


def _rounding(value: float) -> float:
    """Return the tolerance of a limit: metrics are computed in float32, and differ from their limit by rounding."""
    return max(1e-6 * abs(value), 1e-9)
