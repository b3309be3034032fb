"""By how much a chosen candidate is ahead of the next one, and whether that is more than the noise."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from autoprune.front.limit_check import INTERVAL, LimitCheck
from autoprune.records.candidate import CandidateRecord
from autoprune.records.confidence import AS_MEASURED, CONFIDENCE
from autoprune.records.metric_objectives import further_metric
from autoprune.records.objectives import QUALITY, Objective
from autoprune.records.paired import difference_error, quantile
from autoprune.records.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Difference of two candidates in one objective.

    Attributes:
        objective: The objective.
        value: Number of the chosen candidate.
        other: Number of the other one.
        noise: Difference that is told from luck at the confidence; 0 for what is counted, such as multiply-adds, and
            NaN where it is not known.
        doubts: How many of the two numbers are in doubt.
    """

    objective: Objective
    value: float
    other: float
    noise: float
    doubts: int = 0

    @property
    def gain(self) -> float:
        """By how much the chosen candidate is better; negative where it is worse."""
        return self.objective.gain(self.value, self.other)

    @property
    def is_certain(self) -> bool:
        """Whether the difference is more than the noise."""
        return abs(self.gain) > self.noise

    @property
    def turned(self) -> Gap:
        """The same difference, seen from the other candidate."""
        return replace(self, value=self.other, other=self.value)

    def text(self, confidence: float, *, as_measured: bool = False) -> str:
        """Write both numbers, that of the chosen candidate first, and whether they differ by more than the noise.

        Args:
            confidence: Confidence of the noise.
            as_measured: Whether the choice took numbers as measured, whatever their noise.

        Returns:
            Such as "accuracy 0.8310 against 0.8270, within the noise of 0.0062 (90% confidence)".
        """
        unit = f" {self.objective.unit}" if self.objective.unit else ""
        value, other = (format(number, self.objective.form) for number in (self.value, self.other))
        both = f"{self.objective.title} {value} against {other}{unit}"
        if self.noise == 0:
            return both
        if math.isnan(self.noise):
            return f"{both}, {('with unknown noise', 'one of them in doubt', 'both in doubt')[self.doubts]}"
        than = "more than" if self.is_certain else "within"
        sure = f"{100 * confidence:.4g}% confidence{', which the choice did not ask for' if as_measured else ''}"
        return f"{both}, {than} the noise of {self.noise:.2g}{unit} ({sure})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """Comparison of a chosen candidate with the runner-up: the best other one that keeps the limits.

    A runner-up off the front may be better in the number that decides, if that is no objective of the search, or within
    the noise.

    Attributes:
        over: The runner-up.
        by: Difference in the objective that decides between them.
        quality: Difference in quality; the same where the quality decides.
        confidence: One-sided confidence with which differences are told from luck.
        also: Differences in the other objectives of a choice by several, such as the knee.
        as_measured: Whether the choice took numbers as measured, whatever their noise.
    """

    over: CandidateRecord
    by: Gap
    quality: Gap
    confidence: float
    also: tuple[Gap, ...] = ()
    as_measured: bool = False

    @property
    def is_certain(self) -> bool:
        """Whether the chosen candidate is ahead by more than the noise."""
        return self.by.gain > self.by.noise

    @property
    def sentence(self) -> str:
        """Say by how much it is ahead, and whether that is more than the noise."""
        gaps = [self.by] if self.by == self.quality else [self.by, self.quality]
        said = "; ".join(gap.turned.text(self.confidence, as_measured=self.as_measured) for gap in (*gaps, *self.also))
        alike = 0 < self.by.noise >= abs(self.by.gain) and not self.also
        either = ": either may be better" if alike else ""
        return f"The runner-up is candidate {self.over.number}: {said}{either}."


def compare_leaders(
    chosen: CandidateRecord, over: CandidateRecord, check: LimitCheck, by: str, also: Iterable[str] = ()
) -> Lead:
    """Compare a chosen candidate with the runner-up.

    Args:
        chosen: The chosen candidate.
        over: The runner-up.
        check: Limits that both keep. Differences are told from luck at its confidence, or at 90 % where that is 0.5.
        by: Objective that the candidate was chosen by.
        also: Other objectives that it was chosen by.

    Returns:
        The comparison.
    """
    confidence = check.confidence if check.confidence > AS_MEASURED else CONFIDENCE
    decides = quality = quality_gap(chosen, over, check.problem, confidence)
    if not check.problem.is_quality(by):
        decides = _gap(check.problem.objective(by), chosen, over, check, confidence)
    told = {check.problem.objective(by).name, QUALITY}
    others = [check.problem.objective(name) for name in also]
    gaps = tuple(_gap(one, chosen, over, check, confidence) for one in others if one.name not in told)
    return Lead(
        over=over,
        by=decides,
        quality=quality,
        confidence=confidence,
        also=gaps,
        as_measured=check.confidence == AS_MEASURED,
    )


def quality_gap(
    chosen: CandidateRecord, other: CandidateRecord, problem: Problem, confidence: float = CONFIDENCE
) -> Gap:
    """Compare the qualities of two candidates on the search split, by the paired standard error.

    Args:
        chosen: A candidate.
        other: Another one.
        problem: Problem of the study.
        confidence: One-sided confidence of the noise.

    Returns:
        The difference; its noise is NaN where no error is known.
    """
    return _metric_gap(problem.quality, chosen, other, confidence)


def _metric_gap(metric: Objective, chosen: CandidateRecord, over: CandidateRecord, confidence: float) -> Gap:
    error = difference_error(chosen.search, over.search, further_metric(metric.name))
    return Gap(
        objective=metric,
        value=metric.value(chosen.search),
        other=metric.value(over.search),
        noise=quantile(confidence) * error if error > 0 else math.nan,
    )


def _gap(
    objective: Objective, chosen: CandidateRecord, over: CandidateRecord, check: LimitCheck, confidence: float
) -> Gap:
    """Compare two candidates in a further metric, by the paired standard error, or in a cost, by its intervals."""
    if not objective.is_cost:
        return _metric_gap(objective, chosen, over, confidence)
    value, other = (check.value(record, objective.name) for record in (chosen, over))
    found = [one for record in (chosen, over) if (one := objective.against_dense(record)) is not None]
    noise, doubts = 0.0, sum(not one.trusted for one in found)
    if found:
        spread = math.hypot(*(math.log(one.high / one.ratio) / INTERVAL for one in found))
        noise = other * math.expm1(quantile(confidence) * spread) if not doubts else math.nan
    return Gap(objective=objective, value=value, other=other, noise=noise, doubts=doubts)
