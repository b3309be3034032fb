"""WorkerCrew: trials run in other processes, behind an executor of concurrent.futures."""

from __future__ import annotations

import concurrent.futures
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass, replace
from types import TracebackType

from autoprune.errors import AutopruneError, ConfigurationError, StorageError, describe_exception, error_message
from autoprune.front.run_state import seconds_of
from autoprune.records.origins import Origin
from autoprune.records.results import Results
from autoprune.search.attempts import MAX_ATTEMPTS
from autoprune.search.proposal import Failure, Proposal, Result
from autoprune.search.search import Search
from autoprune.study.executors.crew import Ended, WorkerState
from autoprune.study.executors.unit import Report, Unit, run_unit

#: Seconds between two looks at the workers.
_LOOK = 0.5
#: A trial is ended after so many times the median of the finished trials, where no time limit is given.
TIMES_MEDIAN = 20.0
#: Shortest time limit that is not given, in seconds: small trials wait for the disk or another process.
_SHORTEST = 60.0
#: So many seconds without a look say that this process was stopped, as by Ctrl-Z, or was busy: they count for no trial.
_PAUSE = 10.0
#: Errors by which Ray tells that the part of it which belongs to this process has ended.
_ENDS = ("LocalRayletDiedError", "RaySystemError", "RayletDiedError")
_GONE = (
    "The executor runs no trials any more: {error}. What is finished is kept; start the workers again, and the same "
    "command goes on."
)
#: Fewest finished trials for a median.
_FEWEST = 5


@dataclass(slots=True)
class _Out:
    """A trial that is out.

    Attributes:
        proposal: The trial.
        future: Its call.
        unit: Unit of work that the worker was sent.
        worker: Name of the worker that has begun it; "" before.
        maker: Name of the worker that makes the task for it; "" before, and where the task was there.
        since: Clock time at which it was seen to have begun, and before that the task.
    """

    proposal: Proposal
    future: Future[Report]
    unit: Unit
    worker: str = ""
    maker: str = ""
    since: float = 0.0


