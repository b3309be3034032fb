"""Allocations solved anew from the scan as the finished candidates correct it."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from autoprune.front.record import CandidateRecord
from autoprune.sensitivity.correction import correct_scan, observe
from autoprune.sensitivity.scan import Sensitivity
from autoprune.space.settings import SpaceSettings
from autoprune.space.space import Space, budgets, build_space
from autoprune.trace.topology import Topology

#: Candidates after which it is done first; then after twice as many, and so on.
FIRST = 20


def is_rescan_due(finished: int) -> bool:
    """Whether allocations are solved anew after that many candidates: 20, 40, 80, ..."""
    times, rest = divmod(finished, FIRST)
    return rest == 0 and times > 0 and times & (times - 1) == 0


def enqueue_rescanned(
    study: optuna.Study,
    space: Space,
    sensitivity: Sensitivity,
    records: Sequence[CandidateRecord],
    model: tuple[SpaceSettings, Topology, bool, int],
) -> int:
    """Queue the solved allocations of the corrected scan, unless that was done or nothing is corrected; how many.

    The space stays as it is, since parameters of earlier trials must go on to mean what they meant: each plan is queued
    with the parameters nearest to it. model: its settings, topology, whether a higher quality is better, and the number
    of solved allocations.
    """
    settings, topology, higher_is_better, points = model
    found = correct_scan(sensitivity, observe(records, topology.widths, higher_is_better))
    if all(factor == 1.0 for factor in found.factors.values()):
        return 0
    present = {trial.user_attrs.get("warm_start") for trial in study.get_trials(deepcopy=False)}
    fresh, queued = build_space(settings, topology, found.sensitivity), 0
    for number, budget in enumerate(budgets(settings, topology, points)):
        key, point = f"solved {len(records)} {number}", fresh.solved(budget)
        if point is None or key in present:
            continue
        plan = fresh.decode(point, seed=len(records))
        attributes = {"warm_start": key, "origin": "solved", "plan": plan.to_dict()}
        study.enqueue_trial(space.encode(plan), user_attrs=attributes)
        queued += 1
    return queued
