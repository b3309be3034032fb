"""Repair of plans that would exceed the limits: shrink them before training."""

from __future__ import annotations

import numpy as np

from autoprune.front.limit_check import LimitCheck
from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.cost_table import CostTable
from autoprune.search.settings import StudySettings
from autoprune.search.state import Model

#: Bisection steps for the factor.
_HALVINGS = 8


def shrink_to_limits(
    plan: ResolvedPlan, model: Model, settings: StudySettings, check: LimitCheck
) -> ResolvedPlan | None:
    """Scale all widths by the largest factor that keeps the limits.

    Latency is predicted where there is a latency model of the device, and then has to keep the limit by the median
    error of the predictions; else it is measured. Limits of metrics say nothing before the training. Under masks,
    bytes and non-zero parameters count as their lower bounds. Groups of one tie keep one share, kept channels stay
    allowed ones, and no group falls below its minimum.

    Args:
        plan: Resolved plan.
        model: Model that is searched.
        settings: Settings of the run.
        check: Limits to keep, and the dense model to which limits in shares refer.

    Returns:
        The plan, unchanged if it keeps the limits; None if not even the smallest widths keep them.
    """
    limited = check.absolute()
    if not limited:
        return plan

    timed = tuple(name for name in limited if check.problem.costs[name].is_compared)
    margins = {name: 1.0 + model.error_of(name) for name in limited}

    def fits(tried: ResolvedPlan) -> bool:
        record = CandidateRecord.proposed(model.expected_costs(tried, timed))
        return all(check.value(record, name) * margins[name] <= limit for name, limit in limited.items())

    if fits(plan):
        return plan
    topology = model.topology
    table = CostTable.of(topology)
    allowed = settings.structure.allowed_widths(table, None if model.latency is None else model.latency.grains)
    widths = np.array([plan.widths[name] for name in table.names], dtype=np.float64)

    def at(factor: float) -> ResolvedPlan:
        fewer = np.minimum(allowed.down(widths * factor), widths)
        return plan.with_widths(dict(zip(table.names, fewer.astype(int).tolist(), strict=True)), topology)

    low, high = 0.0, 1.0
    if not fits(at(low)):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(at(middle)) else (low, middle)
    return at(low)
