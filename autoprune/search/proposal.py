"""Proposal and Outcome: what a search asks to be tried, and what it is told about that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autoprune.plan.kept import KeptChannels
from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.measurement import Measurement
from autoprune.records.origins import Origin
from autoprune.records.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A trial to run. Plain data, so that it can be sent to another process or machine.

    Attributes:
        number: Number of the trial.
        origin: Where it comes from.
        plan: Plan to try.
        start_from: Number of the candidate whose weights it starts from; None for the weights of the dense model.
        rungs: Shares of the fine-tune's steps at which the candidate is evaluated, ascending, each in [0, 1).
        work: Work of resolving the plan.
    """

    number: int
    origin: Origin
    plan: ResolvedPlan
    start_from: int | None = None
    rungs: tuple[float, ...] = ()
    work: Work = field(default_factory=Work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Outcome of a trial that ended: trained to the end, or stopped early at a rung.

    Attributes:
        measurement: Quality and costs on the search split.
        kept: Channels that stay; the first ones of each group when None.
        work: Work of the trial.
        seconds: Phase -> time spent in it.
        note: What went wrong, so that no other trial starts from it; "" for nothing.
        rungs: (share of the fine-tune's steps, quality) at each rung.
        fidelity: Share of the fine-tune's steps that were done; below 1 when it was stopped early.
    """

    measurement: Measurement
    kept: KeptChannels | None = None
    work: Work = field(default_factory=Work)
    seconds: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    rungs: tuple[tuple[float, float], ...] = ()
    fidelity: float = 1.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Outcome of a trial that crashed.

    Attributes:
        message: Error in one line.
    """

    message: str


#: What a search is told about a proposal; a bare measurement is that of a trial that was trained to the end.
Outcome = Result | Failure | Measurement
