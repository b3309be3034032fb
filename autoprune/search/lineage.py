"""Lineage: a trial starts from the smallest recovered ancestor that contains its plan, so that recovery adds up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.weights import WeightPlan
from autoprune.plan.widths import planned_widths
from autoprune.records.candidate import BASELINES, CandidateRecord
from autoprune.structure.topology import Topology


def choose_parent(
    records: Sequence[CandidateRecord],
    widths: Mapping[str, int],
    dropped: Collection[str] = (),
    weights: WeightPlan | None = None,
) -> CandidateRecord | None:
    """Choose the candidate with the fewest multiply-adds that contains a plan.

    A parent is at least as wide in every group, has every block but the dropped ones, and no masks beyond the plan's.
    Equal widths count: training goes on. Of equal candidates the better recovered (later) one is taken. Candidates
    whose fine-tune failed or was stopped are no parents.

    Args:
        records: Candidates with weights.
        widths: Group name -> planned channels.
        dropped: Names of the blocks to drop, with parts of blocks, as `Topology.gone` gives them.
        weights: Masks of the plan.

    Returns:
        The parent; None if no candidate contains the plan, not even dense.
    """
    fitting = [
        record
        for record in records
        if _recovered(record)
        and _holds(record, dropped, weights)
        and all(record.widths[name] >= width for name, width in widths.items())
    ]
    return min(fitting, key=lambda record: (record.search.multiply_adds, -record.number), default=None)


def allowed_parents(records: Sequence[CandidateRecord], origin: str) -> Sequence[CandidateRecord]:
    """Return the candidates that a trial may start from: baselines start from baselines alone.

    Args:
        records: Finished candidates.
        origin: Origin of the trial.
    """
    return [record for record in records if record.origin in BASELINES] if origin in BASELINES else records


def shrink_to_ancestor(
    records: Sequence[CandidateRecord], plan: PruningPlan, topology: Topology, slack: float
) -> PruningPlan:
    """Shrink the plan to fit the smallest finished candidate that almost contains it.

    A plan that is a few channels too wide for a recovered candidate would otherwise start from a far larger one, and
    recover again.

    Args:
        records: Finished candidates with weights.
        plan: Resolved plan.
        topology: Structure of the dense model.
        slack: Share of the plan's multiply-adds that it may lose, in [0, 1).

    Returns:
        The plan, unchanged if a candidate contains it already or none is within `slack`.
    """
    widths, gone = planned_widths(plan, topology), topology.gone(plan.dropped)
    least = (1.0 - slack) * topology.cost(widths, plan.dropped).multiply_adds
    for record in sorted(records, key=lambda record: record.search.multiply_adds):
        fits = _recovered(record) and _holds(record, gone, plan.weights)
        if not fits or record.search.multiply_adds < least:
            continue
        fewer = {name: min(width, record.widths[name]) for name, width in widths.items()}
        if fewer == widths:
            return plan
        if topology.cost(fewer, plan.dropped).multiply_adds >= least:
            return with_widths(plan, fewer, topology)
    return plan


def with_widths(plan: PruningPlan, widths: Mapping[str, int], topology: Topology) -> PruningPlan:
    """Return the plan with other widths.

    Args:
        plan: Resolved plan.
        widths: Group name -> kept channels.
        topology: Structure of the dense model.
    """
    whole, groups = topology.widths, {}
    for name, width in widths.items():
        before = plan.groups.get(name)
        if before is not None or width < whole[name]:
            criterion = (before or GroupPlan()).criterion
            groups[name] = GroupPlan(count=whole[name] - width, criterion=criterion)
    return replace(plan, groups=groups)


def _recovered(record: CandidateRecord) -> bool:
    return not record.note and not record.stopped


def _holds(record: CandidateRecord, dropped: Collection[str], weights: WeightPlan | None) -> bool:
    """Return whether a record has every block but the dropped ones, and no masks beyond the planned ones."""
    return set(record.dropped) <= set(dropped) and _looser(record.plan.weights, weights)


def _looser(parent: WeightPlan | None, child: WeightPlan | None) -> bool:
    """Return whether a child masks every weight that its parent masks, so that no weight has to grow back."""
    if parent is None:
        return True
    if child is None or parent.pattern != child.pattern:
        return False
    layers = {*parent.layers, *child.layers}
    pairs = [(plan.layers.get(name, plan.target) for plan in (parent, child)) for name in layers]
    return parent.spread == child.spread and parent.target <= child.target and all(a <= b for a, b in pairs)
