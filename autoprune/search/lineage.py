"""Lineage: a trial starts from the smallest recovered ancestor that contains its plan, so that recovery adds up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autoprune.plan.resolved import ResolvedPlan
from autoprune.plan.weights import WeightPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.origins import Origin
from autoprune.structure.topology import Topology


def choose_parent(
    records: Sequence[CandidateRecord], plan: ResolvedPlan, has_weights: Callable[[int], bool] = lambda _: True
) -> CandidateRecord | None:
    """Choose the candidate with the fewest multiply-adds that contains a plan.

    A parent is at least as wide in every group, has every block but the dropped ones, and no masks beyond the plan's.
    Equal widths count: training goes on. Of equal candidates the better recovered (later) one is taken. Candidates
    whose fine-tune failed or was stopped are no parents.

    Args:
        records: Candidates.
        plan: Plan to start.
        has_weights: Number of a candidate -> whether its weights are stored; asked of few, as that may read a disk.

    Returns:
        The parent; None if no candidate contains the plan, not even dense.
    """
    cheapest = sorted(records, key=lambda record: (record.search.multiply_adds, -record.number))
    fitting = (one for one in cheapest if _recovered(one) and _contains(one, plan) and _holds(one, plan))
    return next((record for record in fitting if has_weights(record.number)), None)


def is_allowed(record: CandidateRecord, origin: Origin) -> bool:
    """Tell whether a trial may start from a candidate or take its result: baselines depend on baselines alone.

    Args:
        record: Finished candidate.
        origin: Origin of the trial.
    """
    return not origin.is_baseline or record.origin.is_baseline


def shrink_to_ancestor(
    records: Sequence[CandidateRecord],
    plan: ResolvedPlan,
    topology: Topology,
    least: float,
    has_weights: Callable[[int], bool] = lambda _: True,
) -> ResolvedPlan:
    """Shrink the plan to fit the smallest finished candidate that almost contains it.

    A plan that is a few channels too wide for a recovered candidate would otherwise start from a far larger one, and
    recover again.

    Args:
        records: Finished candidates.
        plan: Plan to shrink.
        topology: Structure of the dense model.
        least: Multiply-adds that have to be left of it, see `least_left`.
        has_weights: Number of a candidate -> whether its weights are stored.

    Returns:
        The plan, unchanged if a candidate contains it already or none leaves enough of it.
    """
    large = [record for record in records if record.search.multiply_adds >= least]
    large.sort(key=lambda record: record.search.multiply_adds)
    for record in large:
        if not (_recovered(record) and _holds(record, plan)):
            continue
        fewer = {name: min(width, record.widths[name]) for name, width in plan.widths.items()}
        if topology.cost(fewer, plan.dropped).multiply_adds < least or not has_weights(record.number):
            continue
        return plan if fewer == plan.widths else plan.with_widths(fewer, topology)
    return plan


def least_left(plan: ResolvedPlan, topology: Topology, slack: float) -> float:
    """Work out the multiply-adds that have to be left of a plan that is shrunk.

    Args:
        plan: Plan to shrink.
        topology: Structure of the dense model.
        slack: Share of the plan's multiply-adds that it may lose, in [0, 1).
    """
    return (1.0 - slack) * topology.cost(plan.widths, plan.dropped).multiply_adds


def _contains(record: CandidateRecord, plan: ResolvedPlan) -> bool:
    widths = record.widths
    return all(widths[name] >= width for name, width in plan.widths.items())


def _recovered(record: CandidateRecord) -> bool:
    return not record.note and not record.stopped


def _holds(record: CandidateRecord, plan: ResolvedPlan) -> bool:
    """Return whether a record has every block but the lost ones, and no masks beyond the planned ones."""
    return (not record.dropped or set(record.dropped) <= plan.gone) and _looser(record.plan.weights, plan.weights)


def _looser(parent: WeightPlan | None, child: WeightPlan | None) -> bool:
    """Return whether a child masks every weight that its parent masks, so that no weight has to grow back."""
    if parent is None:
        return True
    if child is None or parent.pattern != child.pattern:
        return False
    layers = {*parent.layers, *child.layers}
    pairs = [(plan.layers.get(name, plan.target) for plan in (parent, child)) for name in layers]
    return parent.spread == child.spread and parent.target <= child.target and all(a <= b for a, b in pairs)
