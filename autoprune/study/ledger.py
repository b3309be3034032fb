"""Between Optuna's trials and our records: warm starts, values to tell, what an interrupted run left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from autoprune.candidate import Candidate
from autoprune.front.record import CandidateRecord
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.space.parameters import Parameters
from autoprune.space.space import Space
from autoprune.study.settings import StudySettings
from autoprune.study.warm_starts import warm_starts
from autoprune.task.soundness import is_finite
from autoprune.trace.topology import Topology

#: The constraint that a candidate violates which was stopped early.
STOPPED = "early_stopped"
#: Stands for an excess that is infinite, as of a latency that was not measured: JSON has no infinity.
UNKNOWN = 1e9


def enqueue_warm_starts(
    study: optuna.Study, space: Space, settings: StudySettings, topology: Topology, planned: int
) -> None:
    """Enqueue what is missing of the warm starts. planned: trials that the study is to have in all."""
    present = {str(trial.user_attrs.get("warm_start", "")) for trial in study.get_trials(deepcopy=False)}
    for start in warm_starts(space, settings, topology, (present, planned)):
        if start.key not in present:
            study.enqueue_trial(dict(start.parameters), user_attrs=dict(start.attributes))


def enqueue_plan(study: optuna.Study, plan: PruningPlan, parameters: Parameters) -> None:
    """A plan of the user's, with the nearest parameters of the space for the sampler to learn from."""
    study.enqueue_trial(dict(parameters), user_attrs={"origin": "enqueued", "plan": plan.to_dict()})


def enqueue_polish(study: optuna.Study, record: CandidateRecord, topology: Topology) -> None:
    """A finished candidate again: the same plan at the widths it has, which starts from its own weights."""
    parameters = study.get_trials(deepcopy=False)[record.number].params
    attributes = {"origin": "polished", "plan": _at_its_widths(record, topology).to_dict(), "of": record.number}
    study.enqueue_trial(dict(parameters), user_attrs=attributes)


def _at_its_widths(record: CandidateRecord, topology: Topology) -> PruningPlan:
    """The plan with what followed from scores spelled out: other scores must not change it."""
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
    """Trials asked for after the warm starts; None while something is queued."""
    if is_queued(study):
        return None
    found = study.get_trials(deepcopy=False)
    return sum(trial.user_attrs.get("origin", "sampled") in ("sampled", "polished") for trial in found)


def tell_interrupted(
    asked: tuple[optuna.Study, BaseStorage],
    records: Sequence[CandidateRecord],
    settings: StudySettings,
    excess: Callable[[CandidateRecord], Mapping[str, float]],
) -> list[optuna.Trial]:
    """Settle trials that were running when a process died.

    asked: the study and its storage. records: what was stored. excess: see `mark`.
    A stored candidate is told. Gives the others, which have not come to their end.
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
        study.tell(found.number, values_of(record, settings))
    return left


def put_back(asked: tuple[optuna.Study, BaseStorage], number: int) -> None:
    """Put a trial into the queue as it is: under its number, with its parameters, before what is queued behind it."""
    asked[1].set_trial_state_values(_storage_id(asked, number), state=TrialState.WAITING)


def queue_dense(study: optuna.Study, space: Space) -> None:
    """Queue the dense model's trial, unless it is queued already: nothing can be said without it."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    if not any(origin_of(trial) == "dense" for trial in waiting):
        study.enqueue_trial(space.uniform(1.0), user_attrs={"warm_start": "dense", "origin": "dense"})


def take_dense(asked: tuple[optuna.Study, BaseStorage]) -> optuna.Trial:
    """Take the dense model's trial out of the queue, whatever stands before it. Its parameters are not set yet."""
    study, storage = asked
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    found = _storage_id(asked, next(trial.number for trial in waiting if origin_of(trial) == "dense"))
    storage.set_trial_state_values(found, state=TrialState.RUNNING)
    return optuna.Trial(study, found)


