"""The choice by one number that several objectives make: weights, or the knee."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoprune.errors import ConfigurationError, SelectionError, error_message
from autoprune.front.choice import NO_ONE, Choice, asked, slower_lines
from autoprune.front.doubts import choice_doubts, find_left_out
from autoprune.front.lead import compare_leaders
from autoprune.front.limit_check import LimitCheck
from autoprune.front.numbers import Numbers
from autoprune.front.optimism import Draws
from autoprune.records.limits import Limits
from autoprune.records.objectives import Objective
from autoprune.records.problem import Problem

#: Weight of the sum of all objectives beside the largest weighted one: enough to decide between equals.
_SUM = 1e-3

#: Scaled losses [..., candidates, objectives] -> score [..., candidates], lower is better.
Score = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredChoice:
    """A candidate chosen by a score.

    Attributes:
        choice: The candidate, its lead over the runner-up by the score, and its optimism.
        objectives: Names of the objectives that the score is made of.
        weights: Weight of each objective, with the sum 1; halves for the knee.
        scaled: Loss of the candidate in each objective: 0 is the best of the candidates that were chosen among, 1 the
            worst. Costs are on a logarithmic scale.
        ahead: Share of draws of the samples in which it is ahead of the runner-up; None without a runner-up, or where
            no error of the quality is known.
    """

    choice: Choice
    objectives: tuple[str, ...]
    weights: tuple[float, ...]
    scaled: tuple[float, ...]
    ahead: float | None

    @property
    def remarks(self) -> list[str]:
        """Sentences on the choice."""
        found = list(self.choice.remarks)
        if self.ahead is not None and self.choice.lead is not None:
            rival = self.choice.lead.over.number
            found.insert(0, f"It comes before candidate {rival} in {self.ahead:.0%} of draws of the search samples.")
        return found


def chebyshev(weights: Sequence[float]) -> Score:
    """Make the augmented weighted Chebyshev score: the largest weighted loss, and a little of the sum of all losses.

    max_i w_i z_i + 0.001 sum_i z_i, with losses z_i scaled to [0, 1] between the best and the worst candidate. Unlike a
    weighted sum, it can choose any non-dominated candidate, also where the front is not convex; the sum keeps it from
    choosing dominated ones.

    Source: Steuer and Choo, An interactive weighted Tchebycheff procedure for multiple objective programming, 1983.

    Args:
        weights: Weight of each objective, >= 0, with the sum 1.

    Returns:
        The score.
    """
    array = np.asarray(weights, dtype=np.float64)
    return lambda scaled: np.asarray((array * scaled).max(axis=-1) + _SUM * scaled.sum(axis=-1))


def total(scaled: np.ndarray) -> np.ndarray:
    """Add up scaled losses; the least sum of two is farthest from the line between the two ends of the front.

    Source: Das, On characterizing the "knee" of the Pareto curve, 1999.

    Args:
        scaled: Losses in [0, 1], [..., candidates, objectives].

    Returns:
        Score [..., candidates].
    """
    return np.asarray(scaled.sum(axis=-1))


def check_weights(weights: Mapping[str, float], problem: Problem) -> dict[str, float]:
    """Check weights, and scale them to the sum 1.

    Args:
        weights: Objective -> weight.
        problem: Problem of the study.

    Returns:
        Objective -> weight, with the sum 1.

    Raises:
        UnknownNameError: The study has no such objective.
        ConfigurationError: A weight is no number >= 0, or all are 0.
    """
    for name, weight in weights.items():
        problem.objective(name, "an objective with a weight")
        if not (isinstance(weight, int | float) and not isinstance(weight, bool) and 0 <= weight < math.inf):
            raise ConfigurationError(error_message(f"the weight of {name}", "be a number >= 0", repr(weight)))
    whole = math.fsum(weights.values())
    if not whole > 0:
        raise ConfigurationError(error_message("weights", "name an objective with a weight above 0", dict(weights)))
    return {name: weight / whole for name, weight in weights.items()}


def choose_by_score(
    numbers: Numbers, places: np.ndarray, check: LimitCheck, objectives: Mapping[str, float], score: Score
) -> ScoredChoice:
    """Choose the candidate with the lowest score among those that keep the limits.

    Args:
        numbers: Numbers of all candidates.
        places: Positions of the candidates to choose among.
        check: Limits to keep.
        objectives: Objective -> weight; only their names count, and the score knows its weights.
        score: The score.

    Returns:
        The choice.

    Raises:
        SelectionError: No candidate keeps the limits and has all of the numbers.
    """
    names = tuple(objectives)
    known = np.all([check.is_known(numbers, name)[places] for name in names], axis=0)
    fitting = places[known & (check.worst(numbers)[places] <= 0)]
    if not len(fitting):
        limits = asked(check, numbers.records[0]) if numbers.records and check.limits.given else "no limits"
        expected = f"keep to {limits}, and be measured in {', '.join(names)}"
        doubts = choice_doubts(None, places, numbers, check, names)
        # Where a doubt leaves candidates out, other limits or more trials are no remedy.
        remedy = "" if len(find_left_out(None, places, numbers, check, names)) else NO_ONE
        raise SelectionError("\n".join([error_message("a candidate", expected, "none", remedy), *doubts]))
    losses = [_loss(numbers.problem.objective(name), numbers.shown(name)[fitting]) for name in names]
    scales = [(float(one.min()), float(np.ptp(one)) or 1.0) for one in losses]
    scaled = np.stack([(one - low) / span for one, (low, span) in zip(losses, scales, strict=True)], axis=-1)
    order = np.lexsort((numbers.losses[fitting], score(scaled)))
    samples = Draws.of(numbers, fitting)
    drawn = None if samples is None else score(_drawn(samples, scaled, names, scales, numbers.problem))
    first, second = int(order[0]), int(order[1]) if len(order) > 1 else None
    records = [numbers.records[place] for place in fitting[order[:2]].tolist()]
    choice = Choice(
        record=records[0],
        check=check,
        among=int(numbers.complete.sum()),
        optimism=None if samples is None or drawn is None else samples.luck(drawn),
        lead=None if second is None else compare_leaders(records[0], records[1], check, names[0], names[1:]),
        slower=slower_lines(int(fitting[first]), [places], numbers, replace(check, limits=Limits())),
        doubts=tuple(choice_doubts(int(fitting[first]), places, numbers, check, names)),
    )
    return ScoredChoice(
        choice=choice,
        objectives=names,
        weights=tuple(objectives.values()),
        scaled=tuple(float(value) for value in scaled[first]),
        ahead=None if drawn is None or second is None else _share_ahead(drawn[:, second] - drawn[:, first]),
    )


def _drawn(
    samples: Draws,
    scaled: np.ndarray,
    names: Sequence[str],
    scales: Sequence[tuple[float, float]],
    problem: Problem,
) -> np.ndarray:
    """Scale the losses on each draw, [draws, candidates, objectives]; only the quality changes."""
    found = np.repeat(scaled[None], len(samples.drawn), axis=0)
    for column, name in enumerate(names):
        if problem.is_quality(name):
            low, span = scales[column]
            found[..., column] = (samples.drawn - low) / span
    return found


def _share_ahead(gaps: np.ndarray) -> float:
    """Return the share of gaps above 0; a tie counts half."""
    return float((np.sign(gaps) + 1).mean() / 2)


def _loss(objective: Objective, shown: np.ndarray) -> np.ndarray:
    """Return losses on the scale of a choice: costs are ratios, so logarithmic."""
    if objective.is_cost and (shown > 0).all():
        return np.asarray(np.log(shown))
    return objective.loss(1.0) * shown
