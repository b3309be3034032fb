"""Repair of plans that would exceed the limits: shrink them before training."""

from __future__ import annotations

import numpy as np

from autoprune.criteria.resolve import planned_widths
from autoprune.front.front import Front
from autoprune.plan.plan import PruningPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.cost_table import CostTable
from autoprune.search.allocation.solver import width_bounds
from autoprune.search.lineage import with_widths
from autoprune.study.settings import StudySettings
from autoprune.trial.candidate import expected_costs
from autoprune.trial.context import TrialContext

#: Bisection steps for the factor.
_HALVINGS = 8


def shrink_to_limits(
    context: TrialContext, settings: StudySettings, front: Front, plan: PruningPlan
) -> PruningPlan | None:
    """Scale all widths by the largest factor that keeps the limits.

    Latency is measured, not predicted. Under masks, bytes and non-zero parameters count as their lower bounds. Groups
    of one tie keep one share, kept channels stay multiples of the space's rounding, and no group falls below its
    minimum.

    Args:
        context: Context of the trials.
        settings: Settings of the run.
        front: Front with the dense model, to which limits in shares refer.
        plan: Resolved plan.

    Returns:
        The plan, unchanged if it keeps the limits; None if not even the smallest widths keep them.
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
