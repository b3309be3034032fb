"""Duplicates: proposals whose training would repeat that of a finished candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoprune.plan.plan import PruningPlan
from autoprune.plan.widths import planned_widths
from autoprune.records.candidate import CandidateRecord
from autoprune.structure.topology import Topology


def find(records: Sequence[CandidateRecord], plan: PruningPlan, topology: Topology) -> CandidateRecord | None:
    """Find the finished candidate with the same widths, blocks, masks and recovery; None if there is none.

    Ratios that round to the same widths are equal, and seeds are ignored. Criteria count for the groups that lose
    channels. The best trained (latest) candidate is returned; a polish stands for the candidate it polished. A
    candidate that was stopped early is returned only if no other matches.

    Args:
        records: Finished candidates.
        plan: Resolved plan, see criteria.resolve.
        topology: Structure of the dense model.
    """
    wanted = key(plan, planned_widths(plan, topology), topology)
    for record in sorted(records, key=lambda record: (record.stopped, -record.number)):
        if not record.note and key(record.plan, record.widths, topology, record.dropped) == wanted:
            return record
    return None


def keys(records: Sequence[CandidateRecord], topology: Topology) -> set[object]:
    """Return the keys of all candidates, to look up many plans.

    Args:
        records: Finished candidates.
        topology: Structure of the dense model.
    """
    return {key(record.plan, record.widths, topology, record.dropped) for record in records if not record.note}


def key(
    plan: PruningPlan, widths: dict[str, int], topology: Topology, dropped: tuple[str, ...] | None = None
) -> tuple[object, ...]:
    """Return a key that is equal for equal trials: widths, criteria, blocks, masks and recovery.

    Args:
        plan: Resolved plan.
        widths: Group name -> kept channels.
        topology: Structure of the dense model.
        dropped: Names of the dropped blocks; those of the plan when None.
    """
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
    recovery = replace(plan.recovery, max_norm=float(plan.recovery.max_norm))
    gone = plan.dropped if dropped is None else dropped
    return (tuple(sorted(widths.items())), tuple(sorted(criteria.items())), gone, masks, recovery)
