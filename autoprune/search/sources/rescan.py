"""Reallocation: solve allocations again from the scan as finished candidates correct it."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from autoprune.records.candidate import CandidateRecord
from autoprune.records.objectives import Objective
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.allocation.correction import correct_scan, observe
from autoprune.search.space.settings import SpaceSettings
from autoprune.search.space.space import Space, budgets, build_space
from autoprune.structure.topology import Topology

#: Candidates before the first rescan; the next follow after twice as many each.
FIRST = 20


def is_rescan_due(finished: int) -> bool:
    """Return whether allocations are solved again after that many candidates: 20, 40, 80, ...

    Args:
        finished: Number of finished candidates.
    """
    times, rest = divmod(finished, FIRST)
    return rest == 0 and times > 0 and times & (times - 1) == 0


def enqueue_rescanned(
    study: optuna.Study,
    space: Space,
    sensitivity: Sensitivity,
    records: Sequence[CandidateRecord],
    model: tuple[SpaceSettings, Topology, Objective, int],
) -> int:
    """Queue the solved allocations of the corrected scan, unless already done or nothing is corrected.

    The space stays unchanged, because parameters of earlier trials must keep their meaning: each plan is queued with
    the parameters nearest to it.

    Args:
        study: Optuna study.
        space: Space of the study.
        sensitivity: Stored scan.
        records: Finished candidates.
        model: Settings of the space, topology, objective of the quality, number of solved allocations.

    Returns:
        Number of queued trials.
    """
    settings, topology, quality, points = model
    found = correct_scan(sensitivity, observe(records, topology.widths, quality))
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
