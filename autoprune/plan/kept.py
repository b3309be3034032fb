"""KeptChannels: the channels of the dense model that stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from autoprune.errors import ConfigurationError, SurgeryError, error_message
from autoprune.structure.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptChannels:
    """Channels that stay, always in indices of the dense model, whichever candidate they were chosen on.

    Attributes:
        groups: Group name -> sorted channel indices, one or more. A group that is not named stays whole.
        dropped: Names of the residual blocks that are dropped whole, sorted.

    Example:
        >>> KeptChannels(groups={"conv1": range(0, 8, 2)}).widths
        {'conv1': 4}
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
