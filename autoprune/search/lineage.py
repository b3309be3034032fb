"""Lineage: a trial starts from the smallest recovered ancestor that contains its plan, so that recovery adds up."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.plan.resolved import ResolvedPlan
from autoprune.plan.weights import WeightPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.origins import Origin
from autoprune.structure.topology import Topology


def choose_parent(records: Sequence[CandidateRecord], plan: ResolvedPlan) -> CandidateRecord | None:
    """Choose the candidate with the fewest multiply-adds that contains a plan.

    A parent is at least as wide in every group, has every block but the dropped ones, and no masks beyond the plan's.
    Equal widths count: training goes on. Of equal candidates the better recovered (later) one is taken. Candidates
    whose fine-tune failed or was stopped are no parents.

    Args:
        records: Candidates with weights.
        plan: Plan to start.

    Returns:
        The parent; None if no candidate contains the plan, not even dense.
    """
    fitting = [
        record
        for record in records
        if _recovered(record)
        and _holds(record, plan)
        and all(record.widths[name] >= width for name, width in plan.widths.items())
    ]
    return min(fitting, key=lambda record: (record.search.multiply_adds, -record.number), default=None)


def allowed_parents(records: Sequence[CandidateRecord], origin: Origin) -> Sequence[CandidateRecord]:
    """Return the candidates that a trial may start from: baselines start from baselines alone.

    Args:
        records: Finished candidates.
        origin: Origin of the trial.
    """
    return [record for record in records if record.origin.is_baseline] if origin.is_baseline else records


def shrink_to_ancestor(
    records: Sequence[CandidateRecord], plan: ResolvedPlan, topology: Topology, slack: float
) -> ResolvedPlan:
    """Shrink the plan to fit the smallest finished candidate that almost contains it.

    A plan that is a few channels too wide for a recovered candidate would otherwise start from a far larger one, and
    recover again.

    Args:
        records: Finished candidates with weights.
        plan: Plan to shrink.
        topology: Structure of the dense model.
        slack: Share of the plan's multiply-adds that it may lose, in [0, 1).

    Returns:
        The plan, unchanged if a candidate contains it already or none is within `slack`.
    """
    least = (1.0 - slack) * topology.cost(plan.widths, plan.dropped).multiply_adds
    for record in sorted(records, key=lambda record: record.search.multiply_adds):
        fits = _recovered(record) and _holds(record, plan)
        if not fits or record.search.multiply_adds < least:
            continue
        fewer = {name: min(width, record.widths[name]) for name, width in plan.widths.items()}
        if fewer == plan.widths:
            return plan
        if topology.cost(fewer, plan.dropped).multiply_adds >= least:
            return plan.with_widths(fewer, topology)
    return plan


def _recovered(record: CandidateRecord) -> bool:
    return not record.note and not record.stopped


def _holds(record: CandidateRecord, plan: ResolvedPlan) -> bool:
    """Return whether a record has every block but the lost ones, and no masks beyond the planned ones."""
    return set(record.dropped) <= plan.gone and _looser(record.plan.weights, plan.weights)


def _looser(parent: WeightPlan | None, child: WeightPlan | None) -> bool:
    """Return whether a child masks every weight that its parent masks, so that no weight has to grow back."""
    if parent is None:
        return True
    if child is None or parent.pattern != child.pattern:
        return False
    layers = {*parent.layers, *child.layers}
    pairs = [(plan.layers.get(name, plan.target) for plan in (parent, child)) for name in layers]
    return parent.spread == child.spread and parent.target <= child.target and all(a <= b for a, b in pairs)
