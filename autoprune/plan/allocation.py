"""Allocation of pruning: amounts for one group, for one ranking of all groups, and for blocks and layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from autoprune.codec import Format, stored
from autoprune.plan.rules import NAME, NON_NEGATIVE, PART, SHARE, at_least, check_fields, one_of, or_none
from autoprune.plan.validation import FieldCheck
from autoprune.structure.cost import STRUCTURE_COSTS

#: How scores of different groups are made comparable: unchanged; divided by the group's mean; divided by its maximum.
SCORE_SCALES = ("none", "mean", "max")


@stored(Format(what="the plan of a group", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """Plan of one group of coupled channels. At most one of `ratio`, `count` and `threshold` is given.

    Attributes:
        ratio: Share of the dense group's channels to remove, in [0, 1). The achieved share differs by rounding and
            because a group keeps at least one channel; reports show the achieved share.
        criterion: Name of the criterion that ranks the group's channels.
        count: Number of channels to remove, >= 0; None where the amount is given otherwise.
        threshold: Channels whose score on the dense model lies below this value are removed, >= 0, in the criterion's
            unit; None where the amount is given otherwise.

    Example:
        >>> GroupPlan(ratio=0.5, criterion="l1").prunes
        True
        >>> GroupPlan(count=0).prunes
        False
    """

    ratio: Annotated[float, SHARE] = 0.0
    criterion: Annotated[str, NAME] = "l2"
    count: Annotated[int | None, or_none(at_least(0))] = None
    threshold: Annotated[float | None, or_none(NON_NEGATIVE)] = None

    def __post_init__(self) -> None:
        check_fields("a group's plan", self, "group", more=self._checks())

    def _checks(self) -> Iterator[FieldCheck]:
        given = {"ratio": self.ratio or None, "count": self.count, "threshold": self.threshold}
        wants = "say one of ratio, count and threshold"
        yield sum(amount is not None for amount in given.values()) <= 1, "a group's plan", wants, given

    @property
    def prunes(self) -> bool:
        """Whether channels can be removed at all; False means that the group stays whole, whatever the scores."""
        return self.ratio > 0 or bool(self.count) or bool(self.threshold)


@stored(Format(what="a ranking", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class RankingPlan:
    """One ranking of the channels of all groups without a `GroupPlan`; the lowest scores are removed.

    Exactly one of `ratio`, `count`, `threshold` and `budget` is given. A ratio or count above what the caps allow is an
    error. A budget that the caps put out of reach gives the nearest model: every channel that may go is removed.

    Attributes:
        ratio: Share of the ranked channels to remove, in [0, 1).
        count: Number of channels to remove, >= 0.
        threshold: Channels whose score lies below this value are removed, >= 0.
        budget: Channels are removed until the model costs at most this share of the dense model, in (0, 1].
        cost: Cost that the budget refers to, one of STRUCTURE_COSTS.
        criterion: Name of the criterion that scores the channels, on the dense model.
        scale: How scores of different groups are made comparable, one of SCORE_SCALES.
        floor: Smallest share of a group's channels that is removed, in [0, cap]. Rounded up to whole channels. The
            channels that a group needs to run come before its floor.
        cap: Largest share of a group's channels that is removed, in [floor, 1). Rounded down to whole channels.
            Channels that one group may not give are taken from others.

    Example:
        >>> RankingPlan(budget=0.5, cost="parameters").criterion
        'l2'
    """

    ratio: Annotated[float | None, or_none(SHARE)] = None
    count: Annotated[int | None, or_none(at_least(0))] = None
    threshold: Annotated[float | None, or_none(NON_NEGATIVE)] = None
    budget: Annotated[float | None, or_none(PART)] = None
    cost: Annotated[str, one_of(STRUCTURE_COSTS)] = "multiply_adds"
    criterion: Annotated[str, NAME] = "l2"
    scale: Annotated[str, one_of(SCORE_SCALES)] = "mean"
    floor: Annotated[float, SHARE] = 0.0
    cap: Annotated[float, SHARE] = 0.95

    def __post_init__(self) -> None:
        check_fields("a ranking", self, "ranking", more=self._checks())

    def _checks(self) -> Iterator[FieldCheck]:
        amounts = (self.ratio, self.count, self.threshold, self.budget)
        one = sum(amount is not None for amount in amounts) == 1
        yield one, "a ranking", "say exactly one of ratio, count, threshold and budget", amounts
        shares = (self.floor, self.cap)
        yield self.floor <= self.cap, "ranking.floor and ranking.cap", "be shares with floor <= cap", shares


@stored(Format(what="the plan of blocks", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlan:
    """Number of residual blocks, or of layers, to drop by a criterion, the lowest scores first.

    Attributes:
        count: Number of blocks to drop beside those that the plan names, >= 0 and at most the number of blocks left.
        criterion: Name of the criterion that scores blocks, on the dense model.

    Example:
        >>> BlockPlan(count=2).criterion
        'block_influence'
    """

    count: Annotated[int, at_least(0)]
    criterion: Annotated[str, NAME] = "block_influence"

    def __post_init__(self) -> None:
        check_fields("the plan of blocks", self, "blocks")
