"""Define the channel groups of a model, as plain data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from autoprune.codec import Format, stored

#: Kinds of groups: channels, heads of attention, or positions in the width of every head.
GROUP_KINDS = ("channels", "heads", "head_width")
#: Uses of the channels along an axis of a tensor; see `Member`.
ROLES = ("out", "in", "scale", "shift", "statistic", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One axis of a tensor along which a group's channels lie.

    Attributes:
        tensor: Name of the parameter or buffer in the model's state dict.
        axis: The axis.
        index: Positions on the axis, int64 array [channels, k]: row c is removed with channel c.
        plain: Derived: whether channel c is position c, as is usual.
        role: "out" (a weight makes the channel), "in" (a weight reads it), "scale" and "shift" (of a norm, or a bias),
            "statistic" (running mean or variance), or "other".
        beside: Of a bias: (weight to whose channels it is added, position of the first of them).
    """

    tensor: str
    axis: int
    index: np.ndarray
    role: str
    beside: tuple[str, int] | None = None
    plain: bool = field(init=False)

    def __post_init__(self) -> None:
        plain = self.index.shape[1] == 1 and np.array_equal(self.index[:, 0], np.arange(len(self.index)))
        object.__setattr__(self, "plain", plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionSpan:
    """Positions of one axis that belong to the same groups.

    Attributes:
        positions: Number of positions.
        groups: Names of the groups; a position is removed with a channel of any of them.
    """

    positions: int
    groups: tuple[str, ...]


def remaining(spans: Iterable[PositionSpan], shares: Mapping[str, Fraction]) -> int:
    """Count the positions that stay.

    Args:
        spans: All positions of an axis.
        shares: Group name -> share of its channels that stays, in [0, 1]; 1 for a group that is not named.

    Returns:
        The number of positions.
    """
    return int(sum(span.positions * math.prod(shares.get(name, Fraction(1)) for name in span.groups) for span in spans))


@stored(Format(what="a number of a module", formerly={"spans": "runs"}))
@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """A whole number in a module that shrinks with groups, such as num_heads.

    Attributes:
        module: Name of the module.
        name: Path of the number, such as config.num_heads or shape[0].
        value: Value in the dense model.
        spans: The positions that it counts. After a cut it is the number of those that stay.
        certain: Whether a module of torch defines it. Otherwise it is a guess, and the proof decides whether it is
            needed.
    """

    module: str
    name: str
    value: int
    spans: tuple[PositionSpan, ...]
    certain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """Entries of a parameter that make up for a scale computed from a width, such as 1 / sqrt(head width).

    Attributes:
        tensor: Name of the parameter.
        axis: Axis of the parameter.
        index: Positions on that axis, int64 array [n].
    """

    tensor: str
    axis: int
    index: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Channels that have to be removed together from every tensor that holds them.

    Attributes:
        name: Name of the group: the module that first makes the channels.
        channels: Number of channels in the dense model.
        members: Tensors and axes along which the channels lie.
        attributes: Numbers of modules that follow the group's width.
        rescaled: Entries that are multiplied by the square root of the share of channels that stays.
        reshaped: Modules that reshape the channels as one side of a grid.
        scaling: Modules that compute a scale, of attention logits say, from the number of channels.
        hint: Another effect of the width, in words that follow "it"; "" if none is known.
        kind: One of `GROUP_KINDS`.
        min_channels: Fewest channels with which the model runs.
    """

    name: str
    channels: int
    members: tuple[Member, ...]
    attributes: tuple[Attribute, ...] = ()
    rescaled: tuple[Rescale, ...] = ()
    reshaped: tuple[str, ...] = ()
    scaling: tuple[str, ...] = ()
    hint: str = ""
    kind: str = "channels"
    min_channels: int = 1

    @property
    def half(self) -> int:
        """Half of the channels, but not fewer than the model runs with."""
        return max(self.channels // 2, self.min_channels)


def spans_by_axis(groups: Iterable[ChannelGroup]) -> dict[tuple[str, int], tuple[PositionSpan, ...]]:
    """Count the positions of every axis by the groups they belong to.

    Args:
        groups: The groups of a topology.

    Returns:
        (tensor, axis) -> spans of the axis. Positions without a group are left out.
    """
    found: dict[tuple[str, int], list[tuple[str, np.ndarray]]] = {}
    for group in groups:
        for member in group.members:
            found.setdefault((member.tensor, member.axis), []).append((group.name, member.index.reshape(-1)))
    return {key: _counted(places) for key, places in found.items()}


def _counted(places: Sequence[tuple[str, np.ndarray]]) -> tuple[PositionSpan, ...]:
    """Count positions of one axis by their groups. places: (group, its positions)."""
    if len(places) == 1:
        ((name, index),) = places
        return (PositionSpan(positions=len(index), groups=(name,)),)
    names: dict[int, list[str]] = {}
    for name, index in places:
        for position in index.tolist():
            names.setdefault(position, []).append(name)
    counts = Counter(tuple(own) for own in names.values())
    return tuple(PositionSpan(positions=count, groups=own) for own, count in counts.items())
