"""TaskWorker: the task and records of a study that a worker process keeps from trial to trial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

from autoprune.errors import StorageError, error_message
from autoprune.measure.latency.quiet import busy_host
from autoprune.records.candidate import CandidateRecord, dense_record
from autoprune.records.columns import Columns
from autoprune.records.measurement import LaterLatencies
from autoprune.records.problem import Problem
from autoprune.records.results import Results
from autoprune.records.run_folder import RunFolder
from autoprune.search import early_stopping
from autoprune.search.proposal import Proposal
from autoprune.search.settings import QUIET, StudySettings
from autoprune.study.contexts import stored_context
from autoprune.study.executors.source import TaskSource
from autoprune.study.finish import measured_latencies
from autoprune.study.predicting import refer_to_dense
from autoprune.study.store import result_of
from autoprune.study.trials import TrialRunner
from autoprune.task.checkpoint import serialize_smallest
from autoprune.trial.candidate import RungState
from autoprune.trial.context import TrialContext


@dataclass(slots=True, kw_only=True)
class TaskWorker:
    """The task of a study in a worker process, with what the run folder tells.

    Attributes:
        runner: Runs trials.
        problem: Objectives of the study.
    """

    runner: TrialRunner
    problem: Problem
    _known: dict[int, CandidateRecord] = field(default_factory=dict)
    _columns: Columns = field(default_factory=Columns)
    _knows_dense: bool = False

    @classmethod
    def of(cls, folder: RunFolder, source: TaskSource, settings: StudySettings) -> TaskWorker:
        """Make the task, and read the structure of its model from the run folder instead of proving it again.

        Args:
            folder: Run folder.
            source: Where the task comes from.
            settings: Settings of the run.

        Returns:
            The worker.

        Raises:
            ConfigurationError: The task cannot be made in this process, or has another model than the study.
        """
        context = stored_context(source.load(folder), settings, folder)
        if settings.workers.latency == QUIET:
            context.costs.measure_in_quiet()
        stored = folder.read_study()
        problem = stored.problem(settings.objectives, settings.limits, settings.measure.profile_names)
        return cls(runner=TrialRunner.of(folder, context, settings), problem=problem)

    @property
    def folder(self) -> RunFolder:
        """Run folder."""
        return self.runner.folder

    @property
    def context(self) -> TrialContext:
        """Context of the trials."""
        return self.runner.context

    def run(self, proposal: Proposal, results: Results) -> None:
        """Run a trial, and store its result.

        Args:
            proposal: The trial.
            results: Results in the run folder.

        Raises:
            StorageError: A file cannot be read or written.
        """
        self._look_at_dense()
        in_quiet = self.runner.settings.workers.latency == QUIET

        def stop(state: RungState) -> bool:
            self._columns = Columns([*self._records()], self._columns)
            rule, rung = self.runner.settings.search.early_stopping, (state.share, state.quality)
            return early_stopping.stops_proposal(rule, proposal, rung, state.costs, (self._columns, self.problem))

        start = proposal.start_from
        ancestor = None if start is None else self._need(start)
        with busy_host() if in_quiet else nullcontext():
            candidate = self.runner.run(proposal, ancestor, stop)
        weights = serialize_smallest(candidate.model.state_dict())
        results.write(proposal.number, proposal.to_json(), result_of(candidate).to_json(), weights)

    def measure(self, number: int) -> LaterLatencies:
        """Measure the latencies and the energy of a candidate.

        Args:
            number: Number of the candidate.

        Returns:
            Latencies and energy.
        """
        self._look_at_dense()
        return measured_latencies(self.context, self._need(number))

    def _look_at_dense(self) -> None:
        """Take milliseconds and predictions from the measured dense model, once it is there."""
        dense = None if self._knows_dense else dense_record(self._records())
        if dense is not None:
            self._knows_dense = True
            refer_to_dense(self.context, self.folder, self.runner.settings, dense)

    def _records(self) -> Iterator[CandidateRecord]:
        """Read the finished candidates in the order of their numbers; those that were read before, not again."""
        for number in sorted(map(self.folder.candidate_number, self.folder.candidate_names())):
            found = self._known.get(number) or self.folder.read_candidate(number)
            if found is not None:
                self._known[number] = found
                yield found

    def _need(self, number: int) -> CandidateRecord:
        found = self.folder.read_candidate(number)
        if found is None:
            raise StorageError(error_message(f"candidate {number}", "be stored", f"none in {self.folder.path}"))
        return found
