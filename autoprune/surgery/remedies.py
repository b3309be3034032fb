"""Changes to a group that may make it right where a first cut of it was wrong; the proof has the last word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from autoprune.trace.topology import ChannelGroup, Member, Rescale

#: Most remedies tried for one group.
MOST = 16


class Remedy(Protocol):
    """A changed group, None where the change does not apply."""

    def __call__(self, group: ChannelGroup) -> ChannelGroup | None:
        """Try it on a group."""


@dataclass(frozen=True, slots=True)
class FewerNumbers:
    """A number of a module may only look like a width of the group: leave those of these names as they are."""

    names: frozenset[str]

    def __call__(self, group: ChannelGroup) -> ChannelGroup | None:
        """Without the numbers."""
        left = tuple(attribute for attribute in group.attributes if attribute.name not in self.names)
        return None if len(left) == len(group.attributes) else replace(group, attributes=left)


@dataclass(frozen=True, slots=True)
class KeptScale:
    """A model that divides by the square root of a width changes its scale with it: make up for it in the weights.

    module: last part of the names of the modules that make the channels, such as q_proj.
    start, step: which of the positions of a channel; all of them, or the queries' third of a fused projection,
    which lies in one piece or alternates with keys and values.
    """

    module: str
    start: int = 1
    step: int = 1

    def __call__(self, group: ChannelGroup) -> ChannelGroup | None:
        """With weights that are rescaled."""
        rescaled = tuple(
            Rescale(tensor=member.tensor, axis=member.axis, index=self._index(member).flatten())
            for member in group.members
            if _makes(member) and _leaf(member) == self.module
        )
        return replace(group, rescaled=rescaled) if rescaled else None

    def _index(self, member: Member) -> Tensor:
        count = member.index.shape[1]
        if self.step > 1:
            return member.index[:, :: self.step]
        return member.index[:, : count // self.start]


def remedies(group: ChannelGroup) -> list[Remedy]:
    """What could help, the likeliest first."""
    found: list[Remedy] = [*_scales(group)]
    names = sorted({attribute.name for attribute in group.attributes})
    found += [FewerNumbers(frozenset((name,))) for name in names]
    if len(names) > 1:
        found.append(FewerNumbers(frozenset(names)))
    return found[:MOST]


def _scales(group: ChannelGroup) -> Iterator[KeptScale]:
    if not group.reshaped and not group.hint:
        return
    for name in dict.fromkeys(_leaf(member) for member in group.members if _makes(member)):
        counts = [member.index.shape[1] for member in group.members if _makes(member) and _leaf(member) == name]
        yield KeptScale(name)
        if all(count % 3 == 0 for count in counts):
            yield KeptScale(name, start=3)
            yield KeptScale(name, step=3)


def _makes(member: Member) -> bool:
    return member.role in ("out", "scale", "shift")


def _leaf(member: Member) -> str:
    return member.tensor.split(".")[-2] if "." in member.tensor else member.tensor
