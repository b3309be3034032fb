"""Draw random kept channels for a proof."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from autoprune.structure.groups import ChannelGroup
from autoprune.structure.topology import Topology

#: How many channels a group keeps in a draw; neighbouring groups keep different numbers.
DRAWS = ("half", "any", "all but one")


Draw = Mapping[str, tuple[int, ...]]


def layer_of(name: str) -> str:
    """Return a name without its numbers: the same for one layer in all blocks.

    Args:
        name: Name of a group or module.

    Returns:
        The name, with "#" for each number.
    """
    return re.sub(r"\d+", "#", name)


def independent_sets(topology: Topology) -> list[list[str]]:
    """Split groups into sets in which no two share a position of an axis or a number of a module.

    Args:
        topology: The topology.

    Returns:
        Names of the groups of each set.
    """
    shared: dict[str, set[str]] = {name: set() for name in topology.widths}
    numbers = [attribute.spans for group in topology.groups for attribute in group.attributes]
    together = [{name for span in spans for name in span.groups} for spans in numbers]
    together += [set(span.groups) for spans in topology.spans.values() for span in spans]
    for names in together:
        for name in names & shared.keys():
            shared[name] |= names - {name}
    sets: list[list[str]] = []
    for name in topology.widths:
        free = next((names for names in sets if not shared[name].intersection(names)), None)
        if free is None:
            sets.append([name])
        else:
            free.append(name)
    return sets


def two_channels(group: ChannelGroup) -> int:
    """Return two channels, or as many as the group needs; one if it has only two.

    Args:
        group: The group.

    Returns:
        The number.
    """
    return max(min(2, group.channels - 1), group.min_channels)


def draw_channels(group: ChannelGroup, draw: str, seed: int) -> tuple[int, ...]:
    """Draw random channels of a group: at least two where possible, as a single one behaves differently, and never all.

    Args:
        group: The group.
        draw: One of `DRAWS`.
        seed: Seed of the draw.

    Returns:
        The kept channels, in random order.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(group.channels, generator=generator)
    least = two_channels(group)
    count = {"half": group.channels // 2, "all but one": group.channels - 1}.get(draw)
    if count is None:
        count = int(torch.randint(least, group.channels, (1,), generator=generator))
    return tuple(order[: max(least, count)].tolist())
