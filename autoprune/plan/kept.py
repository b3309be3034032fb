"""KeptChannels: the channels of the dense model that stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from autoprune.errors import ConfigurationError, SurgeryError, error_message
from autoprune.structure.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptChannels:
    """Channels that stay, always in indices of the dense model, whichever candidate they were chosen on.

    Attributes:
        groups: Group name -> sorted channel indices, one or more. A group that is not named stays whole.
        dropped: Names of the residual blocks that are dropped whole, sorted.
    """

    groups: Mapping[str, tuple[int, ...]]
    dropped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ordered = {name: tuple(sorted(set(indices))) for name, indices in self.groups.items()}
        for name, indices in ordered.items():
            if not indices or indices[0] < 0:
                raise ConfigurationError(
                    error_message(f"kept channels of {name}", "be one or more indices >= 0", str(indices))
                )
        object.__setattr__(self, "groups", MappingProxyType(ordered))
        object.__setattr__(self, "dropped", tuple(sorted(set(self.dropped))))

    @property
    def widths(self) -> dict[str, int]:
        """Group name -> number of channels that stay."""
        return {name: len(indices) for name, indices in self.groups.items()}

    def of(self, name: str, channels: int) -> Tensor:
        """Return the indices that stay in one group.

        Args:
            name: Name of the group.
            channels: Number of channels of the dense group.

        Returns:
            Dense indices, int64, rising.
        """
        indices = self.groups.get(name)
        return torch.arange(channels) if indices is None else torch.tensor(indices, dtype=torch.int64)

    def check(self, topology: Topology) -> None:
        """Check that the kept set fits a topology.

        Args:
            topology: Topology of the dense model.

        Raises:
            SurgeryError: For a group or index that does not exist, or too few channels.
            ConfigurationError: For a block that does not exist.
        """
        for block in self.dropped:
            topology.block(block)
        known = topology.widths
        for name, indices in self.groups.items():
            if name not in known:
                raise SurgeryError(error_message("a kept group", f"be one of {', '.join(known)}", repr(name)))
            if indices[-1] >= known[name]:
                raise SurgeryError(error_message(f"kept channels of {name}", f"be < {known[name]}", indices[-1]))
            least = topology.group(name).min_channels
            if len(indices) < least:
                raise SurgeryError(error_message(f"kept channels of {name}", f"be {least} or more", len(indices)))

    def contains(self, other_widths: Mapping[str, int], topology: Topology) -> bool:
        """Tell whether every group is at least as wide as asked.

        Args:
            other_widths: Group name -> number of channels.
            topology: Topology of the dense model.

        Returns:
            True when no group is narrower.
        """
        own = {**topology.widths, **self.widths}
        return all(own[name] >= width for name, width in other_widths.items())

    def to_dict(self) -> dict[str, list[int]]:
        """Convert the groups to JSON-ready data.

        Returns:
            Group name -> indices.
        """
        return {name: list(indices) for name, indices in self.groups.items()}

    @classmethod
    def whole(cls, topology: Topology) -> KeptChannels:
        """Keep every channel: the dense model.

        Args:
            topology: Topology of the dense model.

        Returns:
            All channels of all groups.
        """
        return cls(groups={group.name: tuple(range(group.channels)) for group in topology.groups})


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
        stays = kept.of(group.name, group.channels)
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
            gone[key][member.index[removed].reshape(-1)] = True
    return alive | {key: (~mask).nonzero().squeeze(1) for key, mask in gone.items()}
