"""Define records of layers and modules that cannot be pruned, with the reasons."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.structure.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class UnprunableLayer:
    """A layer of which some or all output channels stay.

    Attributes:
        module: Name of the layer.
        channels: Number of its output channels that stay.
        of: Number of its output channels.
        why: The reason, with its place.
        group: Name of the group that was withdrawn; "" if the trace found none.
        kind: Kind of that group; "" if the trace found none.
    """

    module: str
    channels: int
    of: int
    why: Reason
    group: str = ""
    kind: str = ""

    @property
    def reason(self) -> str:
        """The reason and its place, in words."""
        return self.why.text


@dataclass(frozen=True, slots=True, kw_only=True)
class IneligibleModule:
    """A module that was a candidate for a kind and cannot be pruned that way.

    Attributes:
        kind: "heads", "head_width", "blocks" or "layers".
        module: Name of the module.
        why: The reason, with its place.
    """

    kind: str
    module: str
    why: Reason
