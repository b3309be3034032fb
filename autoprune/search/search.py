"""Search: proposes plans (`ask`) and learns from their outcomes (`tell`). It never sees a tensor."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import replace

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from autoprune.errors import AutopruneError, StorageError, describe_exception
from autoprune.front.front import Front
from autoprune.plan.plan import PruningPlan
from autoprune.records.candidate import CandidateRecord, dense_record
from autoprune.records.measurement import Measurement
from autoprune.records.objectives import QUALITY
from autoprune.records.origins import Origin
from autoprune.search import attempts, duplicates, early_stopping, lineage
from autoprune.search.adjustment import fit_to_ancestor, scale_steps, shrink_to_limits
from autoprune.search.ledger import Ledger, origin_of
from autoprune.search.proposal import Failure, Outcome, Proposal, Result
from autoprune.search.samplers.registry import build_sampler, named_sampler
from autoprune.search.settings import StudySettings
from autoprune.search.sources.polish import enqueue_polish
from autoprune.search.sources.rescan import enqueue_rescanned
from autoprune.search.sources.untried import UNTRIED, enqueue_untried
from autoprune.search.sources.warm_starts import enqueue_warm_starts
from autoprune.search.space.space import build_space, dense_plan, suggest
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
        self._out: dict[int, Proposal] = {}
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
        return [self._out[number] for number in sorted(self._out)]

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
                self._out[proposal.number] = proposal
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
            self.fail(proposal.number, outcome.message)
            return None
        result = Result(measurement=outcome) if isinstance(outcome, Measurement) else outcome
        record = self._record(proposal, result)
        if store is not None:
            store(record)
        records = self.state.records
        records[:] = [one for one in records if one.number != record.number]  # told again after a full disk
        bisect.insort(records, record, key=lambda one: one.number)  # the order in which a folder is read
        self._ledger.tell(record.number, record, self.front())
        self._out.pop(proposal.number, None)
        return record

    def reaches_front(self, proposal: Proposal, result: Result) -> bool:
        """Tell whether a result would be on the front, before it is told.

        Args:
            proposal: Proposal that `ask` returned.
            result: Its result.

        Returns:
            Whether no finished candidate dominates it.
        """
        record = self._record(proposal, result)
        front = Front.of([*self.records, record], self.state.model.problem)
        return any(member.number == record.number for member in front.members)

    def fail(self, number: int, message: str) -> None:
        """Mark a trial as failed. The dense model's trial is queued again.

        Args:
            number: Number of the trial.
            message: Error in one line.
        """
        attempts.fail(self._ledger, number, message)
        self._out.pop(number, None)

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
        if not proposal.origin.is_stoppable:
            return False
        costs = costs if costs is not None else self.state.model.expected_costs(proposal.plan)
        kept = proposal.plan.first_channels
        now = CandidateRecord.proposed(costs, kept.groups, kept.dropped)
        rule = self.state.settings.search.early_stopping
        return early_stopping.should_stop(rule, (share, quality), now, self.records, self.state.model.problem)

    def _propose(self) -> Proposal | None:
        """Take a trial and make a proposal of it; None where its result is known."""
        trial = self._take()
        try:
            proposal = self._resolved(trial)
            twin = None if proposal.origin.repeats_known else self._twin(proposal)
        except (KeyboardInterrupt, GeneratorExit, StorageError):
            attempts.reset(self._ledger, trial.number)
            raise
        except BaseException as error:  # the user's code runs here, and may even call sys.exit
            raise ResolveError(describe_exception(error), trial.number) from error
        if twin is None:
            return proposal
        trial.set_user_attr("duplicate_of", twin)
        record = next((record for record in self.records if record.number == twin), None)
        if record is not None:
            self._ledger.tell(trial.number, record, self.front())
        else:  # it is still out
            self._ledger.study.tell(trial.number, state=TrialState.FAIL)
        return None

    def _take(self) -> optuna.Trial:
        """Take the next trial: from the queue, from a source, or from the sampler."""
        ledger, settings = self._ledger, self.state.settings
        if self.dense is None:
            number = None
        else:
            enqueue_rescanned(self.state)
            for source in SOURCES:
                if ledger.is_queued or source(self.state):
                    break
            number = ledger.next_number
        named = named_sampler(settings.search.sampler, len(self.state.model.topology.groups), bool(settings.scanned))
        self._sampler = build_sampler(self._chosen or named, settings.seed, number or 0, self._sampler)
        ledger.study.sampler = self._sampler
        trial = ledger.take_dense(self.state.space) if number is None else ledger.study.ask()
        attempts.begin(trial)
        try:
            suggest(trial, self.state.space)
        except (KeyboardInterrupt, GeneratorExit, StorageError):
            attempts.reset(ledger, trial.number)
            raise
        except BaseException as error:  # the user's sampler runs here
            attempts.reset(ledger, trial.number)
            message = f"The sampler {self.sampler_name} proposed no trial: {describe_exception(error)}"
            raise AutopruneError(message) from error
        return trial

    def _resolved(self, trial: optuna.Trial) -> Proposal:
        """Resolve and adjust the plan of a trial, and choose its parent."""
        state, origin = self.state, origin_of(trial)
        asked, work = state.model.resolved(self._plan(trial, origin))
        plan = shrink_to_limits(state, asked) if origin.is_stoppable else asked
        if plan is not asked:
            trial.set_user_attr("repaired", True)
        if UNTRIED not in trial.user_attrs:
            plan = fit_to_ancestor(state, plan, origin)
        if origin.length_follows_cost:
            plan = scale_steps(state, plan)
        polished = trial.user_attrs.get("of")
        if polished is None:
            ancestor = lineage.choose_parent(lineage.allowed_parents(state.ancestors(), origin), plan)
            start_from = None if ancestor is None else ancestor.number
        else:
            start_from = int(polished)
        return Proposal(
            number=trial.number,
            origin=origin,
            plan=plan,
            start_from=start_from,
            rungs=self._rungs(origin),
            work=work,
        )

    def _plan(self, trial: optuna.Trial, origin: Origin) -> PruningPlan:
        state, seed = self.state, self.state.seed(trial.number)
        given = trial.user_attrs.get("plan")
        if given is not None:
            plan = PruningPlan.from_dict(given)
            return replace(plan, seed=seed) if origin is Origin.POLISHED else plan
        if origin is Origin.DENSE:
            return dense_plan(state.settings, state.model.topology, seed)
        return state.space.decode(trial.params, seed=seed)

    def _rungs(self, origin: Origin) -> tuple[float, ...]:
        """Return the rungs of a trial; none where they would teach nothing.

        They teach nothing where all trials are warm starts. With a further metric among the objectives no candidate is
        stopped: the metric is known at the end alone, and may be what the candidate is good at.
        """
        settings = self.state.settings
        rows = self.state.model.problem.rows
        judged = all(objective.is_cost for objective in rows if objective.name != QUALITY)
        if settings.search.early_stopping == "none" or not origin.has_rungs:
            return ()
        if settings.search.early_stopping != "audit" and (self.state.planned <= settings.warm_starts or not judged):
            return ()
        return settings.search.rungs

    def _twin(self, proposal: Proposal) -> int | None:
        """Return the number of an equal candidate or proposal; None without one.

        Stopped candidates answer only for trials that may be stopped, and baselines only for baselines.
        """
        topology, origin = self.state.model.topology, proposal.origin
        known = [record for record in self.records if origin.is_stoppable or not record.stopped]
        twin = duplicates.find(lineage.allowed_parents(known, origin), proposal.plan, topology)
        if twin is not None:
            return twin.number
        key = duplicates.key(proposal.plan, topology)
        return next((other.number for other in self.pending if duplicates.key(other.plan, topology) == key), None)

    def _record(self, proposal: Proposal, result: Result) -> CandidateRecord:
        trial = self._ledger.trials()[proposal.number]
        before = next((one.lineage_trained for one in self.records if one.number == proposal.start_from), 0)
        work = proposal.work + result.work
        kept = result.kept or proposal.plan.first_channels
        return CandidateRecord(
            number=proposal.number,
            origin=proposal.origin,
            plan=proposal.plan.asked,
            kept=dict(kept.groups),
            dropped=kept.dropped,
            search=result.measurement,
            parent=proposal.start_from,
            samples_forward=work.forward,
            samples_trained=work.trained,
            samples_shared=work.shared,
            lineage_trained=before + work.trained,
            seconds=result.seconds,
            note=result.note,
            rungs=result.rungs,
            fidelity=result.fidelity,
            parameters=dict(trial.params),
            warm_start=str(trial.user_attrs.get("warm_start", "")),
        )
