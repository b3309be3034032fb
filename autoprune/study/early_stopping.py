"""Rules that end the training of a candidate which is no longer worth it, by name.

A rule is a pure function of what is known at a rung: the quality there, the costs (known before any training) and the
candidates that came before. True stops. A quality that is not a number stops nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.front.dominance import ranks

#: Candidates that were trained to the end from which a rule may judge; with fewer it lets go on.
FEWEST = 8
#: Share of the candidates whose gain from a rung to the end is no more than what the front rule grants.
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A candidate that came before.

    rungs: share of the fine-tune's steps -> quality there. quality: in the end, or where it was stopped.
    costs: lower is better. stopped: not trained to the end.
    """

    rungs: Mapping[float, float]
    quality: float
    costs: tuple[float, ...]
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A candidate at a rung.

    share: of the fine-tune's steps done. quality: there. costs: in the order of those of the past, lower is better.
    past: the candidates before it. higher_is_better: direction of the qualities.
    """

    share: float
    quality: float
    costs: tuple[float, ...]
    past: Sequence[Past]
    higher_is_better: bool = True


#: True stops.
Rule = Callable[[Situation], bool]


def front(now: Situation) -> bool:
    """Stop what even a lucky end would leave dominated.

    Dominated means: some candidate that was trained to the end costs no more on any axis and is at least as good as
    this one would be with the gain still to come that CONFIDENCE of the candidates stay under. Small models gain more
    than large ones, so only the half of the candidates that cost most nearly the same is asked. The gain is the order
    statistic of split conformal prediction: the largest seen while there are fewer than 19.

    Source of the quantile: Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, Distribution-free predictive inference for
    regression, 2018.
    """
    sign = 1.0 if now.higher_is_better else -1.0
    known = [
        (gain, p.costs)
        for p in now.past
        if not p.stopped and math.isfinite(gain := sign * (p.quality - p.rungs.get(now.share, math.nan)))
    ]
    if len(known) < FEWEST:
        return False
    near = _as_near_as_half(np.array([costs for _, costs in known]), np.array(now.costs))
    gains = sorted(gain for (gain, _), is_near in zip(known, near, strict=True) if is_near)
    hoped = sign * now.quality + gains[min(math.ceil((len(gains) + 1) * CONFIDENCE), len(gains)) - 1]
    rivals = [p for p in now.past if not p.stopped and all(a <= b for a, b in zip(p.costs, now.costs, strict=True))]
    return any(sign * p.quality >= hoped for p in rivals)


def _as_near_as_half(costs: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Bool [n]: the half of the costs [n, axes] nearest to `own` [axes], at least FEWEST; all of equal distance.

    Distance is the number of candidates in between, over all axes, which needs no unit.
    """
    places = np.stack([np.searchsorted(np.sort(axis), axis) for axis in costs.T], axis=1)
    place = np.array([np.searchsorted(np.sort(axis), value) for axis, value in zip(costs.T, own, strict=True)])
    distances = np.abs(places - place).sum(axis=1)
    return np.asarray(distances <= np.sort(distances)[max(FEWEST, len(costs) // 2) - 1])


def pareto_rank(now: Situation) -> bool:
    """Stop what lies in a later layer of the fronts at this rung than half of the candidates that passed it.

    Layers are those of non-dominated sorting over the quality at the rung and the costs. The median rule of one
    objective, with ranks in the place of values.

    Source: Golovin et al., Google Vizier: a service for black-box optimization, 2017 (median rule); Schmucker,
    Donini, Zafar, Salinas, Archambeau, Multi-objective asynchronous successive halving, 2021 (sorting at rungs).
    """
    sign = -1.0 if now.higher_is_better else 1.0
    passed = [(p.rungs[now.share], p.costs) for p in now.past if math.isfinite(p.rungs.get(now.share, math.nan))]
    if len(passed) < FEWEST or not math.isfinite(now.quality):
        return False
    found = ranks(np.array([[sign * quality, *costs] for quality, costs in [*passed, (now.quality, now.costs)]]))
    return bool(found[-1] > np.median(found[:-1]))


def never(now: Situation) -> bool:
    """Go on, whatever is seen."""
    del now
    return False


#: "audit" looks at every rung and stops nothing; with "none" no rung is looked at.
RULES: Mapping[str, Rule] = {"front": front, "pareto_rank": pareto_rank, "audit": never, "none": never}
