"""Proposals that are known already: what would be trained has been trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoprune.criteria.resolve import planned_widths
from autoprune.front.record import CandidateRecord
from autoprune.plan.plan import PruningPlan
from autoprune.trace.topology import Topology


def find(records: Sequence[CandidateRecord], plan: PruningPlan, topology: Topology) -> CandidateRecord | None:
    """The finished candidate with the same achieved widths, blocks, masks and recovery; None when there is none.

    plan: resolved, see criteria.resolve. Ratios that round to the same widths are the same, and so are seeds. Criteria
    count where channels go by them. Of several the best trained (latest) one answers; a polish stands for what it
    polished. One that was stopped early answers where no other does: it was hopeless then and is now.
    """
    wanted = key(plan, planned_widths(plan, topology), topology)
    for record in sorted(records, key=lambda record: (record.stopped, -record.number)):
        if not record.note and key(record.plan, record.widths, topology, record.dropped) == wanted:
            return record
    return None


def keys(records: Sequence[CandidateRecord], topology: Topology) -> set[object]:
    """The keys of all candidates, to ask for many plans whether one is known."""
    return {key(record.plan, record.widths, topology, record.dropped) for record in records if not record.note}


def key(
    plan: PruningPlan, widths: dict[str, int], topology: Topology, dropped: tuple[str, ...] | None = None
) -> tuple[object, ...]:
    """Everything that makes two trials the same: widths, criteria, blocks, masks and recovery."""
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
