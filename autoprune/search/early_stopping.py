"""Early-stopping rules by name: they end the training of candidates that are not worth it.

A rule is a pure function of a candidate's state at a rung: the loss of its quality there, its costs (known before any
training) and the earlier candidates. It returns True to stop. A loss that is not finite never stops a candidate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.front.dominance import pareto_ranks
from autoprune.records.candidate import CandidateRecord
from autoprune.records.measurement import Measurement
from autoprune.records.objectives import Objective
from autoprune.records.paired import difference_errors, quantile
from autoprune.records.problem import Problem
from autoprune.search.proposal import Proposal

#: Fewest fully trained candidates with which a rule may stop another.
MIN_TRIALS_FOR_STOPPING = 8
#: Quantile used as the optimistic bound.
CONFIDENCE = 0.65
#: Candidates of the next better, and of the next worse quality whose differences say how large noise is.
_NEAR = 3
#: Ridge that keeps the least squares defined where all candidates are alike.
_RIDGE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedTrial:
    """An earlier candidate, as an early-stopping rule sees it.

    Attributes:
        rungs: Fraction of the fine-tune's steps -> loss at that rung.
        loss: Loss of the final quality, or of the quality where it was stopped; lower is better.
        costs: Costs; lower is better.
        stopped: Whether it was stopped early.
        noise: Difference in loss to a candidate of about the same quality that may be luck.
    """

    rungs: Mapping[float, float]
    loss: float
    costs: tuple[float, ...]
    stopped: bool = False
    noise: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RungContext:
    """A candidate at a rung, as an early-stopping rule sees it.

    Attributes:
        share: Fraction of the fine-tune's steps done, in [0, 1).
        loss: Loss of the quality at the rung; lower is better.
        costs: Costs in the order of `FinishedTrial.costs`; lower is better.
        past: The earlier candidates.
    """

    share: float
    loss: float
    costs: tuple[float, ...]
    past: Sequence[FinishedTrial]


#: Function from a candidate at a rung to whether to stop it.
StoppingRule = Callable[[RungContext], bool]


def front(now: RungContext) -> bool:
    """Stop a candidate whose optimistic final quality would still be dominated beyond noise.

    The final loss is predicted from the loss at the rung and the costs, by least squares over the candidates that were
    trained to the end. The optimistic value lies below the prediction by the CONFIDENCE quantile of the leave-one-out
    residuals, as in the jackknife+. It is dominated if some fully trained candidate that costs no more on any axis is
    better by more than the noise of such a difference, so that it would be off the front for good.

    Source of the bound: Barber, Candes, Ramdas, Tibshirani, Predictive inference with the jackknife+, 2021.

    Args:
        now: Candidate at a rung.

    Returns:
        Whether to stop it.
    """
    known = [
        p
        for p in now.past
        if not p.stopped and math.isfinite(p.loss) and math.isfinite(p.rungs.get(now.share, math.nan))
    ]
    if len(known) < MIN_TRIALS_FOR_STOPPING or not math.isfinite(now.loss):
        return False
    seen = _regressors(
        np.array([*(p.rungs[now.share] for p in known), now.loss]), np.array([*(p.costs for p in known), now.costs])
    )
    hoped = _optimistic_loss(seen[:-1], np.array([p.loss for p in known]), seen[-1])
    rivals = [p for p in now.past if not p.stopped and all(a <= b for a, b in zip(p.costs, now.costs, strict=True))]
    return any(p.loss + p.noise <= hoped for p in rivals)


def _regressors(losses: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Return the inputs of the prediction, float [n, 4]: 1, the loss, the mean log cost, its square."""
    size = np.log(np.maximum(costs, 1e-9)).mean(axis=1)
    size = (size - size.mean()) / max(float(size.std()), 1e-9)
    return np.stack([np.ones_like(size), losses, size, size**2], axis=1)


def _optimistic_loss(seen: np.ndarray, ends: np.ndarray, own: np.ndarray) -> float:
    """Return the final loss at `own` [4] that a share of CONFIDENCE exceeds, from `seen` [n, 4] and `ends` [n]."""
    inverse = np.linalg.inv(seen.T @ seen + _RIDGE * np.eye(seen.shape[1]))
    weights = inverse @ seen.T @ ends
    # Residual of each candidate when it is left out of the fit.
    leverage = np.einsum("ni,ij,nj->n", seen, inverse, seen)
    residuals = np.sort((seen @ weights - ends) / np.maximum(1.0 - leverage, 0.1))
    count = len(residuals)
    return float(own @ weights - residuals[min(math.ceil((count + 1) * CONFIDENCE), count) - 1])


