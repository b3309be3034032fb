"""The trials of one run: ask a search for proposals, hand them to a crew, and tell the search how they ended."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from autoprune.errors import AutopruneError, StorageError, describe_exception
from autoprune.records.candidate import CandidateRecord
from autoprune.records.run_folder import FAILURES
from autoprune.search import attempts
from autoprune.search.ledger import Ledger
from autoprune.search.proposal import Failure, Proposal
from autoprune.search.search import ResolveError, Search
from autoprune.study import checkpoints
from autoprune.study.executors.crew import Crew, Ended
from autoprune.study.executors.registry import Hiring
from autoprune.study.interrupts import Interrupts
from autoprune.study.retention import remove_useless_weights

#: Consecutive crashes after which the run stops with an error.
FAILURES_IN_A_ROW = 5


@dataclass(slots=True, kw_only=True)
class TrialLoop:
    """Runs trials until there is a reason to end. A crash of one trial never ends a study.

    Attributes:
        hiring: Study and settings that the crew was made for.
        search: Search that proposes.
        ledger: Trials of the study.
        records: Every finished candidate; grows in place.
        crew: Runs the proposals.
        end_reason: Returns the reason to end, as in Ending; "" while the search goes on.
        report: Called after each trial, with its error or "".
        look: Called after each wait for the crew.
    """

    hiring: Hiring
    search: Search
    ledger: Ledger
    records: list[CandidateRecord]
    crew: Crew
    end_reason: Callable[[], str]
    report: Callable[[str], None]
    look: Callable[[], None]
    _failures: int = 0

    def run(self) -> None:
        """Run trials.

        Raises:
            AutopruneError: FAILURES_IN_A_ROW trials crashed in a row, or the dense model cannot be measured.
            StorageError: A file cannot be read or written.
            KeyboardInterrupt: Ctrl-C; after the first one, trials that ran have finished.
        """
        with self.crew, Interrupts(self._tell_interrupt) as interrupts:
            while True:
                if not interrupts.stopping:
                    self._fill()
                if self.crew.out:
                    for ended in self.crew.wait():
                        self._settle(ended)
                    self.look()
                elif interrupts.stopping:
                    raise KeyboardInterrupt
                elif self.end_reason():
                    return

    def _fill(self) -> None:
        """Start proposals while there is room for them, and no more than are needed."""
        while self.crew.has_room and not self._has_enough():
            try:
                proposal = self.search.ask(self._gives_up)
            except ResolveError as error:
                self._fail(error.number, Failure(message=str(error)), traceback.format_exc())
                continue
            if proposal is None:
                return
            self.crew.start(proposal)

    def _has_enough(self) -> bool:
        return bool(self.end_reason()) or len(self.records) + self.crew.out >= self.hiring.settings.trials

    def _gives_up(self) -> bool:
        """Report a proposal whose result was known; return whether there is a reason to end."""
        self.report("")
        return bool(self.end_reason())

    def _settle(self, ended: Ended) -> None:
        """Tell the search how a trial ended."""
        if isinstance(ended.outcome, Failure):
            self._fail(ended.proposal.number, ended.outcome, ended.traceback)
        elif self._tell(ended.proposal, ended):
            self._failures = 0
            self.report("")

    def _tell(self, proposal: Proposal, ended: Ended) -> bool:
        """Tell the search a result; return whether it could be told."""
        number = proposal.number
        try:
            self.search.tell(proposal, ended.outcome, ended.store)
        except (KeyboardInterrupt, GeneratorExit, StorageError):
            self.search.give_back(number)  # not the trial's fault: it runs again on the next start
            raise
        except BaseException as error:  # the user's sampler runs here, too
            message = describe_exception(error)
            if self.ledger.is_finished(number):
                sampler = f"The sampler {self.search.sampler_name}"
                raise AutopruneError(f"{sampler} failed after trial {number}: {message}") from error
            self._fail(number, Failure(message=message), traceback.format_exc())
            return False
        checkpoints.remove_states(self.hiring.folder, number)
        if self.hiring.settings.storage.collect_garbage:
            in_use = [other.start_from for other in self.search.pending if other.start_from is not None]
            remove_useless_weights(self.hiring.folder, self.records, self.search.front(), in_use)
        return True

    def _fail(self, number: int, failure: Failure, trace: str) -> None:
        """Store the traceback of a trial, mark it as failed, and end the run where failures follow each other."""
        self.hiring.folder.write_failure(number, trace)
        self.search.fail(number, failure.message, infeasible=failure.infeasible)
        self._failures += 1
        message = failure.message.removesuffix(".")  # it stands within sentences
        self.report(message)
        if self.search.dense is None and self._failures == attempts.MAX_ATTEMPTS:
            raise AutopruneError(attempts.dense_failed_message(f"the last time with {message}"))
        if self._failures == FAILURES_IN_A_ROW:
            raise AutopruneError(
                f"{self._failures} trials crashed one after the other, the last with {message}. Their tracebacks are "
                f"in {self.hiring.folder.path / FAILURES}; what is finished is kept, and the same command goes on."
            )

    def _tell_interrupt(self) -> None:
        running = {0: "none runs", 1: "the running one finishes"}
        rest = running.get(self.crew.out, f"the {self.crew.out} running ones finish")
        sys.stderr.write(f"\nInterrupted: no new trial begins, and {rest}. Press Ctrl-C again to end at once.\n")