def suggest(trial: optuna.Trial, space: Space) -> None:
    """Set every parameter of the space, as queued or as the sampler proposes."""
    for name, distribution in space.distributions.items():
        if isinstance(distribution, FloatDistribution):
            trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
        elif isinstance(distribution, IntDistribution):
            trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
        elif isinstance(distribution, CategoricalDistribution):
            trial.suggest_categorical(name, distribution.choices)


def _storage_id(asked: tuple[optuna.Study, BaseStorage], number: int) -> int:
    """The storage's own number of a trial. asked: the study and its storage."""
    study, storage = asked
    return storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(study.study_name), number)


def duplicates_in_a_row(study: optuna.Study) -> int:
    """How many of the last finished trials in a row were answered from the record."""
    count = 0
    for trial in reversed(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))):
        if "duplicate_of" not in trial.user_attrs:
            break
        count += 1
    return count


def is_queued(study: optuna.Study) -> bool:
    """Whether a trial waits to be asked for."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def is_finished(study: optuna.Study, number: int) -> bool:
    """Whether a trial was told already."""
    return study.get_trials(deepcopy=False)[number].state.is_finished()


def finished_count(study: optuna.Study) -> int:
    """Trials that ran to their end, crashed ones included; seeds are taken from it."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)))


def origin_of(trial: optuna.Trial | FrozenTrial) -> str:
    """Where a trial came from."""
    return str(trial.user_attrs.get("origin", "sampled"))


def set_constraints(trial: optuna.Trial, record: CandidateRecord, excess: Mapping[str, float]) -> None:
    """Tell Optuna what keeps a trial from being feasible, before its values, which fixes it.

    excess: limit of the search -> by how much the candidate exceeds it, <= 0 when it does not.
    """
    _constrain_stopped(trial, record)
    for name, value in excess.items():
        if name not in trial.constraints:
            trial.set_constraint(name, bounded(value))


def bounded(excess: float) -> float:
    """An excess as it is stored: infinity becomes a number."""
    return max(min(excess, UNKNOWN), -UNKNOWN)


def _constrain_stopped(trial: optuna.Trial, record: CandidateRecord) -> None:
    """Tell Optuna that a trial's values are those of a candidate that was stopped early: no good place to look.

    As a constraint that is violated by the share of the training that was left out: TPE and NSGA-II learn from it,
    as they would not from a trial that failed or was pruned. Before the trial is told, which fixes it.
    """
    if record.stopped and STOPPED not in trial.constraints:
        trial.set_constraint(STOPPED, 1.0 - record.fidelity)
        trial.set_user_attr("fidelity", record.fidelity)


def values_of(record: CandidateRecord, settings: StudySettings) -> list[float]:
    """The objectives' values as Optuna is told them; latency as its ratio to dense, free of the machine's drift."""
    values = []
    for name in settings.objectives:
        latency = record.search.latency
        values.append(latency.ratio if name == "latency_ms" and latency is not None else record.search.value(name))
    return values


def _note(candidate: Candidate) -> str:
    """Why nothing may start from a candidate that was trained to its end, although no loss was infinite."""
    return "" if all(map(is_finite, candidate.model.parameters())) else "weights that are not finite"


def record_of(
    trial: optuna.Trial | FrozenTrial, candidate: Candidate, records: Sequence[CandidateRecord]
) -> CandidateRecord:
    """The record of a finished candidate."""
    before = next((record.lineage_trained for record in records if record.number == candidate.parent), 0)
    return CandidateRecord(
        number=trial.number,
        origin=origin_of(trial),
        plan=candidate.plan,
        kept=dict(candidate.kept.groups),
        dropped=candidate.kept.dropped,
        search=candidate.measurement,
        parent=candidate.parent,
        samples_forward=candidate.work.forward,
        samples_trained=candidate.work.trained,
        samples_shared=candidate.work.shared,
        lineage_trained=before + candidate.work.trained,
        seconds=candidate.seconds,
        note=candidate.note or _note(candidate),
        rungs=candidate.rungs,
        fidelity=candidate.fidelity,
        parameters=dict(trial.params),
        warm_start=str(trial.user_attrs.get("warm_start", "")),
    )
