"""How much of the structure goes: of one group, of all groups in one ranking, of blocks and layers."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.codec import Format, stored
from autoprune.plan.validation import is_count, is_finite, is_non_negative, is_share, validate

#: How scores of different groups are made comparable: as they are; over the group's mean; over its largest.
SCORE_SCALES = ("none", "mean", "max")
#: Costs that a ranking may be told to reach; each follows from widths alone.
RANKING_COSTS = ("multiply_adds", "parameters", "size_bytes")


@stored(Format(what="the plan of a group", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """What happens to one group of coupled channels; how much goes is said in one of three ways.

    ratio: share of the dense group's channels to remove, in [0, 1). The achieved ratio differs by
        rounding and because one channel always stays; it is what reports show.
    count: channels to remove, >= 0; None when it is said otherwise.
    threshold: channels whose score on the dense model lies below it are removed, >= 0; None when it is said
        otherwise. The unit is that of the criterion.
    criterion: name of the criterion that ranks the group's channels.
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
        """False when nothing goes, whatever the scores."""
        return self.ratio > 0 or bool(self.count) or bool(self.threshold)

    def _said(self) -> dict[str, object]:
        return {"ratio": self.ratio, "count": self.count, "threshold": self.threshold}


@stored(Format(what="a ranking", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class RankingPlan:
    """One ranking of the channels of all groups that have no plan of their own; the lowest go.

    Exactly one of: ratio: share of these channels that goes, in [0, 1). count: how many go, >= 0. threshold: those
        whose score lies below it go, >= 0. budget: the lowest go until the model costs at most this share of dense, in
        (0, 1].
    cost: what the budget is a share of, one of RANKING_COSTS.
    criterion: name of the criterion that scores the channels, on the dense model.
    scale: how scores of different groups are made comparable, one of SCORE_SCALES.
    floor, cap: least and most of the channels of any one group that goes, as shares, 0 <= floor <= cap < 1. The floor
        is rounded up and the cap down to whole channels, and neither is ever exceeded: what one group may not give is
        taken from others. What a group needs to run comes before its floor.
    A ratio or count above what the caps allow is an error. A budget that they put out of reach gives the nearest: all
    that may go goes.
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
                    self.cost in RANKING_COSTS,
                    "the cost of a ranking",
                    f"be one of {', '.join(RANKING_COSTS)}",
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
    """How many residual blocks, or layers, go whole, the lowest by a criterion first.

    count: how many to drop beside those that the plan names, >= 0; no more than there are. criterion: name of a
        criterion that scores blocks, on the dense model.
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
