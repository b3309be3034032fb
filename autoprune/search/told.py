"""Measurements that a caller tells of a trial: numbers by the names of costs and metrics."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from autoprune.display import shorten
from autoprune.errors import ConfigurationError, UnknownNameError, error_message, raise_all
from autoprune.plan.kept import KeptChannels
from autoprune.plan.resolved import ResolvedPlan
from autoprune.plan.rules import PART, Rule, at_least, check_fields
from autoprune.plan.validation import is_count, is_finite, is_non_negative, is_share
from autoprune.records.candidate import CandidateRecord
from autoprune.records.comparison import Against
from autoprune.records.energy import Energy
from autoprune.records.measurement import DEFAULT_PROFILE, HIGHEST, Latency, Measurement
from autoprune.records.objectives import ENERGY, QUALITY, Objective
from autoprune.records.paired import quantile
from autoprune.records.problem import Problem
from autoprune.records.work import Work
from autoprune.search.proposal import Result
from autoprune.structure.cost import STRUCTURE_COSTS
from autoprune.structure.topology import Topology

#: A cost, or a cost and its standard error, which latencies have.
Told = float | tuple[float, float]
#: Costs that follow from the structure where they are not told.
_COUNTS = (*STRUCTURE_COSTS, "nonzero_parameters")
#: Rules of the details of a trial.
_KEPT = Rule(
    holds=lambda value: isinstance(value, Mapping) and all(map(_are_indices, value.values())),
    wants="have one or more indices >= 0 for each group",
)
_SECONDS = Rule(
    holds=lambda value: isinstance(value, Mapping) and all(map(is_non_negative, value.values())),
    wants="have a finite number >= 0 for each phase",
)
_RUNGS = Rule(
    holds=lambda value: isinstance(value, tuple | list) and all(map(_is_rung, value)),
    wants="be pairs of a share in [0, 1) and a quality",
)
#: Half the width of a 95 % interval in standard errors.
_HALF_WIDTH = quantile(0.975)


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """Further facts of a trial, all of which may be left out.

    Attributes:
        kept: Group -> indices of the channels that stay; for other groups as many as planned, the first ones.
        trained: Samples passed forward and backward.
        forward: Samples passed forward alone.
        seconds: Phase -> time spent in it.
        rungs: (share of the fine-tune's steps, quality) at each rung.
        fidelity: Share of the fine-tune's steps that were done, in (0, 1]; below 1 where it was stopped early.
        note: What went wrong, so that no other trial starts from its weights; "" for nothing.

    Example:
        >>> Details(trained=6400, seconds={"train": 12.5}).fidelity
        1.0
    """

    kept: Annotated[Mapping[str, tuple[int, ...]], _KEPT] = field(default_factory=dict)
    trained: Annotated[int, at_least(0)] = 0
    forward: Annotated[int, at_least(0)] = 0
    seconds: Annotated[Mapping[str, float], _SECONDS] = field(default_factory=dict)
    rungs: Annotated[tuple[tuple[float, float], ...], _RUNGS] = ()
    fidelity: Annotated[float, PART] = 1.0
    note: Annotated[str, Rule(holds=lambda value: isinstance(value, str), wants="be a text")] = ""

    def __post_init__(self) -> None:
        check_fields("the details of a trial", self)

    def result(self, measurement: Measurement, plan: ResolvedPlan, topology: Topology) -> Result:
        """Return the outcome of a trial.

        Args:
            measurement: Its numbers.
            plan: Its plan.
            topology: Structure of the dense model.

        Returns:
            The outcome.

        Raises:
            SurgeryError: Channels are kept that the model does not have.
            ConfigurationError: More or fewer channels are kept than the plan says.
        """
        planned = plan.first_channels
        kept = KeptChannels(groups={**planned.groups, **self.kept}, dropped=planned.dropped)
        kept.check(topology)
        raise_all(
            "the details of a trial",
            [
                error_message(f"kept channels of {name}", f"be {planned.widths[name]}, as in the plan", f"{width}")
                for name, width in kept.widths.items()
                if width != planned.widths[name]
            ],
        )
        return Result(
            measurement=measurement,
            kept=kept,
            work=Work(trained=self.trained, forward=self.forward),
            seconds=self.seconds,
            rungs=self.rungs,
            fidelity=self.fidelity,
            note=self.note,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Numbers of a trial that a caller tells.

    Attributes:
        quality: Value of the metric that the search keeps up.
        quality_error: Its standard error; 0 where that is unknown.
        costs: Name of a cost -> number, or number and standard error.
        metrics: Name of a further metric -> value.
    """

    quality: float
    quality_error: float
    costs: Mapping[str, Told]
    metrics: Mapping[str, float]

    def measurement(self, expected: Measurement, problem: Problem, dense: CandidateRecord | None) -> Measurement:
        """Check the numbers, and return them as the record of a candidate holds them.

        Args:
            expected: Costs that follow from the structure, for those that are not told.
            problem: Objectives, limits and metrics of the search.
            dense: Record of the dense model, whose latencies others are compared with; None for its own trial.

        Returns:
            The measurement.

        Raises:
            UnknownNameError: There is no such cost or metric.
            ConfigurationError: A number is missing, or is none.
        """
        raise_all("the numbers of a trial", [*self._faults(problem)])
        known = problem.costs
        plain = {name: _number(told) for name, told in self.costs.items() if not known[name].is_compared}
        parts = {name: round(plain[name]) for name in STRUCTURE_COSTS if name in plain}
        parameters = parts.get("parameters", expected.parameters)
        nonzero = round(plain.get("nonzero_parameters", parameters))
        rest = {name: number for name, number in plain.items() if name not in _COUNTS}
        timed = {name: told for name, told in self.costs.items() if known[name].is_latency}
        return replace(
            expected,
            quality=float(self.quality),
            quality_error=float(self.quality_error),
            metrics={**self.metrics, problem.metric: float(self.quality)},
            latencies={_profile(name): _latency(known[name], told, dense) for name, told in timed.items()},
            energy=_energy(known[ENERGY], self.costs[ENERGY], dense) if ENERGY in self.costs else None,
            costs=rest,
            nonzero_parameters=nonzero,
            **parts,  # type: ignore[arg-type]  # integers
        )

    def _faults(self, problem: Problem) -> Iterator[str]:
        known, metrics = problem.costs, problem.further_metrics
        _refuse_unknown("a cost", self.costs, known)
        _refuse_unknown("a metric", self.metrics, metrics)
        if not _is_number(self.quality):
            remedy = "Tell a trial without a quality by tell_failed."
            yield error_message(
                "the quality", f"be a finite number below {HIGHEST:g}", shorten(repr(self.quality)), remedy
            )
        if not (_is_number(self.quality_error) and self.quality_error >= 0):
            yield error_message("quality_error", "be a finite number >= 0", shorten(repr(self.quality_error)))
        for name, told in self.costs.items():
            yield from _faults_of_cost(name, told, timed=known[name].is_compared)
        for name, value in self.metrics.items():
            if not _is_number(value):
                yield error_message(f"the metric {name}", "be a finite number", shorten(repr(value)))
        for name in _wanted(problem):
            if name not in self.costs and name not in self.metrics:
                yield error_message("the numbers of a trial", f"have {name}, an objective or limit", "none")


def _is_number(value: object) -> bool:
    """Tell whether a value is a number of reasonable size."""
    return is_finite(value) and abs(value) < HIGHEST  # type: ignore[arg-type]  # a number by then


def _are_indices(value: object) -> bool:
    return isinstance(value, tuple | list | range) and len(value) > 0 and all(map(is_count, value))


def _is_rung(value: object) -> bool:
    return (
        isinstance(value, tuple | list) and len(value) == 2 and is_share(value[0]) and isinstance(value[1], int | float)
    )


def _refuse_unknown(what: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownNameError(what, name, known)


def _wanted(problem: Problem) -> Iterator[str]:
    """Yield the objectives and limits that do not follow from the structure."""
    limited = {limit.objective for limit in problem.limits.each.values() if not limit.drop}
    for name in dict.fromkeys((*problem.objectives, *sorted(limited))):
        if name not in (QUALITY, problem.metric, *_COUNTS):
            yield name


def _faults_of_cost(name: str, told: Told, *, timed: bool) -> Iterator[str]:
    above = "be a finite number > 0, or such a number and its standard error, which is no larger"
    wants = above if timed else "be a finite number >= 0"
    if isinstance(told, tuple):
        right = timed and len(told) == 2 and all(map(_is_number, told)) and 0 <= told[1] <= told[0] != 0
    else:
        right = _is_number(told) and (told > 0 or (told == 0 and not timed))
    if not right:
        yield error_message(f"the cost {name}", wants, shorten(repr(told)))


def _number(told: Told) -> float:
    return float(told[0] if isinstance(told, tuple) else told)


def _profile(name: str) -> str:
    return name.partition("[")[2].removesuffix("]") or DEFAULT_PROFILE


def _latency(cost: Objective, told: Told, dense: CandidateRecord | None) -> Latency:
    return Latency.of(_against(cost, told, dense), backend="told", rounds=1, clock="device")


def _energy(cost: Objective, told: Told, dense: CandidateRecord | None) -> Energy:
    return Energy.of(_against(cost, told, dense), counter="told", backend="told", bursts=1)


def _against(cost: Objective, told: Told, dense: CandidateRecord | None) -> Against:
    """Compare a number that a user told with the dense model's; intervals follow from the standard errors."""
    value, error = _number(told), float(told[1]) if isinstance(told, tuple) else 0.0
    whole = None if dense is None else cost.comparison(dense.search)
    if dense is not None and whole is None:
        got = f"none for the dense model, trial {dense.number}"
        raise ConfigurationError(error_message(f"the cost {cost.name}", "be told of the dense model first", got))
    # The dense model's ratio is 1, within the interval of its number.
    reference, spread = (value, 0.0) if whole is None else (whole.dense, math.log(whole.high) / _HALF_WIDTH)
    ratio, relative = value / reference, math.hypot(error / value, spread)
    within, apart = math.exp(_HALF_WIDTH * error / value), math.exp(_HALF_WIDTH * relative)
    return Against(
        value=value,
        low=value / within,
        high=value * within,
        dense=reference,
        ratio=ratio,
        ratio_low=ratio / apart,
        ratio_high=ratio * apart,
    )
