"""Positions that stay on the axes of a model's tensors."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from autoprune.plan.kept import KeptChannels
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.topology import Topology


def kept_indices(kept: KeptChannels, group: ChannelGroup) -> Tensor:
    """Return the indices that stay in one group.

    Args:
        kept: Channels that stay.
        group: Group of the dense model.

    Returns:
        Dense indices, int64 [kept channels], rising; all of them for a group that `kept` does not name.
    """
    indices = kept.groups.get(group.name)
    return torch.arange(group.channels) if indices is None else torch.tensor(indices, dtype=torch.int64)


def alive_positions(topology: Topology, kept: KeptChannels) -> dict[tuple[str, int], Tensor]:
    """Find the positions that remain on every axis along which channels were removed.

    Several groups share an axis where features are concatenated, or where the axis is a grid of heads and head width; a
    position is removed when any of the groups removes it.

    Args:
        topology: Topology of the dense model.
        kept: Channels that stay.

    Returns:
        (tensor, axis) -> remaining dense positions, int64, sorted. Axes that lose nothing are left out.
    """
    shared = Counter((member.tensor, member.axis) for group in topology.groups for member in group.members)
    alive: dict[tuple[str, int], Tensor] = {}
    gone: dict[tuple[str, int], Tensor] = {}
    for group in topology.groups:
        if len(kept.groups.get(group.name, ())) in (0, group.channels):
            continue
        stays = kept_indices(kept, group)
        removed = torch.ones(group.channels, dtype=torch.bool)
        removed[stays] = False
        for member in group.members:
            key = (member.tensor, member.axis)
            size = topology.tensors[member.tensor].shape[member.axis]
            if member.plain and shared[key] == 1 and size == group.channels:
                alive[key] = stays
                continue
            if key not in gone:
                gone[key] = torch.zeros(size, dtype=torch.bool)
            gone[key][torch.from_numpy(member.index)[removed].reshape(-1)] = True
    return alive | {key: (~mask).nonzero().squeeze(1) for key, mask in gone.items()}