class WorkerCrew:
    """Sends proposals to workers, and sends those again whose worker died.

    Args:
        executor: Where calls run.
        count: Trials that run at the same time.
        unit: Unit of work without a trial: run folder, task and settings.
        results: Results in the run folder.
        search: Search that proposes.
        timeout: Seconds after which a trial is ended; None for TIMES_MEDIAN times the median.
        task_timeout: Seconds in which a worker has to make the task; None for any time.
        clock: Monotonic time in seconds.
    """

    def __init__(  # noqa: PLR0913  # all of them are needed
        self,
        executor: Executor,
        count: int,
        unit: Unit,
        results: Results,
        search: Search,
        *,
        timeout: float | None = None,
        task_timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor, self._count, self._unit = executor, count, unit
        self._results, self._search = results, search
        self._timeout, self._task_timeout, self._clock = timeout, task_timeout, clock
        self._out: dict[int, _Out] = {}
        self._looked = clock()

    @property
    def out(self) -> int:
        """Number of proposals that were started and have not ended."""
        return len(self._out)

    @property
    def has_room(self) -> bool:
        """Whether another proposal can be started."""
        return len(self._out) < self._count

    @property
    def workers(self) -> Sequence[WorkerState]:
        """The workers that run a trial, in the order of their names."""
        now = self._clock()
        begun = [one for one in self._out.values() if one.worker]
        return [
            WorkerState(name=one.worker, trial=one.proposal.number, seconds=now - one.since)
            for one in sorted(begun, key=lambda one: one.worker)
        ]

    def start(self, proposal: Proposal) -> None:
        """Send a trial to a worker.

        Args:
            proposal: The trial.
        """
        # That this process dies says nothing about the trial: attempts are deaths of its workers.
        self._search.give_back(proposal.number)
        unit = replace(self._unit, proposal=proposal.to_json())
        self._out[proposal.number] = _Out(proposal=proposal, future=self._submit(unit, proposal.number), unit=unit)

    def wait(self) -> Sequence[Ended]:
        """Wait until a trial ends, or for a moment.

        Returns:
            The trials that ended.

        Raises:
            StorageError: A file cannot be read or written; the trial is tried again by the next run.
            ConfigurationError: The task cannot be made in a worker.
        """
        futures = [one.future for one in self._out.values()]
        concurrent.futures.wait(futures, timeout=_LOOK, return_when=concurrent.futures.FIRST_COMPLETED)
        self._leave_out_pause()
        ended = [*self._finished(), *self._overdue()]
        for one in ended:
            del self._out[one.proposal.number]
        return ended

    def __enter__(self) -> WorkerCrew:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the calls of trials that are still out; the executor is left open."""
        for one in self._out.values():
            self._end(one.future)
            self._search.give_back(one.proposal.number)

    def _submit(self, unit: Unit, number: int) -> Future[Report]:
        self._results.forget(number)
        try:
            return self._executor.submit(run_unit, unit)
        except Exception as error:  # executors raise many kinds
            raise AutopruneError(_GONE.format(error=describe_exception(error, 500))) from error

    def _finished(self) -> Iterator[Ended]:
        for one in list(self._out.values()):
            if not one.future.done():
                self._look_at(one)
            elif (error := _raised(one.future)) is not None:
                failed = self._again(one, error)
                if failed is not None:
                    yield failed
            else:
                yield self._ended(one.proposal, one.future.result())

    def _look_at(self, one: _Out) -> None:
        """Note which worker makes the task or runs a trial, and since when."""
        if one.worker:
            return
        number, now = one.proposal.number, self._clock()
        if worker := self._results.worker(number):
            one.worker, one.since = worker, now
        elif not one.maker:
            one.maker, one.since = self._results.maker(number), now
        elif self._task_timeout is not None and now - one.since > self._task_timeout:
            wanted = f"be made within {self._task_timeout:g} s (workers.task_timeout)"
            remedy = "See where task() waits, or give it more time: --set workers.task_timeout=SECONDS."
            late = error_message("it", wanted, f"none yet from the process {one.maker}", remedy)
            raise ConfigurationError(f"A worker cannot make the task: {late}")

    def _again(self, one: _Out, error: BaseException) -> Ended | None:
        """Send a trial again whose worker died; give it up where it has ended its workers too often."""
        number = one.proposal.number
        if self._results.has(number):  # the worker died after its work
            return self._ended(one.proposal, Report())
        message = describe_exception(error, 500)
        if isinstance(error, BrokenExecutor) or type(error).__name__ in _ENDS:
            raise AutopruneError(_GONE.format(error=message.removesuffix(".")))
        if not self._search.retry(number):
            given_up = f"its worker died {MAX_ATTEMPTS} times; it is given up. The last time: {message}"
            return Ended(proposal=one.proposal, outcome=Failure(message=given_up), traceback=given_up)
        one.unit = replace(one.unit, attempt=one.unit.attempt + 1)
        one.worker = one.maker = ""
        one.future = self._submit(one.unit, number)
        return None

    def _ended(self, proposal: Proposal, report: Report) -> Ended:
        if report.setup:
            raise ConfigurationError(f"A worker cannot make the task: {report.stops}")
        if report.stops:
            raise StorageError(report.stops)
        if report.failure is not None:
            return Ended(proposal=proposal, outcome=report.failure, traceback=report.traceback)
        result = Result.from_json(*self._results.read(proposal.number))
        return Ended(proposal=proposal, outcome=result, store=self._results.adopt)

    def _leave_out_pause(self) -> None:
        """Do not count the time in which this process was stopped, often with its workers, as time of trials."""
        now = self._clock()
        pause = now - self._looked
        self._looked = now
        if pause > _PAUSE:
            for one in self._out.values():
                one.since = min(now, one.since + pause)

    def _overdue(self) -> Iterator[Ended]:
        """End the trials that take too long."""
        limit = self._limit()
        for one in list(self._out.values()):
            took = self._clock() - one.since
            if limit is None or not one.worker or took <= limit or one.future.done():
                continue
            self._end(one.future)
            if self._results.has(one.proposal.number):
                yield self._ended(one.proposal, Report())
                continue
            why = "workers.trial_timeout" if self._timeout is not None else f"{TIMES_MEDIAN:g} times the median"
            message = f"it took more than {limit:.0f} s ({why}), and was ended"
            yield Ended(proposal=one.proposal, outcome=Failure(message=message), traceback=message)

    def _limit(self) -> float | None:
        """Return the time limit of a trial; None before enough trials are finished."""
        if self._timeout is not None:
            return self._timeout
        took = [seconds_of(record) for record in self._search.records if record.origin is not Origin.DENSE]
        return max(_SHORTEST, TIMES_MEDIAN * statistics.median(took)) if len(took) >= _FEWEST else None

    def _end(self, future: Future[Report]) -> None:
        """End a call at once, where the executor can do so; else it is left to itself."""
        end = getattr(self._executor, "end", None)
        if end is not None:
            end(future)
        else:
            future.cancel()


def _raised(future: Future[Report]) -> BaseException | None:
    """Return what a call raised that is done: its worker died, as units raise nothing."""
    try:
        return future.exception()
    except concurrent.futures.CancelledError as error:
        return error
