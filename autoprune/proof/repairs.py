"""Propose repairs of a group whose plain cut fails: numbers to update, and scales to correct."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoprune.structure.groups import Attribute, ChannelGroup, Member, Rescale
from autoprune.structure.topology import Topology

#: Upper limit of repairs that are tried for one group.
MOST = 48
#: Upper limit of repairs that correct scales of several kinds of attention.
JOINT = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleCorrection:
    """Makes up in the weights for a scale that changes with a width, such as 1 / sqrt(head width).

    Attributes:
        module: Last part of the name of the modules that make the channels, such as q_proj.
        first: Positions of a channel that are corrected, out of every `of`: the queries of a fused projection lie
            before its keys and values.
        of: See `first`.
        alternating: Whether queries, keys and values alternate, so that the pattern repeats.
        computed: Whether only modules count that compute the scale from the width; others may keep it as a number.
    """

    module: str
    first: int = 1
    of: int = 1
    alternating: bool = False
    computed: bool = False

    def of_group(self, group: ChannelGroup) -> tuple[Rescale, ...]:
        """Return the entries to rescale: the weights, and the biases beside them.

        Args:
            group: The group.

        Returns:
            Entries by tensor.
        """
        places = _places(group) if self.computed else [""]
        chosen = [
            (member, self._positions(member))
            for member in _makers(group)
            if _leaf(member) == self.module and any(_inside(member, place) for place in places)
        ]
        made = {member.tensor: positions for member, positions in chosen}
        biases = [
            (member, _shifted(member, made[member.beside[0]]))
            for member in group.members
            if member.role == "shift" and member.beside is not None and member.beside[0] in made
        ]
        return tuple(
            Rescale(tensor=member.tensor, axis=member.axis, index=positions)
            for member, positions in (*chosen, *biases)
            if len(positions)
        )

    def _positions(self, member: Member) -> np.ndarray:
        rows = member.index.shape[1]
        number = np.arange(rows)
        taken = number % self.of < self.first if self.alternating else number < rows * self.first // self.of
        return member.index[:, taken].flatten()


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """A change to a group that may make its cut right.

    Attributes:
        numbers: Names of guessed numbers that follow the group.
        scales: Corrections of scales, one for each kind of attention that shares the group.
    """

    numbers: frozenset[str] = frozenset()
    scales: tuple[ScaleCorrection, ...] = ()

    def __call__(self, group: ChannelGroup, guesses: Sequence[Attribute]) -> ChannelGroup | None:
        """Apply the repair to a group.

        Args:
            group: The group.
            guesses: Its guessed numbers.

        Returns:
            The changed group, None if the repair changes nothing.
        """
        found = tuple(guess for guess in guesses if guess.name in self.numbers)
        rescaled = tuple(weights for scale in self.scales for weights in scale.of_group(group))
        if not found and not rescaled:
            return None
        certain = tuple(attribute for attribute in group.attributes if attribute.certain)
        return replace(group, attributes=(*certain, *found), rescaled=rescaled)

    def smaller(self) -> Iterator[Repair]:
        """Yield repairs with one number less each.

        Yields:
            The repairs.
        """
        for number in sorted(self.numbers):
            yield replace(self, numbers=self.numbers - {number})


def repair_key(topology: Topology, names: Iterable[str]) -> tuple[object, ...]:
    """Return a key of the repairs of groups: under topologies of one trace with equal keys, cuts of them are equal.

    Args:
        topology: The topology, with the repairs.
        names: Names of the groups.

    Returns:
        A hashable value.
    """
    groups = {group.name: group for group in topology.groups}
    scaled = {name: [(r.tensor, r.axis, *r.index.tolist()) for r in groups[name].rescaled] for name in names}
    return tuple((name, groups[name].attributes, *scaled[name]) for name in names)


def candidate_repairs(group: ChannelGroup, guesses: Sequence[Attribute]) -> list[Repair]:
    """List repairs that could help a group.

    Args:
        group: The group.
        guesses: Its guessed numbers.

    Returns:
        The repairs, the likeliest first.
    """
    names = frozenset(guess.name for guess in guesses)
    everything = [Repair(numbers=chosen) for chosen in _likely(group, guesses)]
    scales = [*_joint_scales(group), *((scale,) for scale in _scales(group))]
    found = [*everything, *(replace(change, scales=some) for some in scales for change in everything)]
    fewer = [*Repair(numbers=names).smaller(), *(Repair(numbers=frozenset((name,))) for name in sorted(names))]
    found += fewer
    found += [replace(change, scales=some) for change in fewer for some in scales]
    return list(dict.fromkeys(found))[:MOST]


def _likely(group: ChannelGroup, guesses: Sequence[Attribute]) -> list[frozenset[str]]:
    """Return sets of numbers: those of reshaping modules, then also inside their attributes, then also around them."""
    here = [guess for guess in guesses if guess.module in group.reshaped]
    plain = [guess for guess in here if guess.name.isidentifier()]
    return list(dict.fromkeys(frozenset(guess.name for guess in some) for some in (plain, here, guesses)))


def _scales(group: ChannelGroup) -> Iterator[ScaleCorrection]:
    """Yield corrections of scales, first for modules that were seen to compute one."""
    makers = _makers(group)
    working = _within(makers, _places(group))
    yield from (replace(scale, computed=True) for scale in _scales_of(working))
    if group.reshaped or group.scaling:
        yield from _scales_of(_within(makers, (*group.reshaped, *group.scaling)) or makers)


def _scales_of(makers: Sequence[Member]) -> Iterator[ScaleCorrection]:
    counts: dict[str, list[int]] = {}
    for member in makers:
        counts.setdefault(_leaf(member), []).append(member.index.shape[1])
    parts = [(name, part) for name, numbers in counts.items() for part in _parts(numbers)]
    for name, (first, of, alternating) in sorted(parts, key=lambda part: part[1][1] > 3):
        yield ScaleCorrection(module=name, first=first, of=of, alternating=alternating)


def _joint_scales(group: ChannelGroup) -> list[tuple[ScaleCorrection, ...]]:
    """Return joint corrections if several kinds of attention, told apart by layer names, share the group."""
    makers = _makers(group)
    kinds = dict.fromkeys(
        tuple(dict.fromkeys(_leaf(member) for member in makers if _inside(member, place))) for place in _places(group)
    )
    options = [
        [
            ScaleCorrection(module=leaf, first=1, of=of, alternating=alternating, computed=True)
            for leaf in leaves
            for of, alternating in ((1, False), (3, False), (3, True))
        ]
        for leaves in kinds
    ]
    # The likeliest first: queries usually come first.
    ranked = sorted(itertools.product(*map(enumerate, options)), key=lambda some: sum(rank for rank, _ in some))
    return [tuple(scale for _, scale in some) for some in ranked[:JOINT]] if len(kinds) > 1 else []


def _parts(counts: Sequence[int]) -> Iterator[tuple[int, int, bool]]:
    """Yield (first, of, alternating): all positions of a channel, or those of queries that share keys and values."""
    yield 1, 1, False
    for of in range(3, min(counts) + 1):
        if all(count % of == 0 for count in counts):
            yield of - 2, of, False
            if of < max(counts):
                yield of - 2, of, True


def _makers(group: ChannelGroup) -> list[Member]:
    """Return the weights that make the channels, norms, and biases without a weight."""
    return [member for member in group.members if _makes(member)]


def _makes(member: Member) -> bool:
    return member.role in ("out", "scale") or (member.role == "shift" and member.beside is None)


def _places(group: ChannelGroup) -> list[str]:
    """Return the modules that compute a scale, or the nearest ones around them with weights of the group."""
    makers, found = _makers(group), []
    for place in group.scaling:
        while place and not any(_inside(member, place) for member in makers):
            place = place.rpartition(".")[0]
        found.append(place)
    return found


def _within(makers: Sequence[Member], places: Sequence[str]) -> list[Member]:
    return [member for member in makers if any(_inside(member, place) for place in places)]


def _inside(member: Member, place: str) -> bool:
    return not place or member.tensor.startswith(f"{place}.")


def _shifted(member: Member, positions: np.ndarray) -> np.ndarray:
    """Return the positions of a bias that is added to these positions of a weight."""
    start = member.beside[1] if member.beside is not None else 0
    return member.index[np.isin(member.index + start, positions)]


def _leaf(member: Member) -> str:
    return member.tensor.split(".")[-2] if "." in member.tensor else member.tensor
