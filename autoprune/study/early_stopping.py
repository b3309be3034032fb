"""Rules that end the training of a candidate which is no longer worth it, by name.

A rule is a pure function of what is known at a rung: the quality there, the costs (known before any training) and the
candidates that came before. True stops. A quality that is not a number stops nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.front.dominance import pareto_ranks

#: Candidates that were trained to the end from which a rule may judge; with fewer it lets go on.
MIN_TRIALS_FOR_STOPPING = 8
#: Share of the candidates that end no better than what the front rule hopes for.
CONFIDENCE = 0.65
#: Keeps the least squares defined where all candidates are alike.
_RIDGE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedTrial:
    """A candidate that came before.

    rungs: share of the fine-tune's steps -> quality there. quality: in the end, or where it was stopped.
    costs: lower is better. stopped: not trained to the end.
    """

    rungs: Mapping[float, float]
    quality: float
    costs: tuple[float, ...]
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RungContext:
    """A candidate at a rung.

    share: of the fine-tune's steps done. quality: there. costs: in the order of those of the past, lower is better.
    past: the candidates before it. higher_is_better: direction of the qualities.
    """

    share: float
    quality: float
    costs: tuple[float, ...]
    past: Sequence[FinishedTrial]
    higher_is_better: bool = True


#: True stops.
StoppingRule = Callable[[RungContext], bool]


def front(now: RungContext) -> bool:
    """Stop what even a lucky end would leave dominated.

    The end is foretold from the quality here and the costs, by least squares over the candidates that were trained to
    the end: one that is bad here gains more than one that is good, and a small one more than a large one. Lucky is as
    far above that as CONFIDENCE of the candidates stay under, each foretold from the others (leave-one-out residuals,
    as in the jackknife+). Dominated is what some candidate that was trained to the end, and costs no more on any
    axis, is at least as good as.

    Source of the bound: Barber, Candes, Ramdas, Tibshirani, Predictive inference with the jackknife+, 2021.
    """
    sign = 1.0 if now.higher_is_better else -1.0
    known = [
        p
        for p in now.past
        if not p.stopped and math.isfinite(p.quality) and math.isfinite(p.rungs.get(now.share, math.nan))
    ]
    if len(known) < MIN_TRIALS_FOR_STOPPING or not math.isfinite(now.quality):
        return False
    seen = _regressors(
        np.array([*(sign * p.rungs[now.share] for p in known), sign * now.quality]),
        np.array([*(p.costs for p in known), now.costs]),
    )
    hoped = _optimistic_quality(seen[:-1], np.array([sign * p.quality for p in known]), seen[-1])
    rivals = [p for p in now.past if not p.stopped and all(a <= b for a, b in zip(p.costs, now.costs, strict=True))]
    return any(sign * p.quality >= hoped for p in rivals)


def _regressors(qualities: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """What an end is foretold from, [n, 4]: 1, the quality, the mean logarithm of the costs, its square."""
    size = np.log(np.maximum(costs, 1e-9)).mean(axis=1)
    size = (size - size.mean()) / max(float(size.std()), 1e-9)
    return np.stack([np.ones_like(size), qualities, size, size**2], axis=1)


def _optimistic_quality(seen: np.ndarray, ends: np.ndarray, own: np.ndarray) -> float:
    """The end of `own` [4] that CONFIDENCE of the candidates, `seen` [n, 4] with `ends` [n], stay under."""
    inverse = np.linalg.inv(seen.T @ seen + _RIDGE * np.eye(seen.shape[1]))
    weights = inverse @ seen.T @ ends
    # What a candidate's residual would be without itself among those that foretell it.
    leverage = np.einsum("ni,ij,nj->n", seen, inverse, seen)
    residuals = np.sort((ends - seen @ weights) / np.maximum(1.0 - leverage, 0.1))
    count = len(residuals)
    return float(own @ weights + residuals[min(math.ceil((count + 1) * CONFIDENCE), count) - 1])


def pareto_rank(now: RungContext) -> bool:
    """Stop what lies in a later layer of the fronts at this rung than half of the candidates that passed it.

    Layers are those of non-dominated sorting over the quality at the rung and the costs. The median rule of one
    objective, with ranks in the place of values.

    Source: Golovin et al., Google Vizier: a service for black-box optimization, 2017 (median rule); Schmucker,
    Donini, Zafar, Salinas, Archambeau, Multi-objective asynchronous successive halving, 2021 (sorting at rungs).
    """
    sign = -1.0 if now.higher_is_better else 1.0
    passed = [(p.rungs[now.share], p.costs) for p in now.past if math.isfinite(p.rungs.get(now.share, math.nan))]
    if len(passed) < MIN_TRIALS_FOR_STOPPING or not math.isfinite(now.quality):
        return False
    found = pareto_ranks(np.array([[sign * quality, *costs] for quality, costs in [*passed, (now.quality, now.costs)]]))
    return bool(found[-1] > np.median(found[:-1]))


def never(now: RungContext) -> bool:
    """Go on, whatever is seen."""
    del now
    return False


#: "audit" looks at every rung and stops nothing; with "none" no rung is looked at.
RULES: Mapping[str, StoppingRule] = {"front": front, "pareto_rank": pareto_rank, "audit": never, "none": never}
