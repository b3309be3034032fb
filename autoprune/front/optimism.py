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

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.front.limit_check import LimitCheck
from autoprune.front.numbers import Numbers
from autoprune.records.candidate import CandidateRecord
from autoprune.records.objectives import QUALITY
from autoprune.records.paired import draw_changes

#: Share of the samples that a draw holds.
_SHARE = 0.632


def estimate_optimism(numbers: Numbers, check: LimitCheck, by: str) -> float | None:
    """Estimate by how much the quality of the best candidate within limits looks better than it is.

    Args:
        numbers: Numbers of all candidates; those without weights were chosen among, too, and stopped ones were not.
        check: Limits to keep.
        by: Objective to choose by.

    Returns:
        The difference in the unit of the quality, >= 0 but for chance; None where no error of the quality is known, or
        no candidate keeps the limits.
    """
    excess = check.excesses(numbers)
    fixed = [over for name, over in excess.items() if not _depends_on_draw(name, check)]
    is_open = numbers.complete & np.isfinite(numbers.shown(QUALITY)) & check.is_known(numbers, by)
    known = np.flatnonzero(is_open & (np.max(fixed, axis=0) <= 0 if fixed else True))
    samples = Draws.of(numbers, known) if len(known) else None
    if samples is None:
        return None
    allowed = _allowed({name: over[known] for name, over in excess.items()}, check, samples)
    if check.problem.is_quality(by):
        order = samples.drawn
    else:
        objective = check.problem.objective(by)
        cost = objective.loss(1.0) * numbers.shown(by)[known]
        if not objective.is_cost:
            cost = cost + objective.loss(1.0) * samples.change(by)
        # Among equal costs the better quality decides.
        ranks = np.unique(cost, return_inverse=True)[1].reshape(cost.shape)
        span = np.ptp(samples.drawn) + 1.0
        order = ranks + (samples.drawn - samples.drawn.min()) / span
    return samples.luck(np.where(allowed, order, np.inf))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draws:
    """Losses of candidates on draws of the samples, float [draws, candidates].

    Attributes:
        records: The candidates.
        losses: Losses as measured, [candidates].
        drawn: Losses on the draws.
        left: Losses on the samples that were not drawn.
    """

    records: tuple[CandidateRecord, ...]
    losses: np.ndarray
    drawn: np.ndarray
    left: np.ndarray

    @classmethod
    def of(cls, numbers: Numbers, places: np.ndarray) -> Draws | None:
        """Draw the samples of candidates, jointly for all.

        Args:
            numbers: Numbers of candidates.
            places: Positions of the candidates to draw.

        Returns:
            The draws; None where no error of the quality is known.
        """
        moved = numbers.changes
        if moved is None:
            return None
        losses, sign = numbers.losses[places], numbers.problem.quality.loss(1.0)
        drawn, left = (losses + sign * one[:, places] for one in moved)
        records = tuple(numbers.records[place] for place in places.tolist())
        return cls(records=records, losses=losses, drawn=drawn, left=left)

    def change(self, metric: str) -> np.ndarray:
        """Return how much a further metric changes on the draws, [draws, candidates]; 0 where its noise is unknown.

        Args:
            metric: Name of the metric.
        """
        found = np.zeros_like(self.drawn)
        moved = draw_changes([record.search for record in self.records], len(found), metric)
        if moved is not None:  # other folds may have fewer draws
            found[: len(moved[0])] = moved[0]
        return found

    def luck(self, order: np.ndarray) -> float | None:
        """Estimate how much better the first candidate of each draw looks than it is.

        Args:
            order: Scores to minimise, [draws, candidates]; infinite for a candidate that may not be chosen.

        Returns:
            The difference in the unit of the quality; None where no draw has a candidate.
        """
        some = np.isfinite(order).any(axis=1)
        looks = (self.left - self.drawn)[np.arange(len(self.drawn)), order.argmin(axis=1)]
        return _SHARE * float(looks[some].mean()) if some.any() else None


def _depends_on_draw(name: str, check: LimitCheck) -> bool:
    """Tell whether an excess is one over a limit of a metric."""
    limit = check.limits.each.get(name)
    return name == "drop" or (limit is not None and not limit.is_cost)


def _allowed(excess: Mapping[str, np.ndarray], check: LimitCheck, samples: Draws) -> np.ndarray:
    """Tell which candidates keep the limits of metrics in each draw, bool [draws, candidates].

    excess: excess of each candidate over each limit.
    """
    change, allowed = samples.drawn - samples.losses, np.ones(samples.drawn.shape, dtype=bool)
    dense = np.flatnonzero([record is check.dense for record in samples.records])
    for name, over in excess.items():
        limit = check.limits.each.get(name)
        if limit is not None and not limit.is_cost and not check.is_of_quality(limit):
            allowed &= over + (-1.0 if limit.lowest else 1.0) * samples.change(limit.objective) <= 0
        elif _depends_on_draw(name, check):
            against = change[:, dense[:1]] if name == "drop" and len(dense) else 0.0
            allowed &= over + change - against <= 0
    return allowed
