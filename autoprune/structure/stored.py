"""Structure: the description of a model that a search and a cut need, as plain data that is stored as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from autoprune.codec import Format, from_plain, parse, stored, to_plain
from autoprune.structure.blocks import DroppableBlock, Gap
from autoprune.structure.groups import Attribute, ChannelGroup, Member, Rescale
from autoprune.structure.products import Contraction, Product, TensorInfo

VERSION = 4


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

    @classmethod
    def of(cls, group: ChannelGroup) -> StoredGroup:
        """Encode a group.

        Args:
            group: The group.

        Returns:
            The part that a cut needs.
        """
        members = (
            StoredMember(tensor=m.tensor, axis=m.axis, role=m.role, index=Positions.of(m.index)) for m in group.members
        )
        rescaled = (
            StoredMember(tensor=r.tensor, axis=r.axis, role="", index=Positions.of(r.index[:, None]))
            for r in group.rescaled
        )
        return cls(
            name=group.name,
            channels=group.channels,
            least=group.min_channels,
            kind=group.kind,
            members=tuple(members),
            attributes=group.attributes,
            rescaled=tuple(rescaled),
        )

    def group(self) -> ChannelGroup:
        """Decode the group.

        Returns:
            The group.
        """
        members = (Member(tensor=m.tensor, axis=m.axis, role=m.role, index=m.index.index()) for m in self.members)
        rescaled = (Rescale(tensor=r.tensor, axis=r.axis, index=r.index.index()[:, 0]) for r in self.rescaled)
        return ChannelGroup(
            name=self.name,
            channels=self.channels,
            min_channels=self.least,
            kind=self.kind,
            members=tuple(members),
            attributes=self.attributes,
            rescaled=tuple(rescaled),
        )


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

    @classmethod
    def of(cls, block: DroppableBlock) -> StoredBlock:
        """Encode a block.

        Args:
            block: The block.

        Returns:
            The part that a cut needs.
        """
        return cls(
            name=block.name,
            tensors=block.tensors,
            gaps=block.gaps,
            reads=block.used_tensors,
            exact=block.exact,
            repeated=block.repeated,
        )

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


@stored(
    Format(
        what="the structure of a model",
        version=VERSION,
        since=dict.fromkeys(("products", "contractions", "input_axes", "norms"), 4),
    )
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """Description of a model: what can be pruned, and what is saved by it. Plain data, without the model and torch.

    `autoprune.discover(model, inputs).describe()` makes it of a model of torch; `structure_of_layers` and
    `structure_of_costs` make it of numbers, for a model that another program prunes.

    Attributes:
        tensors: Name -> TensorInfo of every distinct parameter and buffer.
        groups: Groups of channels, without the fields that only a proof needs.
        blocks: Blocks and layers that can be dropped.
        products: Multiply-adds by weight; empty in data of a version before 4, which then has no costs.
        contractions: Multiply-adds of products of two activations.
        input_axes: Weight -> axis that a product sums over.
        norms: Kinds of normalisation in the model.

    Example:
        >>> from autoprune import Group, Layer, structure_of_layers
        >>> hidden, out = Group(name="hidden", channels=8), Layer(name="out", groups=("hidden",), weights=10)
        >>> structure = structure_of_layers([hidden], [out])
        >>> Structure.from_json(structure.to_json()) == structure
        True
    """

    tensors: Mapping[str, TensorInfo]
    groups: tuple[StoredGroup, ...]
    blocks: tuple[StoredBlock, ...]
    products: tuple[Product, ...] = ()
    contractions: tuple[Contraction, ...] = ()
    input_axes: Mapping[str, int] = field(default_factory=dict)
    norms: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Write versioned JSON, which `from_json` of this and every later release reads.

        Returns:
            JSON text.
        """
        return json.dumps(to_plain(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "a structure") -> Structure:
        """Read a description from JSON.

        Args:
            text: JSON that `to_json` wrote.
            where: Name of the text's source, for the message.

        Returns:
            The description.

        Raises:
            StorageError: For text that is none, or that a later version wrote.
        """
        return from_plain(cls, parse(text, where), where)

    def inconsistency(self) -> str:
        """Look for positions or products that the tensors do not have.

        Returns:
            A clause that describes the first; "" if there is none.
        """
        for group in self.groups:
            for member in (*group.members, *group.rescaled):
                info = self.tensors.get(member.tensor)
                shape = () if info is None else info.shape
                inside = 0 <= member.axis < len(shape) and member.index.fits(shape[member.axis])
                if not inside or (member.role and member.index.shape[0] != group.channels):
                    return f"others for {group.name} in {member.tensor}"
        unknown = [
            name for name in (*(one.weight for one in self.products), *self.input_axes) if name not in self.tensors
        ]
        return f"products with {unknown[0]}, which is no tensor" if unknown else ""
