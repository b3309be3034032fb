"""Ties: sets of groups that share one width, which gives fewer parameters where layers are alike."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from autoprune.plan.criteria import applicable_criteria
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.topology import Topology

#: "none"; "shape": groups of equal width and kind in tensors of equal shapes; "stage": groups of equal width and kind
#: that follow each other at the same resolution.
TIES = ("none", "stage", "shape")


def leaders(topology: Topology, tie: str, criteria: Sequence[str] = ()) -> tuple[int, ...]:
    """Return for each group the number of the first group of its tie; its own number where it is free.

    Args:
        topology: Structure of the dense model.
        tie: One of TIES.
        criteria: Criteria to choose from where each group has its own; only groups that fit the same ones are tied.
    """
    if tie == "none":
        return tuple(range(len(topology.groups)))
    stages = _stages(topology) if tie == "stage" else [0] * len(topology.groups)
    first: dict[Hashable, int] = {}
    found = []
    for number, group in enumerate(topology.groups):
        shapes = tuple(sorted(_shapes(group, topology))) if tie == "shape" else ()
        key = (
            stages[number],
            group.channels,
            group.kind,
            group.min_channels,
            applicable_criteria(criteria, group),
            shapes,
        )
        found.append(first.setdefault(key, number))
    return tuple(found)


def _stages(topology: Topology) -> list[int]:
    """Number the groups so that the number grows wherever the resolution differs from the previous group's."""
    positions = {product.weight: product.positions for product in topology.products}
    number, before, found = 0, None, []
    for group in topology.groups:
        here = max((positions.get(m.tensor, 0) for m in group.members if m.role == "out"), default=0)
        number += before is not None and here != before
        before = here
        found.append(number)
    return found


def _shapes(group: ChannelGroup, topology: Topology) -> list[tuple[str, int, tuple[int, ...]]]:
    return [(member.role, member.axis, topology.tensors[member.tensor].shape) for member in group.members]
