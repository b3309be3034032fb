"""Infeasible trials: plans that ran out of memory. They are no candidates, and the sampler learns from them."""

from __future__ import annotations

import math
from dataclasses import replace

import optuna

from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.measurement import Measurement
from autoprune.records.origins import Origin
from autoprune.search.ledger import constrain_memory
from autoprune.search.proposal import Proposal
from autoprune.search.space.setting_groups import LATENCY_COST
from autoprune.search.state import Model, SearchState


def tell_infeasible(state: SearchState, proposal: Proposal, message: str) -> bool:
    """Tell a trial that its plan ran out of memory, where something can be told.

    It gets its expected costs, the worst known quality, and a violated constraint. Samplers learn from a violated
    constraint; from a failed trial they would not.

    Args:
        state: State of the search.
        proposal: Proposal that is running.
        message: Error in one line, kept as the user attribute "error".

    Returns:
        Whether it was told. Nothing is told of the dense model, which is tried again, nor while some objective has no
        known value.
    """
    values = _values(state, proposal.plan)
    if proposal.origin is Origin.DENSE or not all(map(math.isfinite, values)):
        return False

    def mark(trial: optuna.Trial) -> None:
        trial.set_user_attr("error", message)
        constrain_memory(trial)

    state.ledger.end(proposal.number, values, mark)
    return True


def _values(state: SearchState, plan: ResolvedPlan) -> list[float]:
    """Return the expected value of each objective; the worst known one of what is known after training alone."""
    expected, values = _expected(state.model, plan), []
    for objective in state.model.problem.rows:
        value = objective.told(CandidateRecord.proposed(expected))
        if not math.isfinite(value):
            known = (objective.told(record) for record in state.records)
            value = objective.worst(one for one in known if math.isfinite(one))
        values.append(value)
    return values


def _expected(model: Model, plan: ResolvedPlan) -> Measurement:
    """Return the costs that follow from widths. No model is built, as it may have been the one without memory."""
    return replace(model, costs=None).expected_costs(plan, [LATENCY_COST] if model.predicts(LATENCY_COST) else [])
