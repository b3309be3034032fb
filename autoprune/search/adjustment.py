"""Adjust proposals before they are tried: shrink them to the limits and to an ancestor, scale their fine-tune."""

from __future__ import annotations

from dataclasses import replace

from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.origins import Origin
from autoprune.search import lineage, repair
from autoprune.search.state import SearchState

#: Slack for solved allocations: enough to absorb rounding, small enough to stay near the requested budget.
_SOLVED_SLACK = 0.05


def shrink_to_limits(state: SearchState, plan: ResolvedPlan) -> ResolvedPlan:
    """Shrink a plan that would exceed a limit, where smaller widths keep it.

    Args:
        state: State of the search.
        plan: Plan as proposed.

    Returns:
        The plan, unchanged where it keeps the limits or nothing would.
    """
    check = replace(state.known.limits, limits=state.settings.limits)
    return repair.shrink_to_limits(plan, state.model, state.settings, check) or plan


def scale_steps(state: SearchState, plan: ResolvedPlan) -> ResolvedPlan:
    """Scale the number of fine-tune steps with the cost of a plan.

    Args:
        state: State of the search.
        plan: Plan to try.

    Returns:
        The plan with its steps.
    """
    share = state.model.topology.share(plan.widths, plan.dropped)
    steps = state.settings.lengthened(plan.recovery.steps, share)
    return plan.with_recovery(replace(plan.recovery, steps=steps))


def fit_to_ancestor(state: SearchState, plan: ResolvedPlan, origin: Origin) -> ResolvedPlan:
    """Shrink a plan to an ancestor that nearly contains it.

    Args:
        state: State of the search.
        plan: Plan as proposed.
        origin: Origin of the plan.

    Returns:
        The plan, unchanged where its origin does not allow that.
    """
    settings = state.settings
    if not (origin.is_shrinkable and settings.search.lineage):
        return plan
    slack = settings.search.lineage_slack if origin.is_stoppable else min(settings.search.lineage_slack, _SOLVED_SLACK)
    model = state.model
    least = lineage.least_left(plan, model.topology, slack)
    near = state.known.widths.leaving(plan.widths, plan.dropped, least)
    return lineage.shrink_to_ancestor(near, plan, model.topology, least, model.has_weights)
