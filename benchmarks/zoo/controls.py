"""Negative controls: a structure with one index map shifted by one has to be found, by the decoder and by the proof."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from autoprune.proof.discover import prove
from autoprune.structure.groups import ChannelGroup, Member
from autoprune.structure.topology import Topology
from autoprune.task.data import Inputs
from benchmarks.zoo.check import Compared, compare, drawn


@dataclass(frozen=True, slots=True)
class Control:
    """A topology that is wrong in one place: where, and how it came out.

    group, tensor, axis: of the index map that was shifted. decoder, proof: what they say of it, "" for nothing.
    """

    group: str
    tensor: str
    axis: int
    decoder: str
    proof: str

    @property
    def found(self) -> bool:
        """True when both found it."""
        return bool(self.decoder and self.proof)


def control(model: nn.Module, inputs: Inputs, topology: Topology, number: int = 0) -> Control:
    """Shift one index map of a proved topology and ask both. number: which one, of those that can be shifted."""
    places = list(_places(topology))
    group, member = places[number * 7 % len(places)]
    wrong = shifted(topology, group, member)
    return Control(
        group=group.name,
        tensor=member.tensor,
        axis=member.axis,
        decoder=_decoded(model, inputs, wrong, group.name).fault,
        proof=_proved(model, inputs, wrong, group.name),
    )


def shifted(topology: Topology, group: ChannelGroup, member: Member) -> Topology:
    """The topology in which that member holds each channel where the one before it is."""
    wrong = replace(member, index=np.roll(member.index, 1, 0))
    members = tuple(wrong if one is member else one for one in group.members)
    changed = replace(group, members=members)
    return replace(topology, groups=tuple(changed if one is group else one for one in topology.groups))


def _places(topology: Topology) -> Iterator[tuple[ChannelGroup, Member]]:
    """Weights that make or read channels; a shift of a key's bias, say, changes no output."""
    for group in topology.groups:
        for member in group.members:
            matrix = len(topology.tensors[member.tensor].shape) > 1
            if matrix and member.role in {"out", "in"} and len(group.members) > 1 and group.channels > 2:
                yield group, member


def _decoded(model: nn.Module, inputs: Inputs, topology: Topology, group: str) -> Compared:
    kept = drawn(topology, "half", 0)
    return compare(model, inputs, topology, replace(kept, groups={group: kept.groups[group]}, dropped=()))


def _proved(model: nn.Module, inputs: Inputs, topology: Topology, group: str) -> str:
    """Why the proof withdrew the group, or that what it made of it is right."""
    found = prove(model, topology, inputs)
    if group not in found.widths:
        return next((entry.reason for entry in found.unprunable if entry.module == group), "withdrawn")
    return "" if _decoded(model, inputs, found, group).fault else "mended"
