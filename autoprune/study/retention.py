"""Retention of weights: find weights that no later trial can need."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

from autoprune.errors import StorageError
from autoprune.front.front import Front
from autoprune.records.annotations import read_annotations
from autoprune.records.candidate import CandidateRecord
from autoprune.records.metric_objectives import further_metric
from autoprune.records.objectives import Objective
from autoprune.records.paired import difference_error, quantile
from autoprune.records.problem import Problem
from autoprune.records.run_folder import RunFolder


def removable_weights(front: Front, in_use: Collection[int] = ()) -> Sequence[CandidateRecord]:
    """Return the candidates whose weights no trial needs: dominated for good, without descendants, no baseline.

    A candidate is dominated for good by one whose metrics are better beyond the noise of their difference. Some
    candidates off the front stay: which latencies count as equal depends on all measurements, so a candidate may
    come back, and a limit on a cost that is no objective may leave it as the best one. Further metrics count where they
    are objectives or limits of the search. Stopped candidates are on no
    front and in no lineage. Candidates whose weights are deleted already are left out.

    Args:
        front: Front of all finished candidates.
        in_use: Numbers of candidates that running trials start from.
    """
    members = {record.number for record in front.members}
    parents = {record.parent for record in front.records} | {*in_use}
    return [
        record
        for record in front.records
        if not record.removed
        and record.number not in members
        and record.number not in parents
        and not record.origin.is_baseline
        and (record.stopped or any(_beats(rival, record, front.problem) for rival in front.members))
    ]


def remove_useless_weights(
    folder: RunFolder, records: list[CandidateRecord], front: Front, in_use: Collection[int] = ()
) -> None:
    """Delete the weights that no later trial can need, and mark their records. Those of the chosen candidate stay.

    Args:
        folder: Run folder.
        records: All finished candidates; those without weights are replaced in place.
        front: Their front.
        in_use: Numbers of candidates that running trials start from.
    """
    useless: set[int | None] = {found.number for found in removable_weights(front, in_use)}
    if not useless:
        return
    try:
        useless.discard(read_annotations(folder.path).chosen)
    except StorageError:  # which candidate was chosen is unknown, and deleted weights are gone
        return
    for position, found in enumerate(records):
        if found.number in useless:
            folder.remove_weights(found.number)
            records[position] = replace(found, removed=True)


def _beats(rival: CandidateRecord, record: CandidateRecord, problem: Problem) -> bool:
    """Return whether a rival is better beyond noise, and certainly no worse in any cost or metric that matters."""
    gain = problem.quality.gain(rival.search.quality, record.search.quality)
    if not gain > quantile() * difference_error(rival.search, record.search):
        return False
    limited = [problem.limited(limit) for limit in problem.limits.each.values()]
    rows = {row.name: row for row in (*problem.costs.values(), *problem.rows, *limited)}.values()
    within = (_margin(rival, record, row) for row in rows if not row.is_cost)
    return all(row.is_never_worse(rival, record) for row in rows) and all(margin >= 0 for margin in within)


def _margin(rival: CandidateRecord, record: CandidateRecord, metric: Objective) -> float:
    """Compute by how much a rival is better in a metric than noise explains."""
    gain = metric.gain(metric.value(rival.search), metric.value(record.search))
    noise = quantile() * difference_error(rival.search, record.search, further_metric(metric.name))
    return 0.0 if math.isnan(gain) else gain - noise
