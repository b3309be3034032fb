"""Ledger: the trials of a study in Optuna's storage, and nothing that is not stored there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autoprune.errors import StorageError
from autoprune.front.limit_check import LimitCheck
from autoprune.plan.plan import PruningPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.origins import Origin
from autoprune.records.problem import Problem
from autoprune.search.journal_file import transaction
from autoprune.search.space.parameter import Parameters
from autoprune.search.space.space import Space

#: Name of the Optuna study in its journal.
STUDY_NAME = "autoprune"
#: Name of the constraint that early-stopped trials violate.
STOPPED = "early_stopped"
#: Name of the constraint that trials violate which ran out of memory.
OUT_OF_MEMORY = "out_of_memory"
#: Finite stand-in for an unknown violation, as of an unmeasured latency; JSON cannot store infinity.
UNKNOWN = 1e9
#: Consecutive known proposals after which the space is exhausted.
EXHAUSTED = 50
#: Attribute of the study: trials up to this number do not count as repeated proposals of a new run.
_FORGIVEN = "exhausted_at"
#: Attribute of the study: number of candidates at which allocations were last solved again.
_RESCANNED = "rescanned_at"
#: User attribute of a trial that holds the number of attempts.
ATTEMPTS = "attempts"
#: Optuna's system attribute of a queued trial, with its parameters.
_QUEUED = "fixed_params"
_FINISHED = (TrialState.COMPLETE, TrialState.FAIL)


@contextlib.contextmanager
def without_remarks() -> Iterator[None]:
    """Keep Optuna from telling that it creates or opens a study, inside the block."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Trials of one study.

    Attributes:
        study: Optuna study.
        storage: Its storage.
    """

    study: optuna.Study
    storage: BaseStorage

    @classmethod
    def of(cls, storage: BaseStorage, problem: Problem) -> Ledger:
        """Open the study of a storage; create it if it does not exist.

        Args:
            storage: Optuna storage.
            problem: Objectives of the study.
        """
        with without_remarks():
            study = optuna.create_study(
                storage=storage,
                study_name=STUDY_NAME,
                directions=directions_of(problem),
                load_if_exists=True,
            )
        # For other tools that read the journal; Study.set_metric_names is still experimental.
        study.set_user_attr("objectives", list(problem.objectives))
        return cls(study, storage)

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """Write everything of a block to the journal at once, or nothing of it."""
        return transaction(self.storage)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return trials in the order of their numbers.

        Args:
            *states: States to return; all trials where none is given.
        """
        return self.study.get_trials(deepcopy=False, states=states or None)

    def found(self, number: int) -> FrozenTrial:
        """Return a trial to read.

        Args:
            number: Number of the trial.
        """
        return self.storage.get_trial(self._storage_id(number))

    def trial(self, number: int) -> optuna.Trial:
        """Return a trial to write to.

        Args:
            number: Number of the trial.
        """
        return optuna.Trial(self.study, self._storage_id(number))

    @property
    def next_number(self) -> int:
        """Return the number that the next trial will have: that of the first queued one, or a new one."""
        return next((trial.number for trial in self.trials(TrialState.WAITING)), len(self.trials()))

    @property
    def is_queued(self) -> bool:
        """Return whether a trial is queued."""
        return bool(self.trials(TrialState.WAITING))

    def is_finished(self, number: int) -> bool:
        """Return whether a trial has been told.

        Args:
            number: Number of the trial.
        """
        return self.found(number).state.is_finished()

    def reopen(self, number: int) -> bool:
        """Take a trial out of the queue that was out when an earlier process ended; return whether it can be told.

        Args:
            number: Number of a trial.
        """
        trials = self.trials()
        found = trials[number] if 0 <= number < len(trials) else None
        if found is not None and found.state is TrialState.WAITING and ATTEMPTS in found.user_attrs:
            self.storage.set_trial_state_values(self._storage_id(number), state=TrialState.RUNNING)
            return True
        return found is not None and found.state is TrialState.RUNNING

    @property
    def warm_starts(self) -> set[str]:
        """Return the keys of the warm starts that the study holds."""
        return {str(trial.user_attrs.get("warm_start", "")) for trial in self.trials()}

    @property
    def proposal_count(self) -> int:
        """Return the number of trials after the warm starts."""
        found = (Origin.SAMPLED.value, Origin.POLISHED.value)
        return sum(trial.user_attrs.get("origin", Origin.SAMPLED.value) in found for trial in self.trials())

    @property
    def duplicates_in_a_row(self) -> int:
        """Return how many of the latest finished trials in a row reused a known result."""
        count, forgiven = 0, self.study.user_attrs.get(_FORGIVEN, -1)
        for trial in reversed(self.trials(*_FINISHED)):
            if "duplicate_of" not in trial.user_attrs or trial.number <= forgiven:
                break
            count += 1
        return count

    @property
    def rescanned_at(self) -> int:
        """Return the number of candidates at which allocations were last solved again; 0 before."""
        return int(self.study.user_attrs.get(_RESCANNED, 0))

    def note_rescan(self, count: int) -> None:
        """Store that allocations were solved again.

        Args:
            count: Number of candidates at which that was due.
        """
        self.study.set_user_attr(_RESCANNED, count)

    @property
    def is_exhausted(self) -> bool:
        """Return whether no trial is queued, and the latest EXHAUSTED proposals were all known."""
        return self.duplicates_in_a_row >= EXHAUSTED and not self.is_queued

    def forgive_exhaustion(self) -> None:
        """Let an exhausted study go on: another sampler or plan may bring new proposals."""
        if self.duplicates_in_a_row >= EXHAUSTED:
            self.study.set_user_attr(_FORGIVEN, len(self.trials()) - 1)

    def enqueue(self, parameters: Parameters, attributes: Mapping[str, object]) -> None:
        """Queue a trial.

        Args:
            parameters: Parameters of the trial.
            attributes: User attributes of the trial, its origin among them; a trial without is the sampler's.
        """
        self.study.enqueue_trial(dict(parameters), user_attrs=dict(attributes))

    def enqueue_plan(self, plan: PruningPlan, parameters: Parameters) -> None:
        """Queue a user's plan.

        Args:
            plan: Plan to try unchanged.
            parameters: Parameters nearest to the plan, for the sampler to learn from.
        """
        self.enqueue(parameters, {"origin": Origin.ENQUEUED.value, "plan": plan.to_dict()})

    def take_dense(self, space: Space) -> optuna.Trial:
        """Take the dense model's trial out of the queue, ahead of others. Its parameters are not set yet.

        Args:
            space: Search space, to queue the trial where it is not.
        """
        number = self._queued_dense()
        if number is None:
            self.enqueue(space.uniform(1.0), {"warm_start": "dense", "origin": Origin.DENSE.value})
            number = self._queued_dense()
        assert number is not None
        self.storage.set_trial_state_values(self._storage_id(number), state=TrialState.RUNNING)
        return self.trial(number)

    def forget_queued(self, trial: optuna.Trial) -> None:
        """Keep the parameters of a trial that was queued once, now that all of them are set.

        Args:
            trial: Running trial.
        """
        if self.found(trial.number).system_attrs.get(_QUEUED):
            self.storage.set_trial_system_attr(trial._trial_id, _QUEUED, {})

    @property
    def runs_dense(self) -> bool:
        """Return whether the dense model's trial is running, in this process or another one."""
        return any(origin_of(trial) is Origin.DENSE for trial in self.trials(TrialState.RUNNING))

    def tell(self, number: int, record: CandidateRecord, limits: LimitCheck) -> None:
        """Tell a trial its result, with the limits that it exceeds.

        Args:
            number: Number of the trial.
            record: Result; that of another trial where it is equal.
            limits: Limits of the search, and the dense model to which they refer.
        """
        excess = limits.excess(record)
        self.end(number, values_of(record, limits.problem), lambda trial: set_constraints(trial, record, excess))

    def answer(self, number: int, twin: int, record: CandidateRecord | None, limits: LimitCheck) -> None:
        """End a trial with the result of an equal one.

        Args:
            number: Number of the trial.
            twin: Number of the equal trial.
            record: Result of that one; None while it is out, and the trial counts as failed.
            limits: See `tell`.
        """
        excess = {} if record is None else limits.excess(record)

        def mark(trial: optuna.Trial) -> None:
            trial.set_user_attr("duplicate_of", twin)
            if record is not None:
                set_constraints(trial, record, excess)

        self.end(number, None if record is None else values_of(record, limits.problem), mark)

    def end(
        self, number: int, values: Sequence[float] | None, mark: Callable[[optuna.Trial], None] = lambda _: None
    ) -> None:
        """End a running trial, at once with what is written to it first.

        Args:
            number: Number of the trial.
            values: Values of the objectives; None where it failed.
            mark: Function that writes attributes and constraints to the trial.
        """
        trial, failure = self.trial(number), None
        with self.transaction():
            mark(trial)
            try:
                self.study.tell(trial, values, state=TrialState.FAIL if values is None else None)
            except StorageError:
                raise
            except Exception as error:  # the sampler's; Optuna ends the trial all the same
                failure = error
        if failure is not None:
            raise failure

    def put_back(self, number: int) -> None:
        """Put a trial back at the front of the queue, with its number and parameters.

        Args:
            number: Number of the trial.
        """
        self.storage.set_trial_state_values(self._storage_id(number), state=TrialState.WAITING)

    def _queued_dense(self) -> int | None:
        waiting = self.trials(TrialState.WAITING)
        return next((trial.number for trial in waiting if origin_of(trial) is Origin.DENSE), None)

    def _storage_id(self, number: int) -> int:
        name = self.storage.get_study_id_from_name(self.study.study_name)
        return self.storage.get_trial_id_from_study_id_trial_number(name, number)


