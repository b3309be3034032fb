"""Structures written by hand, for a model that another program prunes: groups, layers and blocks as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.errors import ConfigurationError, error_message, raise_all
from autoprune.structure.blocks import Gap
from autoprune.structure.groups import GROUP_KINDS
from autoprune.structure.products import Product, TensorInfo
from autoprune.structure.stored import Positions, StoredBlock, StoredGroup, StoredMember, Structure


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Channels that are removed together, wherever they occur.

    Attributes:
        name: Name of the group.
        channels: Width in the dense model, >= 1.
        least: Fewest channels with which the model runs, in [1, channels].
        kind: "channels", "heads" or "head_width".

    Example:
        >>> Group(name="stage1", channels=64, least=8).channels
        64
    """

    name: str
    channels: int
    least: int = 1
    kind: str = "channels"

    def __post_init__(self) -> None:
        what = f"group {self.name!r}"
        faults = []
        if not _is_count(self.channels, 1):
            faults.append(error_message(f"the channels of {what}", "be an integer >= 1", repr(self.channels)))
        elif not _is_count(self.least, 1) or self.least > self.channels:
            faults.append(error_message(f"least of {what}", f"be an integer in [1, {self.channels}]", repr(self.least)))
        if self.kind not in GROUP_KINDS:
            faults.append(error_message(f"the kind of {what}", f"be one of {', '.join(GROUP_KINDS)}", repr(self.kind)))
        raise_all(what, faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A part of the model whose size is a product of widths.

    It has `weights` parameters for each combination of channels of its groups, each of which takes part in `positions`
    multiply-adds. A convolution of 3 x 3 that reads `a` and makes `b` at 32 x 32 places has groups=("a", "b"),
    weights=9, positions=1024; a bias, or a depthwise convolution, has one group.

    Attributes:
        name: Name of the layer.
        groups: Names of groups, the one that it makes last; a group that it reads and makes occurs twice.
        weights: Parameters for each combination of channels, >= 1.
        positions: Multiply-adds for each parameter, >= 0.
        item_bytes: Bytes of a parameter, >= 0.

    Example:
        >>> Layer(name="conv2", groups=("conv1", "conv2"), weights=9, positions=1024).item_bytes
        4
    """

    name: str
    groups: tuple[str, ...] = ()
    weights: int = 1
    positions: int = 1
    item_bytes: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        least = {"weights": 1, "positions": 0, "item_bytes": 0}
        raise_all(
            f"layer {self.name!r}",
            [
                error_message(f"{field} of layer {self.name!r}", f"be an integer >= {low}", repr(getattr(self, field)))
                for field, low in least.items()
                if not _is_count(getattr(self, field), low)
            ],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Layers that can be dropped together.

    Attributes:
        name: Name of the block.
        layers: Names of its layers.

    Example:
        >>> Block(name="stage2.1", layers=("stage2.1.conv1", "stage2.1.conv2")).name
        'stage2.1'
    """

    name: str
    layers: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))


def structure_of_layers(groups: Sequence[Group], layers: Sequence[Layer], blocks: Sequence[Block] = ()) -> Structure:
    """Write the structure of a model as a table of its layers, from which every cost follows.

    Args:
        groups: Groups of channels, in the order of the forward.
        layers: Layers of the model; what is in none costs nothing.
        blocks: Blocks that can be dropped.

    Returns:
        The structure.

    Raises:
        ConfigurationError: A name is unknown or occurs twice, a group is in no layer, or a block has no layer.

    Example:
        >>> groups = [Group(name="conv1", channels=16), Group(name="conv2", channels=32)]
        >>> layers = [
        ...     Layer(name="conv1", groups=("conv1",), weights=27, positions=1024),
        ...     Layer(name="conv2", groups=("conv1", "conv2"), weights=9, positions=256),
        ...     Layer(name="classifier", groups=("conv2",), weights=10),
        ... ]
        >>> len(structure_of_layers(groups, layers).products)
        3
    """
    raise_all("the structure", [*_faults(groups, layers, blocks)])
    channels = {group.name: group.channels for group in groups}
    return Structure(
        tensors={
            layer.name: TensorInfo(
                shape=(*(channels[name] for name in layer.groups), layer.weights),
                item_bytes=layer.item_bytes,
                is_parameter=True,
            )
            for layer in layers
        },
        groups=stored_groups(groups, {layer.name: layer.groups for layer in layers}),
        blocks=tuple(stored_block(block.name, block.layers) for block in blocks),
        products=tuple(Product(weight=layer.name, positions=layer.positions) for layer in layers if layer.positions),
    )


def stored_groups(groups: Sequence[Group], axes: Mapping[str, Sequence[str]]) -> tuple[StoredGroup, ...]:
    """Encode groups.

    Args:
        groups: Groups of the model.
        axes: Tensor -> groups of its first axes; the last of them is the one that it makes.

    Returns:
        The stored groups.
    """

    def members(group: Group) -> Iterator[StoredMember]:
        index = Positions.of(np.arange(group.channels)[:, None])
        for tensor, names in axes.items():
            for axis, name in enumerate(names):
                if name == group.name:
                    role = "out" if axis == len(names) - 1 else "in"
                    yield StoredMember(tensor=tensor, axis=axis, role=role, index=index)

    return tuple(
        StoredGroup(
            name=group.name,
            channels=group.channels,
            least=group.least,
            kind=group.kind,
            members=tuple(members(group)),
            attributes=(),
            rescaled=(),
        )
        for group in groups
    )


def stored_block(name: str, tensors: Iterable[str]) -> StoredBlock:
    """Encode a block.

    Args:
        name: Name of the block.
        tensors: Names of the tensors that go with it.

    Returns:
        The stored block.
    """
    own = tuple(tensors)
    return StoredBlock(name=name, tensors=own, reads=own, gaps=(Gap(module=name, source=0),))


def check_names(what: str, names: Iterable[str]) -> None:
    """Refuse names that are no texts, or occur twice.

    Args:
        what: Plural name of what they name.
        names: The names.

    Raises:
        ConfigurationError: There is such a name.
    """
    for name, times in Counter(names).items():
        if not isinstance(name, str) or not name or times > 1:
            got = f"{name!r}{' twice' if times > 1 else ''}"
            raise ConfigurationError(error_message(f"the names of {what}", "be different texts", got))


def _faults(groups: Sequence[Group], layers: Sequence[Layer], blocks: Sequence[Block]) -> Iterator[str]:
    for what, found in (("groups", groups), ("layers", layers), ("blocks", blocks)):
        check_names(what, (one.name for one in found))
    known, named = {group.name for group in groups}, {layer.name for layer in layers}
    used = {name for layer in layers for name in layer.groups}
    for layer in layers:
        for name in sorted({*layer.groups} - known):
            yield error_message(f"the groups of layer {layer.name!r}", f"be some of {', '.join(known)}", repr(name))
    for name in sorted(known - used):
        yield error_message(f"group {name!r}", "be in some layer, whose cost it changes", "one in none")
    for block in blocks:
        wrong = sorted({*block.layers} - named)
        if wrong or not block.layers:
            got = repr(wrong[0]) if wrong else "none"
            yield error_message(f"the layers of block {block.name!r}", "be one or more of the structure's layers", got)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
