"""Repair of plans that would exceed the limits: shrink them before training."""

from __future__ import annotations

import numpy as np

from autoprune.front.front import Front
from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.cost_table import CostTable
from autoprune.search.allocation.solver import width_bounds
from autoprune.search.settings import StudySettings
from autoprune.search.state import ExpectedCosts
from autoprune.structure.topology import Topology

#: Bisection steps for the factor.
_HALVINGS = 8


def shrink_to_limits(
    plan: ResolvedPlan, topology: Topology, costs: ExpectedCosts, settings: StudySettings, front: Front
) -> ResolvedPlan | None:
    """Scale all widths by the largest factor that keeps the limits.

    Latency is measured, not predicted. Limits of metrics say nothing before the training. Under masks, bytes and
    non-zero parameters count as their lower bounds. Groups of one tie keep one share, kept channels stay multiples of
    the space's rounding, and no group falls below its minimum.

    Args:
        plan: Resolved plan.
        topology: Structure of the dense model.
        costs: Function from a resolved plan, and whether its latency counts, to its expected costs.
        settings: Settings of the run.
        front: Front with the dense model, to which limits in shares refer.

    Returns:
        The plan, unchanged if it keeps the limits; None if not even the smallest widths keep them.
    """
    limited = front.absolute_limits(settings.limits)
    if not limited:
        return plan

    def fits(tried: ResolvedPlan) -> bool:
        record = CandidateRecord.proposed(costs(tried, any(front.problem.costs[name].is_timed for name in limited)))
        return all(front.value(record, name) <= limit for name, limit in limited.items())

    if fits(plan):
        return plan
    table = CostTable.of(topology)
    floor, grain = width_bounds(table, settings.structure.max_ratio, settings.structure.round_to)
    widths = np.array([plan.widths[name] for name in table.names], dtype=np.float64)
    floor = np.minimum(floor, widths)

    def at(factor: float) -> ResolvedPlan:
        fewer = np.maximum(np.floor(widths * factor / grain + 1e-9) * grain, floor)
        return plan.with_widths(dict(zip(table.names, fewer.astype(int).tolist(), strict=True)), topology)

    low, high = 0.0, 1.0
    if not fits(at(low)):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(at(middle)) else (low, middle)
    return at(low)