def directions_of(problem: Problem) -> list[StudyDirection]:
    """Return the direction of each objective.

    Args:
        problem: Objectives of the study.
    """
    better = {"higher": StudyDirection.MAXIMIZE, "lower": StudyDirection.MINIMIZE}
    return [better[objective.better] for objective in problem.rows]


def origin_of(trial: optuna.Trial | FrozenTrial) -> Origin:
    """Return the origin of a trial.

    Args:
        trial: Any trial.
    """
    return Origin(trial.user_attrs.get("origin", Origin.SAMPLED))


def set_constraints(trial: optuna.Trial, record: CandidateRecord, excess: Mapping[str, float]) -> None:
    """Store the constraints that a trial violates. Must come before its values, which close the trial.

    Args:
        trial: Running trial.
        record: Result of the trial.
        excess: Limit of the search -> excess over it, <= 0 where the limit is kept.
    """
    _constrain_stopped(trial, record)
    for name, value in excess.items():
        if name not in trial.constraints:
            trial.set_constraint(name, bounded(value))


def constrain_memory(trial: optuna.Trial) -> None:
    """Store the violated constraint of a trial that ran out of memory, by as much as one that was hardly trained.

    Args:
        trial: Running trial.
    """
    trial.set_constraint(OUT_OF_MEMORY, 1.0)


def bounded(excess: float) -> float:
    """Clip an excess to a finite number for storage.

    Args:
        excess: Excess over a limit.
    """
    return max(min(excess, UNKNOWN), -UNKNOWN)


def _constrain_stopped(trial: optuna.Trial, record: CandidateRecord) -> None:
    """Mark a trial as stopped early, by a constraint that is violated by the share of training left out.

    TPE and NSGA-II learn from a violated constraint; from a failed or pruned trial they would not.
    """
    if record.stopped and STOPPED not in trial.constraints:
        trial.set_constraint(STOPPED, 1.0 - record.fidelity)
        trial.set_user_attr("fidelity", record.fidelity)


def values_of(record: CandidateRecord, problem: Problem) -> list[float]:
    """Return the objective values that Optuna is told, see `Objective.told`.

    Args:
        record: Result of the trial.
        problem: Objectives of the study.
    """
    return [objective.told(record) for objective in problem.rows]
