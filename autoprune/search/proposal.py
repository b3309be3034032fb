"""Proposal and Outcome: what a search asks to be tried, and what it is told about that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from autoprune.codec import Format, from_plain, parse, stored, to_plain
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.measurement import Measurement
from autoprune.records.origins import Origin
from autoprune.records.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A trial to run. Plain data, which `to_json` sends to another process or machine.

    Attributes:
        number: Number of the trial.
        origin: Where it comes from.
        plan: Plan to try.
        start_from: Number of the candidate whose weights it starts from; None for the weights of the dense model.
        rungs: Shares of the fine-tune's steps at which the candidate is evaluated, ascending, each in [0, 1).
        work: Work of resolving the plan.

    Example:
        >>> from autoprune import PruningPlan, Topology
        >>> empty = Topology(groups=(), unprunable=(), products=(), tensors={})
        >>> proposal = Proposal(number=3, origin=Origin.SAMPLED, plan=ResolvedPlan.of(PruningPlan(), empty))
        >>> Proposal.from_json(proposal.to_json()) == proposal
        True
    """

    number: int
    origin: Origin
    plan: ResolvedPlan
    start_from: int | None = None
    rungs: tuple[float, ...] = ()
    work: Work = field(default_factory=Work)

    def to_json(self) -> str:
        """Write versioned JSON.

        Returns:
            JSON text.
        """
        plan = self.plan
        data = _Stored(
            number=self.number,
            origin=self.origin,
            asked=plan.asked,
            plan=plan.plan,
            widths=plan.widths,
            gone=tuple(sorted(plan.gone)),
            start_from=self.start_from,
            rungs=self.rungs,
            work=self.work.counts,
        )
        return json.dumps(to_plain(data))

    @classmethod
    def from_json(cls, text: str | bytes) -> Proposal:
        """Read a proposal from JSON.

        Args:
            text: JSON that `to_json` wrote.

        Returns:
            The proposal.

        Raises:
            StorageError: For text that is none, or that a later version wrote.
        """
        one = from_plain(_Stored, parse(text, "a proposal"), "a proposal")
        return cls(
            number=one.number,
            origin=one.origin,
            plan=ResolvedPlan(
                asked=one.asked, plan=one.plan, widths=MappingProxyType(one.widths), gone=frozenset(one.gone)
            ),
            start_from=one.start_from,
            rungs=one.rungs,
            work=Work.of_counts(one.work),
        )


@stored(Format(what="a proposal", version=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """Stored form of a proposal."""

    number: int
    origin: Origin
    asked: PruningPlan
    plan: PruningPlan
    widths: Mapping[str, int]
    gone: tuple[str, ...]
    start_from: int | None
    rungs: tuple[float, ...]
    work: tuple[int, int, int]


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

    def to_json(self) -> str:
        """Write versioned JSON, for the process that proposed the trial.

        Returns:
            JSON text.
        """
        data = _StoredResult(
            measurement=self.measurement,
            groups=None if self.kept is None else self.kept.groups,
            dropped=() if self.kept is None else self.kept.dropped,
            work=self.work.counts,
            seconds=self.seconds,
            note=self.note,
            rungs=self.rungs,
            fidelity=self.fidelity,
        )
        return json.dumps(to_plain(data))

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "a result") -> Result:
        """Read a result from JSON.

        Args:
            text: JSON that `to_json` wrote.
            where: Name of the source, for the message.

        Returns:
            The result.

        Raises:
            StorageError: For text that is none, or that a later version wrote.
        """
        one = from_plain(_StoredResult, parse(text, where), where)
        return cls(
            measurement=one.measurement,
            kept=None if one.groups is None else KeptChannels(groups=one.groups, dropped=one.dropped),
            work=Work.of_counts(one.work),
            seconds=one.seconds,
            note=one.note,
            rungs=one.rungs,
            fidelity=one.fidelity,
        )


@stored(Format(what="the result of a trial", version=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredResult:
    """Stored form of a result."""

    measurement: Measurement
    groups: Mapping[str, tuple[int, ...]] | None
    dropped: tuple[str, ...]
    work: tuple[int, int, int]
    seconds: Mapping[str, float]
    note: str
    rungs: tuple[tuple[float, float], ...]
    fidelity: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Outcome of a trial that crashed.

    Attributes:
        message: Error in one line.
        infeasible: Whether the candidate itself is to blame, as where it needs more memory than there is, so that
            the search should propose no such candidates.
    """

    message: str
    infeasible: bool = False


#: What a search is told about a proposal; a bare measurement is that of a trial that was trained to the end.
Outcome = Result | Failure | Measurement
