"""From a trial to its proposal, and from the result of a proposal to its record."""

from __future__ import annotations

from dataclasses import replace

import optuna

from autoprune.plan.plan import PruningPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.objectives import QUALITY
from autoprune.records.origins import Origin
from autoprune.search import lineage
from autoprune.search.adjustment import fit_to_ancestor, scale_steps, shrink_to_limits
from autoprune.search.ledger import origin_of
from autoprune.search.proposal import Proposal, Result
from autoprune.search.sources.polish import at_its_widths
from autoprune.search.sources.untried import UNTRIED
from autoprune.search.space.space import dense_plan
from autoprune.search.state import SearchState


def resolve_trial(state: SearchState, trial: optuna.Trial) -> Proposal:
    """Resolve and adjust the plan of a trial, and choose its parent.

    Args:
        state: State of the search.
        trial: Running trial with all of its parameters.

    Returns:
        The proposal.
    """
    origin = origin_of(trial)
    asked, work = state.model.resolved(_plan(state, trial, origin))
    plan = shrink_to_limits(state, asked) if origin.is_stoppable else asked
    if plan is not asked:
        trial.set_user_attr("repaired", True)
    if UNTRIED not in trial.user_attrs:
        plan = fit_to_ancestor(state, plan, origin)
    if origin.length_follows_cost:
        plan = scale_steps(state, plan)
    polished = trial.user_attrs.get("of")
    if polished is None:
        allowed = [record for record in state.containing(plan) if lineage.is_allowed(record, origin)]
        ancestor = lineage.choose_parent(allowed, plan, state.model.has_weights)
        start_from = None if ancestor is None else ancestor.number
    else:
        start_from = int(polished)
    return Proposal(
        number=trial.number,
        origin=origin,
        plan=plan,
        start_from=start_from,
        rungs=_rungs(state, origin),
        work=work,
    )


def _plan(state: SearchState, trial: optuna.Trial, origin: Origin) -> PruningPlan:
    seed = state.seed(trial.number)
    given, of = trial.user_attrs.get("plan"), state.known.get(trial.user_attrs.get("of"))
    if given is None and of is not None:
        return replace(at_its_widths(of, state.model.topology), seed=seed)
    if given is not None:  # earlier versions stored the plan of a polish, too
        plan = PruningPlan.from_dict(given)
        return replace(plan, seed=seed) if origin is Origin.POLISHED else plan
    if origin is Origin.DENSE:
        return dense_plan(state.settings, state.model.topology, seed)
    return state.space.decode(trial.params, seed=seed)


def _rungs(state: SearchState, origin: Origin) -> tuple[float, ...]:
    """Return the rungs of a trial; none where they would teach nothing.

    They teach nothing where all trials are warm starts. With a further metric among the objectives no candidate is
    stopped: the metric is known at the end alone, and may be what the candidate is good at.
    """
    settings, rows = state.settings, state.model.problem.rows
    judged = all(objective.is_cost for objective in rows if objective.name != QUALITY)
    if settings.search.early_stopping == "none" or not origin.has_rungs:
        return ()
    if settings.search.early_stopping != "audit" and (state.planned <= settings.warm_starts or not judged):
        return ()
    return settings.search.rungs


def record_of(state: SearchState, proposal: Proposal, result: Result) -> CandidateRecord:
    """Make the record of a finished trial.

    Args:
        state: State of the search.
        proposal: Its proposal.
        result: Its result.

    Returns:
        The record.
    """
    trial = state.ledger.found(proposal.number)
    parent = state.known.get(proposal.start_from)
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
        lineage_trained=work.trained + (0 if parent is None else parent.lineage_trained),
        seconds=result.seconds,
        note=result.note,
        rungs=result.rungs,
        fidelity=result.fidelity,
        parameters=dict(trial.params),
        warm_start=str(trial.user_attrs.get("warm_start", "")),
    )
