"""Reallocation: solve allocations again from the scan as finished candidates correct it."""

from __future__ import annotations

from autoprune.records.origins import Origin
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.allocation.correction import correct_scan, observe
from autoprune.search.space.space import budgets, build_space
from autoprune.search.state import SearchState

#: Candidates before the first rescan; the next follow after twice as many each.
FIRST = 20


def last_rescan(finished: int) -> int:
    """Return the number of candidates at which allocations were last to be solved again: 20, 40, 80, ...

    Args:
        finished: Number of finished candidates.

    Returns:
        The number; 0 before the first.
    """
    times = finished // FIRST
    return FIRST << (times.bit_length() - 1) if times else 0


def enqueue_rescanned(state: SearchState) -> bool:
    """Queue the solved allocations of the corrected scan, unless already done or nothing is corrected.

    The space stays unchanged, because parameters of earlier trials must keep their meaning: each plan is queued with
    the parameters nearest to it.

    Args:
        state: State of the search.

    Returns:
        Whether any was queued.
    """
    due, sensitivity, ledger = last_rescan(len(state.records)), state.model.sensitivity, state.ledger
    if sensitivity is None or due <= ledger.rescanned_at:
        return False
    queued = any(key.startswith(f"solved {due} ") for key in ledger.warm_starts) or _enqueue(state, sensitivity, due)
    ledger.note_rescan(due)
    return queued


def _enqueue(state: SearchState, sensitivity: Sensitivity, due: int) -> bool:
    settings, topology = state.settings, state.model.topology
    observed = observe(state.records[:due], topology.widths, state.model.problem.quality)
    found = correct_scan(sensitivity, observed)
    if all(factor == 1.0 for factor in found.factors.values()):
        return False
    fresh, queued = build_space(settings, topology, found.sensitivity, state.model.latency), False
    for number, budget in enumerate(budgets(settings, topology, settings.search.solved_points, state.model.latency)):
        point = fresh.solved(budget)
        if point is None:
            continue
        plan = fresh.decode(point, seed=due)
        attributes = {"warm_start": f"solved {due} {number}", "origin": Origin.SOLVED.value, "plan": plan.to_dict()}
        state.ledger.enqueue(state.space.encode(plan), attributes)
        queued = True
    return queued
