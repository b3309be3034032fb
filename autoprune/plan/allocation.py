"""Allocation of pruning: amounts for one group, for one ranking of all groups, and for blocks and layers."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.codec import Format, stored
from autoprune.plan.validation import is_count, is_finite, is_non_negative, is_share, validate
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

    ratio: float = 0.0
    criterion: str = "l2"
    count: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        given = (self.ratio != 0.0, self.count is not None, self.threshold is not None)
        validate(
            "a group's plan",
            (
                (isinstance(self.criterion, str), "a group's criterion", "be a name", self.criterion),
                (is_share(self.ratio), "a group's ratio", "lie in [0, 1), as a share of channels", self.ratio),
                (self.count is None or is_count(self.count), "a group's count", "be an integer >= 0", self.count),
                (self.threshold is None or is_non_negative(self.threshold), "a threshold", "be >= 0", self.threshold),
                (sum(given) <= 1, "a group's plan", "say one of ratio, count and threshold", self._said()),
            ),
        )

    @property
    def prunes(self) -> bool:
        """Whether channels can be removed at all; False means that the group stays whole, whatever the scores."""
        return self.ratio > 0 or bool(self.count) or bool(self.threshold)

    def _said(self) -> dict[str, object]:
        return {"ratio": self.ratio, "count": self.count, "threshold": self.threshold}


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

    ratio: float | None = None
    count: int | None = None
    threshold: float | None = None
    budget: float | None = None
    cost: str = "multiply_adds"
    criterion: str = "l2"
    scale: str = "mean"
    floor: float = 0.0
    cap: float = 0.95

    def __post_init__(self) -> None:
        amounts = (self.ratio, self.count, self.threshold, self.budget)
        budget = self.budget
        ordered = is_share(self.floor) and is_share(self.cap) and self.floor <= self.cap
        validate(
            "a ranking",
            (
                (
                    sum(amount is not None for amount in amounts) == 1,
                    "a ranking",
                    "say exactly one of ratio, count, threshold and budget",
                    amounts,
                ),
                (self.ratio is None or is_share(self.ratio), "a ranking's ratio", "lie in [0, 1)", self.ratio),
                (self.count is None or is_count(self.count), "a ranking's count", "be an integer >= 0", self.count),
                (self.threshold is None or is_non_negative(self.threshold), "a threshold", "be >= 0", self.threshold),
                (budget is None or (is_finite(budget) and 0 < budget <= 1), "a budget", "lie in (0, 1]", budget),
                (
                    self.cost in STRUCTURE_COSTS,
                    "the cost of a ranking",
                    f"be one of {', '.join(STRUCTURE_COSTS)}",
                    self.cost,
                ),
                (isinstance(self.criterion, str), "a ranking's criterion", "be a name", self.criterion),
                (
                    self.scale in SCORE_SCALES,
                    "the scale of a ranking",
                    f"be one of {', '.join(SCORE_SCALES)}",
                    self.scale,
                ),
                (ordered, "floor and cap", "be shares with 0 <= floor <= cap < 1", (self.floor, self.cap)),
            ),
        )


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

    count: int
    criterion: str = "block_influence"

    def __post_init__(self) -> None:
        validate(
            "the plan of blocks",
            (
                (is_count(self.count), "the count of blocks", "be an integer >= 0", self.count),
                (isinstance(self.criterion, str), "a block criterion", "be a name", self.criterion),
            ),
        )
