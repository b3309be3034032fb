"""Translation between Optuna's trials and stored records: queueing, values and constraints, interrupted trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.problem import Problem
from autoprune.search.settings import StudySettings
from autoprune.search.sources.warm_starts import warm_starts
from autoprune.search.space.parameters import Parameters
from autoprune.search.space.space import Space
from autoprune.structure.topology import Topology

#: Name of the constraint that early-stopped trials violate.
STOPPED = "early_stopped"
#: Finite stand-in for an unknown violation, as of an unmeasured latency; JSON cannot store infinity.
UNKNOWN = 1e9


def enqueue_warm_starts(
    study: optuna.Study, space: Space, settings: StudySettings, topology: Topology, planned: int
) -> None:
    """Queue the warm starts that the study does not hold yet.

    Args:
        study: Optuna study.
        space: Search space.
        settings: Settings of the run.
        topology: Structure of the dense model.
        planned: Trials of the whole study.
    """
    present = {str(trial.user_attrs.get("warm_start", "")) for trial in study.get_trials(deepcopy=False)}
    for start in warm_starts(space, settings, topology, (present, planned)):
        if start.key not in present:
            study.enqueue_trial(dict(start.parameters), user_attrs=dict(start.attributes))


def enqueue_plan(study: optuna.Study, plan: PruningPlan, parameters: Parameters) -> None:
    """Queue a user's plan, with the nearest parameters of the space for the sampler to learn from.

    Args:
        study: Optuna study.
        plan: Plan to evaluate.
        parameters: Parameters nearest to the plan.
    """
    study.enqueue_trial(dict(parameters), user_attrs={"origin": "enqueued", "plan": plan.to_dict()})


def enqueue_polish(study: optuna.Study, record: CandidateRecord, topology: Topology) -> None:
    """Queue a finished candidate again: the same plan at its widths, starting from its own weights.

    Args:
        study: Optuna study.
        record: Candidate to train further.
        topology: Structure of the dense model.
    """
    parameters = study.get_trials(deepcopy=False)[record.number].params
    attributes = {"origin": "polished", "plan": _at_its_widths(record, topology).to_dict(), "of": record.number}
    study.enqueue_trial(dict(parameters), user_attrs=attributes)


def _at_its_widths(record: CandidateRecord, topology: Topology) -> PruningPlan:
    """Replace choices by scores with the widths and blocks they gave, so that other scores change nothing."""
    plan = record.plan
    if not plan.needs_scores:
        return plan
    rule = plan.ranking.criterion if plan.ranking is not None else ""
    groups = {
        name: GroupPlan(
            count=topology.widths[name] - width,
            criterion=plan.groups[name].criterion if name in plan.groups else rule or GroupPlan().criterion,
        )
        for name, width in record.widths.items()
    }
    return replace(plan, groups=groups, ranking=None, dropped=record.dropped, blocks=None, layers=None)


def proposal_count(study: optuna.Study) -> int | None:
    """Return the number of trials after the warm starts; None while a trial is queued.

    Args:
        study: Optuna study.
    """
    if is_queued(study):
        return None
    found = study.get_trials(deepcopy=False)
    return sum(trial.user_attrs.get("origin", "sampled") in ("sampled", "polished") for trial in found)


def tell_interrupted(
    asked: tuple[optuna.Study, BaseStorage],
    records: Sequence[CandidateRecord],
    problem: Problem,
    excess: Callable[[CandidateRecord], Mapping[str, float]],
) -> list[optuna.Trial]:
    """Tell the stored results of trials that were running when a process died.

    Args:
        asked: Optuna study and its storage.
        records: Stored candidates.
        problem: Objectives of the study.
        excess: Function from a record to its excess over each limit, see `set_constraints`.

    Returns:
        The interrupted trials without a stored result.
    """
    study, _ = asked
    stored = {record.number: record for record in records}
    left = []
    for found in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        record, trial = stored.get(found.number), optuna.Trial(study, _storage_id(asked, found.number))
        if record is None:
            left.append(trial)
            continue
        set_constraints(trial, record, excess(record))
        study.tell(found.number, values_of(record, problem))
    return left


def put_back(asked: tuple[optuna.Study, BaseStorage], number: int) -> None:
    """Put a trial back at the front of the queue, with its number and parameters.

    Args:
        asked: Optuna study and its storage.
        number: Number of the trial.
    """
    asked[1].set_trial_state_values(_storage_id(asked, number), state=TrialState.WAITING)


def queue_dense(study: optuna.Study, space: Space) -> None:
    """Queue the dense model's trial unless it is queued; candidates are compared with it.

    Args:
        study: Optuna study.
        space: Search space.
    """
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    if not any(origin_of(trial) == "dense" for trial in waiting):
        study.enqueue_trial(space.uniform(1.0), user_attrs={"warm_start": "dense", "origin": "dense"})


def take_dense(asked: tuple[optuna.Study, BaseStorage]) -> optuna.Trial:
    """Take the dense model's trial out of the queue, ahead of others. Its parameters are not set yet.

    Args:
        asked: Optuna study and its storage.
    """
    study, storage = asked
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    found = _storage_id(asked, next(trial.number for trial in waiting if origin_of(trial) == "dense"))
    storage.set_trial_state_values(found, state=TrialState.RUNNING)
    return optuna.Trial(study, found)


def suggest(trial: optuna.Trial, space: Space) -> None:
    """Set every parameter of the space, as queued or as the sampler proposes.

    Args:
        trial: Running trial.
        space: Search space.
    """
    for name, distribution in space.distributions.items():
        if isinstance(distribution, FloatDistribution):
            trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
        elif isinstance(distribution, IntDistribution):
            trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
        elif isinstance(distribution, CategoricalDistribution):
            trial.suggest_categorical(name, distribution.choices)


def _storage_id(asked: tuple[optuna.Study, BaseStorage], number: int) -> int:
    """Return the storage's id of a trial. asked: Optuna study and its storage."""
    study, storage = asked
    return storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(study.study_name), number)


def duplicates_in_a_row(study: optuna.Study) -> int:
    """Return how many of the latest finished trials in a row reused a known result.

    Args:
        study: Optuna study.
    """
    count = 0
    for trial in reversed(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))):
        if "duplicate_of" not in trial.user_attrs:
            break
        count += 1
    return count


def is_queued(study: optuna.Study) -> bool:
    """Return whether a trial is queued.

    Args:
        study: Optuna study.
    """
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def is_finished(study: optuna.Study, number: int) -> bool:
    """Return whether a trial has been told.

    Args:
        study: Optuna study.
        number: Number of the trial.
    """
    return study.get_trials(deepcopy=False)[number].state.is_finished()


def finished_count(study: optuna.Study) -> int:
    """Return the number of finished trials, including crashed ones; seeds follow from it.

    Args:
        study: Optuna study.
    """
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)))


def origin_of(trial: optuna.Trial | FrozenTrial) -> str:
    """Return the origin of a trial, such as "sampled" or "solved".

    Args:
        trial: Any trial.
    """
    return str(trial.user_attrs.get("origin", "sampled"))


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
    return [objective.told(record.search) for objective in problem.rows]
