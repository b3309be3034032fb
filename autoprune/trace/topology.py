"""Topology: the plain data that tracing gives out, the same whatever engine found it."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from fractions import Fraction

import torch
from torch import Tensor

from autoprune.display import summarize_names
from autoprune.errors import ConfigurationError, error_message
from autoprune.trace.blocks import DroppableBlock, fewest_blocks, is_part
from autoprune.trace.reasons import NOT_SEARCHED, PROTECTED, Reason
from autoprune.trace.unprunable import IneligibleModule, UnprunableLayer

#: What a group is of: plain channels; heads of attention, which go whole; the width of each of the heads.
GROUP_KINDS = ("channels", "heads", "head_width")
ROLES = ("out", "in", "scale", "shift", "statistic", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One axis of one tensor that a group's channels run along.

    tensor: name in the model's state dict (parameter or buffer). axis: the axis.
    index: positions on that axis, int64 [channels, k]: row c is removed with channel c.
    plain: derived; channel c is position c, as nearly everywhere.
    role: "out" (a weight makes the channel), "in" (a weight reads it), "scale" and "shift" (of a norm, or
        a bias), "statistic" (running mean or variance), "other".
    beside: of a bias, the weight to whose channels it is added, and the position of the first of these.
    """

    tensor: str
    axis: int
    index: Tensor
    role: str
    beside: tuple[str, int] | None = None
    plain: bool = field(init=False)

    def __post_init__(self) -> None:
        plain = self.index.shape[1] == 1 and torch.equal(self.index[:, 0], torch.arange(len(self.index)))
        object.__setattr__(self, "plain", plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionSpan:
    """Positions of one axis that the same groups run along: how many, and the groups' names."""

    positions: int
    groups: tuple[str, ...]


def remaining(spans: Iterable[PositionSpan], shares: Mapping[str, Fraction]) -> int:
    """Positions that stay with each group at that share of its channels; a group that is not named is whole."""
    return int(sum(span.positions * math.prod(shares.get(name, Fraction(1)) for name in span.groups) for span in spans))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """A whole number that a module keeps beside its weights and that shrinks with groups, such as num_heads.

    module: its name. name: where it lies, such as config.num_heads or shape[0]. value: in the dense model.
    runs: the positions that it counts; those that stay are its new value.
    certain: known from torch's own module; else a guess, for the proof to find out whether it is needed.
    """

    module: str
    name: str
    value: int
    runs: tuple[PositionSpan, ...]
    certain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """Values that make up for a scale which the model takes from a width, such as 1 / sqrt(head width).

    tensor, axis: of the parameter. index: positions on that axis, int64.
    """

    tensor: str
    axis: int
    index: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Channels that can only go together, in every tensor that holds them.

    name: the module that first makes the channels.
    channels: number of channels in the dense model.
    kind: one of KINDS; what the channels are.
    members: where they are.
    attributes: numbers of modules that follow the group's width.
    rescaled: weights that are multiplied by the square root of the share of channels that stays.
    reshaped: modules that reshape the channels into a grid, of which they are a side.
    scaling: modules that were seen to work out a scale, of attention logits say, from the number of channels.
    hint: "" or what else the width decides, in words that follow "it".
    min_channels: fewest channels with which the model runs.
    """

    name: str
    channels: int
    members: tuple[Member, ...]
    attributes: tuple[Attribute, ...] = ()
    rescaled: tuple[Rescale, ...] = ()
    reshaped: tuple[str, ...] = ()
    scaling: tuple[str, ...] = ()
    hint: str = ""
    kind: str = "channels"
    min_channels: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One matrix product or convolution: multiply-adds = positions * number of elements of `weight` (as cut).

    positions: how often the whole weight is used in one forward of the example inputs.
    """

    weight: str
    positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a model of given widths costs on the example inputs, known without running it.

    parameters: count. multiply_adds: of convolutions and matrix products, for the whole example batch.
    size_bytes: bytes of parameters and buffers.
    """

    parameters: int
    multiply_adds: int
    size_bytes: int

    def shares_gone(self, left: Cost) -> tuple[float, float]:
        """Shares of the parameters and of the multiply-adds that are not in `left`, in [0, 1]."""
        gone = 1 - left.parameters / max(self.parameters, 1)
        return gone, 1 - left.multiply_adds / max(self.multiply_adds, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contraction:
    """A product of two activations, such as queries times keys.

    Multiply-adds = positions * the length of every axis as cut. An axis is the runs that it is made of.
    module: the one that computes it.
    """

    module: str
    positions: int
    axes: tuple[tuple[PositionSpan, ...], ...]

    def multiply_adds(self, shares: Mapping[str, Fraction]) -> int:
        """With each group at that share of its channels; a group that is not named is whole."""
        return self.positions * math.prod(remaining(spans, shares) for spans in self.axes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Shape and dtype size of one parameter or buffer of the dense model."""

    shape: tuple[int, ...]
    item_bytes: int
    is_parameter: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Everything known about a dense model's structure.

    groups: what can be pruned, in the order of the forward.
    blocks: what can be dropped whole, in the order of the model's modules.
    unprunable: what cannot, and why.
    products: the multiply-adds, weight by weight.
    tensors: name -> TensorInfo of every distinct parameter and buffer.
    contractions: the multiply-adds of products of two activations, as in attention.
    has_statistics: some group's channels are normalised or reduced together.
    input_axes: weight -> its axis that a product sums over, in the order of the forward; the last of several.
    ineligible: modules that might have been blocks, layers or heads that can go, and why they are not.
    norms: "batch" and "layer", those kinds of normalisation that the model has; see `autoprune.trace.modules`.
    """

    groups: tuple[ChannelGroup, ...]
    unprunable: tuple[UnprunableLayer, ...]
    products: tuple[Product, ...]
    tensors: Mapping[str, TensorInfo]
    blocks: tuple[DroppableBlock, ...] = ()
    contractions: tuple[Contraction, ...] = ()
    has_statistics: bool = False
    input_axes: Mapping[str, int] = field(default_factory=dict)
    norms: tuple[str, ...] = ()
    ineligible: tuple[IneligibleModule, ...] = ()
    _known_spans: dict[tuple[str, int], tuple[PositionSpan, ...]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    @property
    def spans(self) -> Mapping[tuple[str, int], tuple[PositionSpan, ...]]:
        """(tensor, axis) -> how many positions go with which groups.

        Several groups share positions where an axis is a grid, of heads and head width say: then a position goes with
        either of them. Worked out when it is first asked for: a proof builds many topologies that nobody asks.
        """
        if not self._known_spans:
            self._known_spans.update(_spans(self.groups))
        return self._known_spans

    @property
    def widths(self) -> dict[str, int]:
        """Group name -> channels of the dense model."""
        return {group.name: group.channels for group in self.groups}

    def group(self, name: str) -> ChannelGroup:
        """The group of that name; ConfigurationError lists the known ones."""
        for group in self.groups:
            if group.name == name:
                return group
        raise ConfigurationError(
            error_message("a group", f"be one of {', '.join(self.widths)}", repr(name), "See autoprune explain.")
        )

    def check_names(self, names: Iterable[str]) -> None:
        """Raise ConfigurationError for the first name that is no group."""
        for name in names:
            self.group(name)

    def block(self, name: str) -> DroppableBlock:
        """The block of that name; ConfigurationError lists the known ones."""
        for block in self.blocks:
            if block.name == name:
                return block
        known = ", ".join(block.name for block in self.blocks) or "none, as this model has no such block"
        raise ConfigurationError(
            error_message("a block to drop", f"be one of {known}", repr(name), "See autoprune explain.")
        )

    def dropped(self, names: Iterable[str]) -> list[DroppableBlock]:
        """The fewest blocks that go when those of these names do; see `fewest_blocks`."""
        return [self.block(name) for name in fewest_blocks(self.blocks, [self.block(name).name for name in names])]

    def gone(self, names: Iterable[str]) -> frozenset[str]:
        """Names of all blocks that go when those of these names do: parts of them too, and what they make up."""
        whole = self.dropped(names)
        return frozenset(b.name for b in self.blocks if any(b == other or is_part(b, other) for other in whole))

    def cost(self, widths: Mapping[str, int], dropped: Iterable[str] = ()) -> Cost:
        """Cost when each group keeps `widths[name]` channels; groups that are not named stay whole.

        dropped: names of blocks that go whole.
        """
        blocks = self.dropped(dropped)
        without = {tensor for block in blocks for tensor in block.tensors}
        shares = {g.name: Fraction(widths.get(g.name, g.channels), g.channels) for g in self.groups}
        lost: dict[str, dict[int, int]] = {}
        for (tensor, axis), parts in self.spans.items():
            gone = sum(part.positions * (1 - math.prod(shares[name] for name in part.groups)) for part in parts)
            lost.setdefault(tensor, {})[axis] = int(gone)
        sizes = {
            name: 0 if name in without else _elements(info.shape, lost.get(name, {}))
            for name, info in self.tensors.items()
        }
        parameters = sum(sizes[name] for name, info in self.tensors.items() if info.is_parameter)
        size_bytes = sum(sizes[name] * info.item_bytes for name, info in self.tensors.items())
        multiply_adds = sum(product.positions * sizes[product.weight] for product in self.products)
        multiply_adds += sum(
            contraction.multiply_adds(shares)
            for contraction in self.contractions
            if not any(block.holds(contraction.module) for block in blocks)
        )
        return Cost(parameters=parameters, multiply_adds=multiply_adds, size_bytes=size_bytes)

    def share(self, widths: Mapping[str, int], dropped: Iterable[str] = ()) -> float:
        """Multiply-adds of the same as a share of the dense model's."""
        return self.cost(widths, dropped).multiply_adds / max(self.cost({}).multiply_adds, 1)

    def without(self, withdrawn: Mapping[str, Reason]) -> Topology:
        """The same topology with groups withdrawn: name -> reason."""
        gone = [
            UnprunableLayer(
                module=module,
                channels=group.channels,
                of=group.channels,
                why=withdrawn[group.name],
                group=group.name,
                kind=group.kind,
            )
            for group in self.groups
            if group.name in withdrawn
            for module in dict.fromkeys((group.name.partition("#")[0], *_holders(group)))
        ]
        return replace(
            self,
            groups=tuple(group for group in self.groups if group.name not in withdrawn),
            unprunable=(*self.unprunable, *gone),
        )

    def protected(self, patterns: Sequence[str]) -> Topology:
        """The topology without the groups and blocks that hold a module whose name matches one of the patterns.

        patterns: shell-style, such as "head.*" or "*.stem". Raises ConfigurationError for one that matches nothing.
        """
        withdrawn: dict[str, Reason] = {}
        staying: dict[str, Reason] = {}
        for pattern in patterns:
            matched = {group.name: _matched(group, pattern) for group in self.groups if _matched(group, pattern)}
            held = {block.name for block in self.blocks if block.matches(pattern)}
            if not matched and not held:
                known = summarize_names([*self.widths, *(block.name for block in self.blocks)], 5)
                raise ConfigurationError(
                    error_message(
                        "a pattern of protect", f"match a module of {known}", repr(pattern), "See autoprune explain."
                    )
                )
            why = Reason(kind=PROTECTED, detail=repr(pattern))
            for name, module in matched.items():
                withdrawn[name] = why if module == name else replace(why, note=f"{module} shares its channels")
            staying.update(dict.fromkeys(held, why))
        return self.without(withdrawn).without_blocks(staying)

    def without_blocks(self, withdrawn: Mapping[str, Reason]) -> Topology:
        """The same topology with blocks and layers withdrawn: name -> reason."""
        gone = [
            IneligibleModule(kind=kind, module=block.name, why=withdrawn[block.name])
            for block in self.blocks
            if block.name in withdrawn
            for kind in ("blocks", "layers")
            if block.is_of(kind)
        ]
        left = tuple(block for block in self.blocks if block.name not in withdrawn)
        return replace(self, blocks=left, ineligible=(*self.ineligible, *gone))

    def only(self, kinds: Sequence[str]) -> Topology:
        """The topology with groups of these kinds alone, and with blocks and layers if they are among them."""
        why = Reason(kind=NOT_SEARCHED, detail=str(tuple(kinds)))
        others = {group.name: why for group in self.groups if group.kind not in kinds}
        found = self.without(others) if others else self
        wanted = [kind for kind in ("blocks", "layers") if kind in kinds]
        unwanted = [block.name for block in self.blocks if not any(map(block.is_of, wanted))]
        return found.without_blocks(dict.fromkeys(unwanted, why))

    def fingerprint(self) -> str:
        """Short hash of groups, members and shapes: two models share it when their plans are exchangeable."""
        data = [
            [group.name, group.channels, [(m.tensor, m.axis, m.role, _digest(m.index)) for m in group.members]]
            for group in self.groups
        ]
        shapes = sorted((name, list(info.shape)) for name, info in self.tensors.items())
        return hashlib.sha256(json.dumps([data, shapes]).encode()).hexdigest()[:16]


def _holders(group: ChannelGroup) -> list[str]:
    """Modules with a parameter that makes the channels, or that is added to them; parameters outside modules too."""
    return [
        member.tensor.rpartition(".")[0] or member.tensor for member in group.members if member.role in ("out", "other")
    ]


def _matched(group: ChannelGroup, pattern: str) -> str:
    """The name of a group or of a module that makes its channels, whichever matches first; "" where none does."""
    modules = (member.tensor.rpartition(".")[0] for member in group.members if member.role == "out")
    return next((name for name in (group.name, *modules) if fnmatchcase(name, pattern)), "")


def _elements(shape: tuple[int, ...], lost: Mapping[int, int]) -> int:
    return math.prod(size - lost.get(axis, 0) for axis, size in enumerate(shape))


def _spans(groups: Iterable[ChannelGroup]) -> dict[tuple[str, int], tuple[PositionSpan, ...]]:
    found: dict[tuple[str, int], list[tuple[str, Tensor]]] = {}
    for group in groups:
        for member in group.members:
            found.setdefault((member.tensor, member.axis), []).append((group.name, member.index.reshape(-1)))
    return {key: _counted(places) for key, places in found.items()}


def _counted(places: Sequence[tuple[str, Tensor]]) -> tuple[PositionSpan, ...]:
    """Positions of one axis by the groups that run along them. places: name of a group and its positions."""
    if len(places) == 1:
        ((name, index),) = places
        return (PositionSpan(positions=len(index), groups=(name,)),)
    names: dict[int, list[str]] = {}
    for name, index in places:
        for position in index.tolist():
            names.setdefault(position, []).append(name)
    counts = Counter(tuple(own) for own in names.values())
    return tuple(PositionSpan(positions=count, groups=own) for own, count in counts.items())


def _digest(index: Tensor) -> str:
    return hashlib.sha256(index.to(torch.int64).contiguous().numpy().tobytes()).hexdigest()[:16]
