"""Plans that would cost more than the limits allow are made smaller before they are trained, not thrown away."""

from __future__ import annotations

import numpy as np

from autoprune.candidate import expected_costs
from autoprune.criteria.resolve import planned_widths
from autoprune.front.front import Front
from autoprune.front.record import CandidateRecord
from autoprune.plan.plan import PruningPlan
from autoprune.sensitivity.cost_table import CostTable
from autoprune.sensitivity.solver import width_bounds
from autoprune.study.lineage import with_widths
from autoprune.study.settings import StudySettings
from autoprune.trial_context import TrialContext

#: Halvings of the interval in which the factor lies.
_HALVINGS = 8


def shrink_to_limits(
    context: TrialContext, settings: StudySettings, front: Front, plan: PruningPlan
) -> PruningPlan | None:
    """The plan with all widths scaled by the largest factor that keeps to the limits; the plan itself where it does.

    plan: resolved, so that it says its widths. front: holds the dense model, which limits as shares refer to.
    Latency is kept by the clock, not by a model of it. Under masks bytes and non-zero parameters are taken as what they
    cannot fall below. Groups of one share keep one share, kept channels stay multiples of what the space rounds to,
    and no group falls below what it needs. None where not even the smallest widths would do.
    """
    limited = front.absolute_limits(settings.limits)
    if not limited:
        return plan

    def fits(tried: PruningPlan) -> bool:
        costs = expected_costs(context, tried, timed="latency_ms" in limited)
        record = CandidateRecord.proposed(costs)
        return all(front.value(record, name) <= limit for name, limit in limited.items())

    if fits(plan):
        return plan
    table = CostTable.of(context.topology)
    floor, grain = width_bounds(table, settings.space.max_ratio, settings.space.round_to)
    planned = planned_widths(plan, context.topology)
    widths = np.array([planned[name] for name in table.names], dtype=np.float64)
    floor = np.minimum(floor, widths)

    def at(factor: float) -> PruningPlan:
        fewer = np.maximum(np.floor(widths * factor / grain + 1e-9) * grain, floor)
        return with_widths(plan, dict(zip(table.names, fewer.astype(int).tolist(), strict=True)), context.topology)

    low, high = 0.0, 1.0
    if not fits(at(low)):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(at(middle)) else (low, middle)
    return at(low)
