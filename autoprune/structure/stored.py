"""Store the part of a topology that a cut needs, and read it back without the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.codec import Format, stored
from autoprune.errors import StorageError, error_message
from autoprune.structure.blocks import DroppableBlock, Gap
from autoprune.structure.groups import Attribute, ChannelGroup, Member, Rescale
from autoprune.structure.topology import TensorInfo, Topology

VERSION = 3


@stored(Format(what="positions on an axis", optional=None))
@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """Positions [channels, k] on an axis, listed or as an evenly spaced grid.

    Attributes:
        shape: Number of channels, and k.
        start: First position of an evenly spaced grid.
        steps: Distance of neighbours along both sides of the grid.
        listed: One row for each channel; empty for a grid.
    """

    shape: tuple[int, int] = (0, 0)
    start: int = 0
    steps: tuple[int, int] = (0, 0)
    listed: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, index: np.ndarray) -> Positions:
        """Encode an index in its shortest form.

        Args:
            index: The positions, int64 array [channels, k].

        Returns:
            The encoded positions.
        """
        rows, columns = index.shape
        start, down, along = (int(index[where]) for where in ((0, 0), (-1, 0), (0, -1)))
        steps = ((down - start) // max(rows - 1, 1), (along - start) // max(columns - 1, 1))
        even = cls(shape=(rows, columns), start=start, steps=steps)
        if np.array_equal(even.index(), index):
            return even
        return cls(shape=(rows, columns), listed=tuple(tuple(row) for row in index.tolist()))

    def index(self) -> np.ndarray:
        """Decode the positions.

        Returns:
            The positions, int64 array [channels, k].
        """
        if self.listed:
            return np.array(self.listed, dtype=np.int64)
        rows, columns = (np.arange(length, dtype=np.int64) for length in self.shape)
        return self.start + self.steps[0] * rows[:, None] + self.steps[1] * columns

    def fits(self, size: int) -> bool:
        """Tell whether all positions lie on an axis, without decoding them.

        Args:
            size: Length of the axis.

        Returns:
            True where they do, and their shape is consistent.
        """
        rows, columns = self.shape
        if min(self.shape) < 1 or rows * columns > size:
            return False
        if self.listed:
            lengths = {len(row) for row in self.listed}
            return (len(self.listed), lengths) == (rows, {columns}) and all(
                0 <= p < size for r in self.listed for p in r
            )
        corners = [self.start + (rows - 1) * self.steps[0] * i + (columns - 1) * self.steps[1] * j for i, j in _CORNERS]
        return all(0 <= corner < size for corner in corners)


_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


@stored(Format(what="a member of a group"))
@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMember:
    """A stored `Member`, or a stored `Rescale`, whose role is ""."""

    tensor: str
    axis: int
    role: str
    index: Positions


@stored(Format(what="a group"))
@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGroup:
    """A stored `ChannelGroup`, without the fields that only a proof needs."""

    name: str
    channels: int
    least: int
    kind: str
    members: tuple[StoredMember, ...]
    attributes: tuple[Attribute, ...]
    rescaled: tuple[StoredMember, ...]


@stored(Format(what="a block", optional=None))
@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlock:
    """A stored `DroppableBlock`.

    Before version 2, source, position and outputs were those of its single gap.
    """

    name: str
    tensors: tuple[str, ...]
    gaps: tuple[Gap, ...] = ()
    reads: tuple[str, ...] = ()
    exact: bool = True
    repeated: bool = False
    source: int | str = 0
    position: int | None = None
    outputs: int = 1

    def block(self) -> DroppableBlock:
        """Decode the block.

        Returns:
            The block.
        """
        own = Gap(module=self.name, source=self.source, position=self.position, outputs=self.outputs)
        return DroppableBlock(
            name=self.name,
            gaps=self.gaps or (own,),
            tensors=self.tensors,
            used_tensors=self.reads or self.tensors,
            exact=self.exact,
            repeated=self.repeated,
        )


@stored(Format(what="the structure of a model", version=VERSION))
@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTopology:
    """A stored `Topology`, without the fields that only costs, `explain` and proofs need."""

    tensors: Mapping[str, TensorInfo]
    groups: tuple[StoredGroup, ...]
    blocks: tuple[StoredBlock, ...]

    @classmethod
    def of(cls, topology: Topology) -> StoredTopology:
        """Encode a topology.

        Args:
            topology: The topology.

        Returns:
            The part that a cut needs.
        """
        return cls(
            tensors=topology.tensors,
            groups=tuple(_stored(group) for group in topology.groups),
            blocks=tuple(_stored_block(block) for block in topology.blocks),
        )

    def topology(self, where: str) -> Topology:
        """Decode the topology, which has no costs.

        Args:
            where: The file or object that held it, for the message.

        Returns:
            The topology.

        Raises:
            StorageError: If positions lie outside their tensor.
        """
        for group in self.groups:
            for member in (*group.members, *group.rescaled):
                info = self.tensors.get(member.tensor)
                shape = () if info is None else info.shape
                inside = 0 <= member.axis < len(shape) and member.index.fits(shape[member.axis])
                if not inside or (member.role and member.index.shape[0] != group.channels):
                    got = f"others for {group.name} in {member.tensor}"
                    raise StorageError(error_message(where, "hold positions of channels that its tensors have", got))
        return Topology(
            groups=tuple(_group(group) for group in self.groups),
            unprunable=(),
            products=(),
            tensors=self.tensors,
            blocks=tuple(block.block() for block in self.blocks),
        )


def _stored_block(block: DroppableBlock) -> StoredBlock:
    return StoredBlock(
        name=block.name,
        tensors=block.tensors,
        gaps=block.gaps,
        reads=block.used_tensors,
        exact=block.exact,
        repeated=block.repeated,
    )


def _stored(group: ChannelGroup) -> StoredGroup:
    return StoredGroup(
        name=group.name,
        channels=group.channels,
        least=group.min_channels,
        kind=group.kind,
        members=tuple(
            StoredMember(tensor=m.tensor, axis=m.axis, role=m.role, index=Positions.of(m.index)) for m in group.members
        ),
        attributes=group.attributes,
        rescaled=tuple(
            StoredMember(tensor=r.tensor, axis=r.axis, role="", index=Positions.of(r.index[:, None]))
            for r in group.rescaled
        ),
    )


def _group(group: StoredGroup) -> ChannelGroup:
    return ChannelGroup(
        name=group.name,
        channels=group.channels,
        min_channels=group.least,
        kind=group.kind,
        members=tuple(Member(tensor=m.tensor, axis=m.axis, role=m.role, index=m.index.index()) for m in group.members),
        attributes=group.attributes,
        rescaled=tuple(Rescale(tensor=r.tensor, axis=r.axis, index=r.index.index()[:, 0]) for r in group.rescaled),
    )
