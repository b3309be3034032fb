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
from autoprune.records.columns import Columns
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
#: Name of the noise of candidates that is kept while their list grows.
_NOISES = "noises of "
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
    past: tuple[Sequence[CandidateRecord] | Columns, Problem],
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
    rule: str,
    rung: tuple[float, float],
    now: CandidateRecord,
    records: Sequence[CandidateRecord] | Columns,
    problem: Problem,
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
    known = _columns_of(records)
    costs_of(known, problem)  # so that they are read once, and not with each candidate that is compared
    costs = costs_of(Columns([*known.records, now], known), problem)
    if not all(map(math.isfinite, costs[-1])):
        return False
    past = [one for one in finished_trials(known, costs, problem.quality) if all(map(math.isfinite, one.costs))]
    return RULES[rule](RungContext(share=share, loss=problem.quality.loss(quality), costs=costs[-1], past=past))


def _columns_of(records: Sequence[CandidateRecord] | Columns) -> Columns:
    return records if isinstance(records, Columns) else Columns(records)


def costs_of(records: Sequence[CandidateRecord] | Columns, problem: Problem) -> list[tuple[float, ...]]:
    """Return the costs among the objectives for each record, as dominance compares them.

    Args:
        records: Candidates.
        problem: Objectives of the study.
    """
    names = [objective.name for objective in problem.rows if objective.is_cost]
    columns = _columns_of(records)
    return [tuple(row) for row in problem.losses_of(columns, np.arange(len(columns.records)), names).tolist()]


def finished_trials(
    records: Sequence[CandidateRecord] | Columns, costs: Sequence[tuple[float, ...]], quality: Objective
) -> list[FinishedTrial]:
    """Return records as early-stopping rules see them.

    Args:
        records: Finished candidates.
        costs: Costs of each record.
        quality: Objective of the quality.
    """
    columns = _columns_of(records)
    return [
        FinishedTrial(
            rungs={share: quality.loss(value) for share, value in record.rungs},
            loss=quality.loss(record.search.quality),
            costs=cost,
            stopped=record.stopped,
            noise=noise,
        )
        for record, cost, noise in zip(columns.records, costs, _noises(columns, quality).tolist(), strict=False)
    ]


@dataclass(frozen=True, slots=True)
class _Noises:
    """Noise of candidates by their names, and the names of the neighbours from which it follows; -1 for none."""

    near: np.ndarray
    noise: np.ndarray


def _noises(columns: Columns, quality: Objective) -> np.ndarray:
    """Compute for each record the difference in quality that may be luck: against those of the nearest quality.

    What was worked out at an earlier moment stays where a candidate has the same neighbours. Float [records].
    """
    names, count = columns.names, len(columns.records)
    losses = columns.column(("final loss", quality.name), lambda record: quality.loss(record.search.quality))
    order = np.argsort(losses, kind="stable")  # NaN comes last
    ranks = np.arange(count)[:, None] + np.array([*range(-_NEAR, 0), *range(1, _NEAR + 1)])
    there = (ranks >= 0) & (ranks < count)
    near = np.full((max(int(names.max(initial=-1)) + 1, 0), 2 * _NEAR), -1, dtype=np.int64)
    near[names[order]] = np.where(there, names[order[np.clip(ranks, 0, count - 1)]], -1)
    noise, before = np.zeros(len(near)), columns.kept.get(_NOISES + quality.name)
    new = np.ones(len(near), dtype=bool)
    if isinstance(before, _Noises):
        some = min(len(near), len(before.near))
        new[:some] = (near[:some] != before.near[:some]).any(axis=1)
        noise[:some] = before.noise[:some]
    records = {name: record.search for name, record in zip(names.tolist(), columns.records, strict=True)}
    for name in names[new[names]].tolist():
        others = [records[other] for other in near[name].tolist() if other >= 0]
        found = difference_errors(records[name], others) if others else np.zeros(1)
        noise[name] = quantile() * float(np.median(found))
    columns.kept[_NOISES + quality.name] = _Noises(near, noise)
    return np.asarray(noise[names])
