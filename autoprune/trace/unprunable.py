"""What is left alone, and why: layers of which channels stay, and what is no block, layer or head that can go."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.trace.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class UnprunableLayer:
    """A layer that is left alone.

    module: its name. channels: how many of its output channels stay. of: how many it has. why: kind and place.
    group, kind: name and kind of the group that was withdrawn; "" where the trace found none.
    """

    module: str
    channels: int
    of: int
    why: Reason
    group: str = ""
    kind: str = ""

    @property
    def reason(self) -> str:
        """Why and where, in words."""
        return self.why.text


@dataclass(frozen=True, slots=True, kw_only=True)
class IneligibleModule:
    """A module that holds nothing of a kind that could go.

    kind: "heads", "head_width", "blocks" or "layers". module: its name. why: kind and place.
    """

    kind: str
    module: str
    why: Reason
