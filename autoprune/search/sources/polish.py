"""Polishing: train a member of the front further at its widths.

A new plan has to recover from a cut first; a good candidate only has to recover further. With short fine-tunes the
second is often the better use of the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from autoprune.front.front import Front
from autoprune.front.limit_check import LimitCheck
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.confidence import CONFIDENCE
from autoprune.records.origins import Origin
from autoprune.records.paired import difference_errors, quantile
from autoprune.search.state import SearchState
from autoprune.structure.topology import Topology

#: Proposals known in a row after which a member of the front is trained further instead.
DUPLICATES_IN_A_ROW = 3
#: Candidates that are compared with another one at once.
_AT_ONCE = 16


def is_polish_due(sampled: int, share: float) -> bool:
    """Return whether the next trial is a polish, so that `share` of the trials are.

    Args:
        sampled: Trials so far that were no warm start.
        share: Share of polishes, in [0, 1).
    """
    return int((sampled + 1) * share) > int(sampled * share)


def choose_to_polish(front: Front, cost: str, has_weights: Callable[[int], bool]) -> CandidateRecord | None:
    """Choose the member of the front with the most to gain relative to its training.

    With limits, only members count that keep them. While none keeps the limits of quality with confidence, the one
    that is nearest to them is chosen, and others the sooner the more often it was trained.

    The possible gain is the difference in quality to the best larger candidate, less what may be luck, divided by the
    number of candidates with the same widths. Where all of it may be luck, the measured difference decides. The newest
    candidate of equal widths stands for them.

    Args:
        front: Front of all finished candidates.
        cost: Cost by which candidates are larger.
        has_weights: Number of a candidate -> whether its weights are stored.

    Returns:
        The candidate; None if there is none.
    """
    trainable = [
        record
        for record in _best_of_widths(front)
        if record.plan.recovery.steps > 0 and not record.note and has_weights(record.number)
    ]
    members, nearest = _within_limits(front, trainable)
    if nearest is not None:
        return nearest
    places = front.numbers.places(members)
    costs, losses, times = front.numbers.shown(cost), front.numbers.losses, front.numbers.times_trained[places]
    measured = _measured_gains(costs, losses, places) / times
    best, best_score = None, (-1.0, -1.0)
    for record, place, count, gain in zip(members, places.tolist(), times.tolist(), measured.tolist(), strict=True):
        if (gain, gain) <= best_score:  # no gain beyond noise is larger than the measured one
            continue
        gains = np.where(costs > costs[place], np.nan_to_num(losses[place] - losses, nan=-np.inf), -np.inf)
        score = (_sure_gain(front, record, gains) / count, gain)
        if score > best_score:
            best, best_score = record, score
    return best


def _within_limits(
    front: Front, members: Sequence[CandidateRecord]
) -> tuple[Sequence[CandidateRecord], CandidateRecord | None]:
    """Keep the members that keep the limits; where none keeps those of quality for sure, find the nearest one.

    Training changes no cost: a member beyond a limit of one stays beyond it. Where all are, all count.
    """
    problem, places = front.problem, front.numbers.places(members)
    if not (members and problem.limits.each):
        return members, None
    measured = LimitCheck.of_search(front.records, problem)
    over, below = _excess(measured, front, places)
    affordable = over <= 0
    if not affordable.any():
        return members, None
    _, surely = _excess(replace(measured, confidence=CONFIDENCE), front, places)
    if (affordable & (surely <= 0)).any():
        return [one for one, kept in zip(members, affordable & (below <= 0), strict=True) if kept], None
    some = np.flatnonzero(affordable)
    far = surely[some] * front.numbers.times_trained[places[some]]
    return members, members[int(some[np.argmin(far)])]


def _excess(check: LimitCheck, front: Front, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far some candidates are beyond the limits of costs, and beyond those of quality and metrics; the farthest."""
    of_costs, of_quality = np.full((2, len(places)), -np.inf)
    for name, value in check.excesses(front.numbers).items():
        worst = of_costs if name in front.problem.costs else of_quality
        np.maximum(worst, value[places], out=worst)
    return of_costs, of_quality


def _measured_gains(costs: np.ndarray, losses: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Compute how far candidates are below the best one that costs more, >= 0, whatever the noise. Float [places]."""
    order = np.argsort(costs, kind="stable")  # NaN comes last, and is no larger than anything
    known = order[: np.count_nonzero(~np.isnan(costs))]
    least = np.minimum.accumulate(np.nan_to_num(losses[known], nan=np.inf)[::-1])[::-1]
    first = np.searchsorted(costs[known], costs[places], side="right")
    best = np.append(least, np.inf)[np.minimum(first, len(known))]
    return np.asarray(np.maximum(np.nan_to_num(losses[places] - best, nan=0.0), 0.0))


def _sure_gain(front: Front, record: CandidateRecord, gains: np.ndarray) -> float:
    """Compute how far a candidate is below the best one beyond noise, >= 0; the largest gains are looked at first.

    gains: how much better each candidate of the front's records is, where it counts.
    """
    sure, order = 0.0, np.argsort(-gains, kind="stable")
    for start in range(0, len(order), _AT_ONCE):
        some = order[start : start + _AT_ONCE]
        if not gains[some[0]] > sure:
            break
        noise = quantile() * difference_errors(record.search, [front.records[place].search for place in some.tolist()])
        sure = max(sure, float(np.max(gains[some] - noise)))
    return sure


def _best_of_widths(front: Front) -> Sequence[CandidateRecord]:
    """Return the longest trained record for each set of widths on the front."""
    newest: dict[object, CandidateRecord] = {}
    for record in sorted(front.members, key=lambda record: record.lineage_trained):
        newest[record.architecture] = record
    return list(newest.values())


def enqueue_polish(state: SearchState) -> bool:
    """Queue a finished candidate again, where that is due: the same plan at its widths, from its own weights.

    Args:
        state: State of the search.

    Returns:
        Whether one was queued.
    """
    ledger, settings = state.ledger, state.settings
    repeated = ledger.duplicates_in_a_row
    exhausted = repeated > 0 and repeated % DUPLICATES_IN_A_ROW == 0
    if not settings.search.lineage or not (exhausted or is_polish_due(ledger.proposal_count, settings.search.polish)):
        return False
    record = choose_to_polish(state.front(), settings.search.structure_cost, state.model.has_weights)
    if record is None:
        return False
    ledger.enqueue(ledger.found(record.number).params, {"origin": Origin.POLISHED.value, "of": record.number})
    return True


def at_its_widths(record: CandidateRecord, topology: Topology) -> PruningPlan:
    """Replace choices by scores with the widths and blocks they gave, so that other scores change nothing.

    Args:
        record: Candidate that is trained further.
        topology: Structure of the dense model.

    Returns:
        The plan of its polish, with its seed.
    """
    plan = record.plan
    if not plan.needs_scores:
        return plan
    rule = plan.ranking.criterion if plan.ranking is not None else ""
    groups = {
        name: GroupPlan(
            count=topology.widths[name] - width,
            criterion=plan.groups[name].criterion if name in plan.groups else rule or GroupPlan().criterion,
        )
        for name, width in record.widths.items()
    }
    return replace(plan, groups=groups, ranking=None, dropped=record.dropped, blocks=None, layers=None)
