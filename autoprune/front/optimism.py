"""Optimism of the best of many: how much better a chosen candidate looks on the search split than it is.

The samples are drawn again, jointly for all candidates, the choice is made again, and the quality of the chosen one on
the draw is compared with its quality on the samples that were not drawn. The luck of a draw is that of its distinct
samples, 63.2 % of all, so the optimism is 0.632 of the difference. Compared with all samples instead, which are no
news, the best of equally good candidates would seem half as lucky as it is. A draw moves each quality by the deviations
of the folds, see `records.paired`.

Source: Efron, Estimating the error rate of a prediction rule, 1983 (optimism by the bootstrap, the 0.632 rule);
Tibshirani and Tibshirani, A bias correction for the minimum error rate in cross-validation, 2009 (of the best of many).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from autoprune.front.limit_check import LimitCheck
from autoprune.records.candidate import CandidateRecord
from autoprune.records.objectives import QUALITY
from autoprune.records.paired import draw_changes

#: Draws of the samples, and the largest number of qualities that are drawn: fewer draws for many candidates.
DRAWS, _QUALITIES = 1000, 300_000
#: Share of the samples that a draw holds.
_SHARE = 0.632


def estimate_optimism(records: Sequence[CandidateRecord], check: LimitCheck, by: str) -> float | None:
    """Estimate by how much the quality of the best candidate within limits looks better than it is.

    Args:
        records: All candidates that were chosen among, those without weights included.
        check: Limits to keep.
        by: Objective to choose by.

    Returns:
        The difference in the unit of the quality, >= 0 but for chance; None where no error of the quality is known, or
        no candidate keeps the limits.
    """
    finite = [record for record in records if math.isfinite(record.search.quality)]
    open_ones = [(record, over) for record in finite if _is_open(record, over := check.excess(record), check, by)]
    known = [record for record, _ in open_ones]
    draws = min(DRAWS, max(_QUALITIES // max(len(known), 1), 50))
    moved = draw_changes([record.search for record in known], draws)
    if moved is None:
        return None
    quality = check.problem.quality
    losses = np.array([quality.loss(record.search.quality) for record in known])
    drawn, left = (losses + quality.loss(1.0) * one for one in moved)
    allowed = _allowed(open_ones, check, drawn)
    if by in (QUALITY, check.problem.metric):
        order = drawn
    else:
        objective = check.problem.objective(by)
        cost = np.array([objective.loss(check.value(record, by)) for record in known])
        # Among equal costs the better quality decides.
        ranks = np.unique(cost, return_inverse=True)[1]
        span = np.ptp(drawn) + 1.0
        order = ranks + (drawn - drawn.min()) / span
    chosen = np.where(allowed, order, np.inf).argmin(axis=1)
    some = allowed.any(axis=1)
    looks = (left - drawn)[np.arange(len(drawn)), chosen]
    return _SHARE * float(looks[some].mean()) if some.any() else None


def _is_open(record: CandidateRecord, excess: Mapping[str, float], check: LimitCheck, by: str) -> bool:
    """Tell whether a candidate keeps all limits but those of the quality, which depend on the draw."""
    fixed = [over for name, over in excess.items() if not _depends_on_draw(name, check)]
    return max(fixed, default=0.0) <= 0 and math.isfinite(check.value(record, by))


def _depends_on_draw(name: str, check: LimitCheck) -> bool:
    """Tell whether an excess is one over a limit of the quality."""
    limit = check.limits.each.get(name)
    return name == "drop" or (limit is not None and check.is_of_quality(limit))


def _allowed(
    candidates: Sequence[tuple[CandidateRecord, Mapping[str, float]]], check: LimitCheck, drawn: np.ndarray
) -> np.ndarray:
    """Tell which candidates keep the limits of the quality in each draw, bool [draws, candidates].

    candidates: records with their excess over each limit.
    """
    records, excess = [record for record, _ in candidates], [over for _, over in candidates]
    quality, allowed = check.problem.quality, np.ones(drawn.shape, dtype=bool)
    measured = np.array([quality.loss(record.search.quality) for record in records])
    dense = next((place for place, record in enumerate(records) if record is check.dense), None)
    for name in {name for one in excess for name in one if _depends_on_draw(name, check)}:
        against = drawn[:, [dense]] - measured[dense] if name == "drop" and dense is not None else 0.0
        allowed &= np.array([one[name] for one in excess]) + (drawn - measured) - against <= 0
    return allowed
