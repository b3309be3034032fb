"""Crew: runs the proposals of a search, and reports how they ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from autoprune.errors import describe_exception, is_out_of_memory
from autoprune.records.candidate import CandidateRecord
from autoprune.search.proposal import Failure, Proposal, Result
from autoprune.structure.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A trial that ended.

    Attributes:
        proposal: The trial.
        outcome: Its result, or why there is none.
        store: Stores the record of a result, see `Search.tell`; None for a failure.
        traceback: Traceback of a failure.
    """

    proposal: Proposal
    outcome: Result | Failure
    store: Callable[[CandidateRecord], None] | None = None
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """A worker that runs a trial.

    Attributes:
        name: Name of the worker: host and process.
        trial: Number of the trial that it runs.
        seconds: How long it has run it.
    """

    name: str
    trial: int
    seconds: float


class Crew(Protocol):
    """Runs proposals."""

    @property
    def out(self) -> int:
        """Number of proposals that were started and have not ended."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether another proposal can be started."""
        ...

    @property
    def workers(self) -> Sequence[WorkerState]:
        """The workers that run a trial; empty where trials run in this process."""
        ...

    def start(self, proposal: Proposal) -> None:
        """Start a trial.

        Args:
            proposal: The trial.
        """
        ...

    def wait(self) -> Sequence[Ended]:
        """Wait until a trial ends, or for a moment.

        Returns:
            The trials that ended.

        Raises:
            StorageError: A file cannot be read or written; the trial is tried again by the next run.
        """
        ...

    def __enter__(self) -> Crew:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; what still runs is ended at once."""
        ...


def failure_of(error: BaseException, proposal: Proposal, topology: Topology) -> Failure:
    """Describe a crash of a trial.

    Args:
        error: The exception.
        proposal: The trial.
        topology: Structure of the dense model.

    Returns:
        The failure. Where memory ran out, it tells the size of the candidate, and that the search should avoid it.
    """
    message = describe_exception(error)
    if not is_out_of_memory(error):
        return Failure(message=message)
    kept = proposal.plan.first_channels
    cost = topology.cost(kept.widths, kept.dropped)
    size = f"{cost.parameters:,} parameters and {cost.multiply_adds:,} multiply-adds"
    return Failure(message=f"out of memory with {size}: {message}", infeasible=True)
