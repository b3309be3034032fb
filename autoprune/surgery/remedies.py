"""Changes to a group that may make it right where a plain cut of it was wrong; the proof has the last word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from autoprune.trace.topology import Attribute, ChannelGroup, Member, Rescale

#: Most changes tried for one group.
MOST = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptScale:
    """A model that divides by the square root of a width changes its scale with it: make up for it in the weights.

    module: last part of the names of the modules that make the channels, such as q_proj.
    part, step: which of the positions of a channel; all of them, or the queries' third of a fused projection,
    which lies in one piece or alternates with keys and values.
    """

    module: str
    part: int = 1
    step: int = 1

    def of(self, group: ChannelGroup) -> tuple[Rescale, ...]:
        """The weights to rescale."""
        return tuple(
            Rescale(tensor=member.tensor, axis=member.axis, index=self._index(member).flatten())
            for member in group.members
            if _makes(member) and _leaf(member) == self.module
        )

    def _index(self, member: Member) -> Tensor:
        return member.index[:, : member.index.shape[1] // self.part : self.step]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Numbers of modules that follow the group, of those that were guessed, and a scale that is kept.

    numbers: names of attributes. scale: None to leave scales alone.
    """

    numbers: frozenset[str] = frozenset()
    scale: KeptScale | None = None

    def __call__(self, group: ChannelGroup, guesses: Sequence[Attribute]) -> ChannelGroup | None:
        """The group with the change, None where there is nothing to change."""
        found = tuple(guess for guess in guesses if guess.name in self.numbers)
        rescaled = self.scale.of(group) if self.scale is not None else ()
        if not found and not rescaled:
            return None
        certain = tuple(attribute for attribute in group.attributes if attribute.certain)
        return replace(group, attributes=(*certain, *found), rescaled=rescaled)

    def smaller(self) -> Iterator[Change]:
        """With one number less each."""
        for number in sorted(self.numbers):
            yield replace(self, numbers=self.numbers - {number})


def changes(group: ChannelGroup, guesses: Sequence[Attribute]) -> list[Change]:
    """What could help, the likeliest first."""
    names = frozenset(guess.name for guess in guesses)
    everything = Change(numbers=names)
    scales = list(_scales(group))
    found = [everything, *(replace(everything, scale=scale) for scale in scales)]
    fewer = [*everything.smaller(), *(Change(numbers=frozenset((name,))) for name in sorted(names))]
    found += fewer
    found += [replace(change, scale=scale) for change in fewer for scale in scales]
    return list(dict.fromkeys(found))[:MOST]


def _scales(group: ChannelGroup) -> Iterator[KeptScale]:
    if not group.reshaped and not group.hint:
        return
    for name in dict.fromkeys(_leaf(member) for member in group.members if _makes(member)):
        counts = [member.index.shape[1] for member in group.members if _makes(member) and _leaf(member) == name]
        yield KeptScale(module=name)
        if all(count % 3 == 0 for count in counts):
            yield KeptScale(module=name, part=3)
            yield KeptScale(module=name, step=3)


def _makes(member: Member) -> bool:
    return member.role in ("out", "scale", "shift")


def _leaf(member: Member) -> str:
    return member.tensor.split(".")[-2] if "." in member.tensor else member.tensor
