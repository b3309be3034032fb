"""InlineCrew: trials run one after the other in the process of the study."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from functools import partial
from types import TracebackType

from autoprune.errors import StorageError
from autoprune.records.candidate import find_record
from autoprune.search.proposal import Proposal
from autoprune.search.search import Search
from autoprune.study import store
from autoprune.study.executors.crew import Ended, WorkerState, failure_of
from autoprune.study.trials import TrialRunner
from autoprune.trial.candidate import Candidate, RungState, measure_latency


class InlineCrew:
    """Runs one trial at a time, when it is waited for.

    Args:
        runner: Runs trials.
        search: Search that proposes them.
    """

    def __init__(self, runner: TrialRunner, search: Search) -> None:
        self._runner, self._search = runner, search
        self._next: Proposal | None = None

    @property
    def out(self) -> int:
        """Number of proposals that were started and have not ended."""
        return int(self._next is not None)

    @property
    def has_room(self) -> bool:
        """Whether another proposal can be started."""
        return self._next is None

    @property
    def workers(self) -> Sequence[WorkerState]:
        """Nothing: trials run in this process."""
        return ()

    def start(self, proposal: Proposal) -> None:
        """Take a trial, which runs when it is waited for.

        Args:
            proposal: The trial.
        """
        self._next = proposal

    def wait(self) -> Sequence[Ended]:
        """Run the trial.

        Returns:
            How it ended; nothing where none was started.

        Raises:
            StorageError: A file cannot be read or written; the trial is tried again by the next run.
        """
        proposal, self._next = self._next, None
        if proposal is None:
            return ()
        try:
            candidate = self._run(proposal)
        except (KeyboardInterrupt, GeneratorExit, StorageError):
            self._search.give_back(proposal.number)  # not the trial's fault: it runs again on the next start
            raise
        except BaseException as error:  # the user's code runs here, and may even call sys.exit
            failure = failure_of(error, proposal, self._runner.context.topology)
            return (Ended(proposal=proposal, outcome=failure, traceback=traceback.format_exc()),)
        write = partial(store.store_candidate, self._runner.folder, model=candidate.model)
        return (Ended(proposal=proposal, outcome=store.result_of(candidate), store=write),)

    def __enter__(self) -> InlineCrew:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""

    def _run(self, proposal: Proposal) -> Candidate:
        def stop(state: RungState) -> bool:
            return self._search.should_stop(proposal, state.share, state.quality, state.costs)

        number = proposal.start_from
        ancestor = None if number is None else find_record(self._search.records, number)
        candidate = self._runner.run(proposal, ancestor, stop)
        if candidate.measurement.predicted and self._search.reaches_front(proposal, store.result_of(candidate)):
            candidate = measure_latency(self._runner.context, candidate)
        return candidate
