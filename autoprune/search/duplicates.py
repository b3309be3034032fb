"""Duplicates: proposals whose training would repeat that of a finished candidate."""

from __future__ import annotations

from collections.abc import Mapping

from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.structure.topology import Topology


def key(plan: ResolvedPlan, topology: Topology) -> tuple[object, ...]:
    """Return a key that is equal for equal trials: widths, criteria, blocks, masks and recovery.

    Ratios that round to the same widths are equal, and seeds are ignored. Criteria count for the groups that lose
    channels.

    Args:
        plan: Plan of a trial.
        topology: Structure of the dense model.
    """
    return _key(plan.plan, plan.widths, plan.dropped, topology)


def key_of(record: CandidateRecord, topology: Topology) -> tuple[object, ...]:
    """Return the key of a finished candidate.

    Args:
        record: Finished candidate.
        topology: Structure of the dense model.
    """
    return _key(record.plan, record.widths, record.dropped, topology)


def _key(
    plan: PruningPlan, widths: Mapping[str, int], dropped: tuple[str, ...], topology: Topology
) -> tuple[object, ...]:
    ranked = plan.ranking.criterion if plan.ranking is not None else ""
    criteria = {
        name: plan.groups[name].criterion if name in plan.groups else ranked
        for name, width in widths.items()
        if width < topology.widths[name]
    }
    weights = plan.weights
    masks = None
    if weights is not None:
        masks = (weights.pattern, weights.sparsity, weights.criterion, weights.spread, *sorted(weights.layers.items()))
    return (tuple(sorted(widths.items())), tuple(sorted(criteria.items())), dropped, masks, plan.recovery)
