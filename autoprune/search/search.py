"""Search: proposes plans (`ask`) and learns from their outcomes (`tell`). It never sees a tensor."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage

from autoprune.errors import AutopruneError, StorageError, describe_exception
from autoprune.front.front import Front
from autoprune.plan.plan import PruningPlan
from autoprune.records.candidate import CandidateRecord, dense_record
from autoprune.records.measurement import Measurement
from autoprune.records.origins import Origin
from autoprune.search import attempts, duplicates, early_stopping, lineage
from autoprune.search.infeasible import tell_infeasible
from autoprune.search.ledger import Ledger
from autoprune.search.proposal import Failure, Outcome, Proposal, Result
from autoprune.search.resolving import record_of, resolve_trial
from autoprune.search.samplers.registry import build_sampler, named_sampler
from autoprune.search.settings import StudySettings
from autoprune.search.sources.polish import enqueue_polish
from autoprune.search.sources.rescan import enqueue_rescanned
from autoprune.search.sources.untried import enqueue_untried
from autoprune.search.sources.warm_starts import enqueue_warm_starts
from autoprune.search.space.space import build_space, suggest
from autoprune.search.state import Model, SearchState, Source

#: Sources of proposals before the sampler, in their order; each is asked while no trial is queued.
SOURCES: tuple[Source, ...] = (enqueue_polish, enqueue_untried)


class ResolveError(AutopruneError):
    """A proposal could not be resolved, as the user's code failed; the search goes on with the next one.

    Args:
        message: The sentence for the user.
        number: Number of the trial.
    """

    def __init__(self, message: str, number: int) -> None:
        self.number = number
        super().__init__(message)


class Search:
    """Search policy over the plans of one model.

    Everything that it knows lies in the storage and the records, so that a process may die between any two calls: a new
    Search over both proposes the same. Several proposals may be out at once.

    Args:
        model: Model that is searched.
        settings: Settings of the search.
        ledger: Trials of the study; None keeps them in memory.
        records: Finished candidates, in the order of their numbers; grows in place.
        sampler: Optuna sampler in place of the settings'.
        planned: Trials of the whole study, of which this run may do fewer; those of the settings when None.

    Attributes:
        state: State that the sources look at.
    """

    def __init__(
        self,
        model: Model,
        settings: StudySettings,
        *,
        ledger: Ledger | None = None,
        records: list[CandidateRecord] | None = None,
        sampler: BaseSampler | None = None,
        planned: int | None = None,
    ) -> None:
        records = [] if records is None else records
        self.state = SearchState(
            ledger=ledger or Ledger.of(InMemoryStorage(), model.problem),
            settings=settings,
            model=model,
            space=build_space(settings, model.topology, model.sensitivity, model.latency),
            records=records,
            planned=max(settings.trials, planned or 0),
        )
        self._chosen, self._sampler = sampler, sampler
        self._out: dict[int, tuple[Proposal, object]] = {}  # with its `duplicates.key`
        enqueue_warm_starts(self.state)

    @property
    def _ledger(self) -> Ledger:
        return self.state.ledger

    @property
    def records(self) -> Sequence[CandidateRecord]:
        """Return every finished candidate, in the order of their numbers."""
        return self.state.records

    @property
    def sampler_name(self) -> str:
        """Return the name of the sampler's class."""
        return type(self._sampler).__name__

    @property
    def pending(self) -> Sequence[Proposal]:
        """Return the proposals that are out, in the order of their numbers."""
        return [self._out[number][0] for number in sorted(self._out)]

    @property
    def exhausted(self) -> bool:
        """Return whether the search proposes nothing but known plans."""
        return self._ledger.is_exhausted

    @property
    def dense(self) -> CandidateRecord | None:
        """Return the record of the dense model; None before it is finished."""
        return dense_record(self.records)

    def front(self) -> Front:
        """Return the front of all candidates so far."""
        return self.state.front()

    def enqueue(self, plan: PruningPlan) -> None:
        """Queue a plan, with the nearest parameters of the space for the sampler to learn from.

        Args:
            plan: Plan to try unchanged.
        """
        self._ledger.enqueue_plan(plan, self.state.space.encode(plan))

    def ask(self, give_up: Callable[[], bool] = lambda: False) -> Proposal | None:
        """Propose the next trial. Proposals whose result is known get it at once and are not returned.

        Args:
            give_up: Called after each known proposal; True ends the attempt.

        Returns:
            The proposal; None while the dense model is out, since nothing is tried before it is measured, when the
            search is exhausted, and where `give_up` says so.

        Raises:
            ResolveError: The plan could not be resolved. Tell a Failure for its number, and ask again.
            AutopruneError: The sampler failed.
        """
        while not self.exhausted:
            if self.dense is None and self._ledger.runs_dense:
                return None
            proposal = self._propose()
            if proposal is not None:
                return proposal
            if give_up():
                return None
        return None

    def tell(
        self, proposal: Proposal, outcome: Outcome, store: Callable[[CandidateRecord], None] | None = None
    ) -> CandidateRecord | None:
        """Learn the outcome of a proposal.

        Args:
            proposal: Proposal that `ask` returned, in this process or another one.
            outcome: Result, bare measurement, or failure. A failed dense model is tried again.
            store: Stores the record. It runs before the trial is told: after a crash in between,
                `settle_interrupted` tells it.

        Returns:
            The record; None for a failure.
        """
        if isinstance(outcome, Failure):
            self._fail(proposal.number, outcome, proposal)
            return None
        result = Result(measurement=outcome) if isinstance(outcome, Measurement) else outcome
        record = record_of(self.state, proposal, result)
        if store is not None:
            store(record)
        records = self.state.records
        records[:] = [one for one in records if one.number != record.number]  # told again after a full disk
        bisect.insort(records, record, key=lambda one: one.number)  # the order in which a folder is read
        self._ledger.tell(record.number, record, self.state.known.limits)
        self._out.pop(record.number, None)
        return record

    def reaches_front(self, proposal: Proposal, result: Result) -> bool:
        """Tell whether a result would be on the front, before it is told.

        Args:
            proposal: Proposal that `ask` returned.
            result: Its result.

        Returns:
            Whether no finished candidate dominates it.
        """
        record = record_of(self.state, proposal, result)
        return any(member.number == record.number for member in self.state.known.front_with(record).members)

    def fail(self, number: int, message: str, *, infeasible: bool = False) -> None:
        """Mark a trial as failed. The dense model's trial is queued again.

        Args:
            number: Number of the trial.
            message: Error in one line.
            infeasible: Whether the plan ran out of memory. The sampler learns from a proposal of this process that did,
                see `tell_infeasible`; it is no candidate.
        """
        proposal, _ = self._out.get(number, (None, None))
        self._fail(number, Failure(message, infeasible), proposal)

    def retry(self, number: int) -> bool:
        """Count one more attempt of a proposal that is out, as the worker that ran it died.

        Args:
            number: Number of the trial.

        Returns:
            Whether it may be tried again; False after MAX_ATTEMPTS attempts, and it is still to be told.
        """
        return attempts.begin_again(self._ledger, number)

    def give_back(self, number: int) -> None:
        """Forget that a trial was begun, as it was interrupted from outside; `settle_interrupted` queues it again.

        Args:
            number: Number of the trial.
        """
        attempts.reset(self._ledger, number)

    def should_stop(self, proposal: Proposal, share: float, quality: float, costs: Measurement | None = None) -> bool:
        """Tell whether the training of a proposal is not worth going on.

        Args:
            proposal: Proposal that is tried.
            share: Share of the fine-tune's steps that are done, in [0, 1).
            quality: Quality at this rung.
            costs: Costs of the candidate; the expected ones when None.

        Returns:
            Whether to stop it; False for everything that no rule may stop.
        """
        rule, past = self.state.settings.search.early_stopping, (self.state.known.columns, self.state.model.problem)
        costs = costs if costs is not None else self.state.model.expected_costs(proposal.plan)
        return early_stopping.stops_proposal(rule, proposal, (share, quality), costs, past)

    def _fail(self, number: int, failure: Failure, proposal: Proposal | None) -> None:
        known = proposal if failure.infeasible else None
        if known is None or not tell_infeasible(self.state, known, failure.message):
            attempts.fail(self._ledger, number, failure.message)
        self._out.pop(number, None)

    def _propose(self) -> Proposal | None:
        """Take a trial and make a proposal of it; None where its result is known."""
        trial = self._take()
        try:
            proposal = resolve_trial(self.state, trial)
            key = duplicates.key(proposal.plan, self.state.model.topology)
            twin = None if proposal.origin.repeats_known else self._twin(proposal.origin, key)
        except (KeyboardInterrupt, GeneratorExit, StorageError):
            attempts.reset(self._ledger, trial.number)
            raise
        except BaseException as error:  # the user's code runs here, and may even call sys.exit
            raise ResolveError(describe_exception(error), trial.number) from error
        if twin is None:
            self._out[proposal.number] = proposal, key
            return proposal
        self._ledger.answer(trial.number, twin, self.state.known.get(twin), self.state.known.limits)
        return None

    def _take(self) -> optuna.Trial:
        """Take the next trial: from the queue, from a source, or from the sampler. It is on disk as a whole or not."""
        ledger = self._ledger
        with ledger.transaction():
            number = self._queue_next()
            self._sampler = self._sampler_at(number or 0)
            ledger.study.sampler = self._sampler
            trial = ledger.take_dense(self.state.space) if number is None else ledger.study.ask()
            attempts.begin(trial)
            try:
                suggest(trial, self.state.space)
                ledger.forget_queued(trial)
            except (KeyboardInterrupt, GeneratorExit, StorageError):
                attempts.reset(ledger, trial.number)
                raise
            except BaseException as error:  # the user's sampler runs here
                attempts.reset(ledger, trial.number)
                message = f"The sampler {self.sampler_name} proposed no trial: {describe_exception(error)}"
                raise AutopruneError(message) from error
        return trial

    def _queue_next(self) -> int | None:
        """Let the sources queue what is due; return the number of the next trial, None for the dense model's."""
        ledger = self._ledger
        if self.dense is None:
            return None
        enqueue_rescanned(self.state)
        for source in SOURCES:
            if ledger.is_queued or source(self.state):
                break
        return ledger.next_number

    def _sampler_at(self, number: int) -> BaseSampler:
        """Build the sampler for a trial."""
        settings = self.state.settings
        named = named_sampler(settings.search.sampler, len(self.state.model.topology.groups), bool(settings.scanned))
        return build_sampler(self._chosen or named, settings.seed, number, self._sampler)

    def _twin(self, origin: Origin, key: object) -> int | None:
        """Return the number of an equal candidate or proposal; None without one.

        Stopped candidates answer only for trials that may be stopped, and baselines only for baselines.
        """

        def answers(record: CandidateRecord) -> bool:
            return (origin.is_stoppable or not record.stopped) and lineage.is_allowed(record, origin)

        twin = self.state.known.twin(key, answers)
        if twin is not None:
            return twin.number
        return min((number for number, (_, other) in self._out.items() if other == key), default=None)