def pareto_rank(now: RungContext) -> bool:
    """Stop a candidate in a later non-dominated layer at this rung than half of the candidates that passed it.

    Layers are those of non-dominated sorting over the loss at the rung and the costs: the median rule of one
    objective, with ranks in place of values.

    Source: Golovin et al., Google Vizier: a service for black-box optimization, 2017 (median rule); Schmucker, Donini,
    Zafar, Salinas, Archambeau, Multi-objective asynchronous successive halving, 2021 (sorting at rungs).

    Args:
        now: Candidate at a rung.

    Returns:
        Whether to stop it.
    """
    passed = [(p.rungs[now.share], p.costs) for p in now.past if math.isfinite(p.rungs.get(now.share, math.nan))]
    if len(passed) < MIN_TRIALS_FOR_STOPPING or not math.isfinite(now.loss):
        return False
    found = pareto_ranks(np.array([[loss, *costs] for loss, costs in [*passed, (now.loss, now.costs)]]))
    return bool(found[-1] > np.median(found[:-1]))


def never(now: RungContext) -> bool:
    """Never stop a candidate.

    Args:
        now: Candidate at a rung.
    """
    del now
    return False


#: Name -> rule. "audit" measures at every rung and stops nothing; "none" measures at no rung.
RULES: Mapping[str, StoppingRule] = {"front": front, "pareto_rank": pareto_rank, "audit": never, "none": never}


def stops_proposal(
    rule: str,
    proposal: Proposal,
    rung: tuple[float, float],
    costs: Measurement,
    past: tuple[Sequence[CandidateRecord], Problem],
) -> bool:
    """Tell whether a rule stops a proposal at a rung.

    Args:
        rule: Name of the rule.
        proposal: Proposal that is tried.
        rung: Share of the fine-tune's steps that are done, and the quality there.
        costs: Costs of the candidate.
        past: The earlier candidates, and the objectives of the study.

    Returns:
        Whether to stop it; False for everything that no rule may stop.
    """
    if not proposal.origin.is_stoppable:
        return False
    kept = proposal.plan.first_channels
    return should_stop(rule, rung, CandidateRecord.proposed(costs, kept.groups, kept.dropped), *past)


def should_stop(
    rule: str, rung: tuple[float, float], now: CandidateRecord, records: Sequence[CandidateRecord], problem: Problem
) -> bool:
    """Tell whether a rule stops a candidate at a rung. Costs are those of the front, latency as a ratio to dense.

    A candidate with a latency in doubt is not stopped, and stops no other.

    Args:
        rule: Name of the rule.
        rung: Share of the fine-tune's steps that are done, and the quality there.
        now: The candidate with its expected costs.
        records: The earlier candidates.
        problem: Objectives of the study.

    Returns:
        Whether to stop it.
    """
    share, quality = rung
    costs = costs_of([*records, now], problem)
    if not all(map(math.isfinite, costs[-1])):
        return False
    past = [one for one in finished_trials(records, costs, problem.quality) if all(map(math.isfinite, one.costs))]
    return RULES[rule](RungContext(share=share, loss=problem.quality.loss(quality), costs=costs[-1], past=past))


def costs_of(records: Sequence[CandidateRecord], problem: Problem) -> list[tuple[float, ...]]:
    """Return the costs among the objectives for each record, as dominance compares them.

    Args:
        records: Candidates.
        problem: Objectives of the study.
    """
    names = [objective.name for objective in problem.rows if objective.is_cost]
    return [tuple(row) for row in problem.losses(records, names).tolist()]


def finished_trials(
    records: Sequence[CandidateRecord], costs: Sequence[tuple[float, ...]], quality: Objective
) -> list[FinishedTrial]:
    """Return records as early-stopping rules see them.

    Args:
        records: Finished candidates.
        costs: Costs of each record.
        quality: Objective of the quality.
    """
    return [
        FinishedTrial(
            rungs={share: quality.loss(value) for share, value in record.rungs},
            loss=quality.loss(record.search.quality),
            costs=cost,
            stopped=record.stopped,
            noise=noise,
        )
        for record, cost, noise in zip(records, costs, _noises(records, quality), strict=False)
    ]


def _noises(records: Sequence[CandidateRecord], quality: Objective) -> list[float]:
    """Compute for each record the difference in quality that may be luck: against those of the nearest quality."""
    losses = [quality.loss(record.search.quality) for record in records]
    order = np.argsort(losses, kind="stable").tolist()  # NaN comes last
    found = [0.0] * len(records)
    for rank, place in enumerate(order):
        near = [
            records[one].search for one in (*order[max(rank - _NEAR, 0) : rank], *order[rank + 1 : rank + 1 + _NEAR])
        ]
        if near:
            found[place] = quantile() * float(np.median(difference_errors(records[place].search, near)))
    return found
