"""Define the topology of a model: its groups, blocks and costs, as plain data."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from fractions import Fraction

import numpy as np

from autoprune.display import summarize_names
from autoprune.errors import ConfigurationError, StorageError, error_message
from autoprune.structure.blocks import DroppableBlock, fewest_blocks, is_part
from autoprune.structure.cost import Cost
from autoprune.structure.groups import ChannelGroup, PositionSpan, spans_by_axis
from autoprune.structure.products import Contraction, Product, TensorInfo
from autoprune.structure.reasons import NOT_SEARCHED, PROTECTED, Reason
from autoprune.structure.stored import StoredBlock, StoredGroup, Structure
from autoprune.structure.unprunable import IneligibleModule, UnprunableLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The structure of a dense model.

    Attributes:
        groups: Groups of channels that can be pruned, in the order of the forward.
        blocks: Blocks and layers that can be dropped, in the order of the model's modules.
        unprunable: Layers with channels that cannot be pruned, with the reasons.
        products: Multiply-adds by weight.
        tensors: Name -> TensorInfo of every distinct parameter and buffer.
        contractions: Multiply-adds of products of two activations, as in attention.
        has_statistics: Whether channels of some group are normalised or reduced together.
        input_axes: Weight -> axis that a product sums over, in the order of the forward; the last one if there are
            several.
        norms: Kinds of normalisation in the model, "batch" and "layer"; see `autoprune.trace.modules`.
        ineligible: Modules that were candidates for blocks, layers or heads, with the reason that rules them out.

    Example:
        >>> from autoprune import Group, Layer, structure_of_layers
        >>> hidden, out = Group(name="hidden", channels=8), Layer(name="out", groups=("hidden",), weights=10)
        >>> Topology.of(structure_of_layers([hidden], [out])).cost({"hidden": 4}).parameters
        40
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

    @classmethod
    def of(cls, structure: Structure, where: str = "a structure") -> Topology:
        """Read a description.

        Args:
            structure: Description of a model.
            where: The file or object that held it, for the message.

        Returns:
            The topology, without the reasons why other layers stay whole.

        Raises:
            StorageError: Parts of the description contradict each other.
        """
        wrong = structure.inconsistency()
        if wrong:
            raise StorageError(error_message(where, "hold positions of channels that its tensors have", wrong))
        return cls(
            groups=tuple(group.group() for group in structure.groups),
            unprunable=(),
            products=structure.products,
            tensors=structure.tensors,
            blocks=tuple(block.block() for block in structure.blocks),
            contractions=structure.contractions,
            input_axes=structure.input_axes,
            norms=structure.norms,
        )

    def describe(self) -> Structure:
        """Describe the model by plain data, which a search needs and which is stored as JSON.

        Returns:
            The description, from which `Topology.of` makes a topology of the same groups, blocks and costs.
        """
        return Structure(
            tensors=self.tensors,
            groups=tuple(StoredGroup.of(group) for group in self.groups),
            blocks=tuple(StoredBlock.of(block) for block in self.blocks),
            products=self.products,
            contractions=self.contractions,
            input_axes=self.input_axes,
            norms=self.norms,
        )

    @property
    def spans(self) -> Mapping[tuple[str, int], tuple[PositionSpan, ...]]:
        """(tensor, axis) -> positions of the axis by group.

        Groups share positions where an axis is a grid, of heads and head width say: a position is then removed with
        either of them. Computed on first use, as a proof builds many topologies that never need it.
        """
        if not self._known_spans:
            self._known_spans.update(spans_by_axis(self.groups))
        return self._known_spans

    @property
    def widths(self) -> dict[str, int]:
        """Group name -> number of channels in the dense model."""
        return {group.name: group.channels for group in self.groups}

    def group(self, name: str) -> ChannelGroup:
        """Look up a group.

        Args:
            name: Its name.

        Returns:
            The group.

        Raises:
            ConfigurationError: For an unknown name; lists the known ones.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise ConfigurationError(
            error_message("a group", f"be one of {', '.join(self.widths)}", repr(name), "See autoprune explain.")
        )

    def check_names(self, names: Iterable[str]) -> None:
        """Check that names are those of groups.

        Args:
            names: Any names.

        Raises:
            ConfigurationError: For the first name that is none.
        """
        for name in names:
            self.group(name)

    def block(self, name: str) -> DroppableBlock:
        """Look up a block.

        Args:
            name: Its name.

        Returns:
            The block.

        Raises:
            ConfigurationError: For an unknown name; lists the known ones.
        """
        for block in self.blocks:
            if block.name == name:
                return block
        known = ", ".join(block.name for block in self.blocks) or "none, as this model has no such block"
        raise ConfigurationError(
            error_message("a block to drop", f"be one of {known}", repr(name), "See autoprune explain.")
        )

    def dropped(self, names: Iterable[str]) -> list[DroppableBlock]:
        """Return the fewest blocks that drop everything named; see `fewest_blocks`.

        Args:
            names: Names of blocks.

        Returns:
            The blocks.

        Raises:
            ConfigurationError: For an unknown name.
        """
        return [self.block(name) for name in fewest_blocks(self.blocks, [self.block(name).name for name in names])]

    def gone(self, names: Iterable[str]) -> frozenset[str]:
        """Return every block that is lost with the named ones, also its parts and combinations.

        Args:
            names: Names of blocks.

        Returns:
            Names of blocks.

        Raises:
            ConfigurationError: For an unknown name.
        """
        whole = self.dropped(names)
        return frozenset(b.name for b in self.blocks if any(b == other or is_part(b, other) for other in whole))

    def cost(self, widths: Mapping[str, int], dropped: Iterable[str] = ()) -> Cost:
        """Compute the cost of a cut model.

        Args:
            widths: Group name -> number of channels that stay; all of them for a group that is not named.
            dropped: Names of blocks that are dropped.

        Returns:
            The cost.
        """
        blocks = self.dropped(dropped)
        without = {tensor for block in blocks for tensor in block.tensors}
        kept = {group.name: (int(widths.get(group.name, group.channels)), group.channels) for group in self.groups}
        lost: dict[str, dict[int, int]] = {}
        for (tensor, axis), parts in self.spans.items():
            lost.setdefault(tensor, {})[axis] = int(sum(_gone(part, kept) for part in parts))
        sizes = {
            name: 0 if name in without else _elements(info.shape, lost.get(name, {}))
            for name, info in self.tensors.items()
        }
        parameters = sum(sizes[name] for name, info in self.tensors.items() if info.is_parameter)
        size_bytes = sum(sizes[name] * info.item_bytes for name, info in self.tensors.items())
        multiply_adds = sum(product.positions * sizes[product.weight] for product in self.products)
        shares = {name: Fraction(*pair) for name, pair in kept.items()} if self.contractions else {}
        multiply_adds += sum(
            contraction.multiply_adds(shares)
            for contraction in self.contractions
            if not any(block.holds(contraction.module) for block in blocks)
        )
        return Cost(parameters=parameters, multiply_adds=multiply_adds, size_bytes=size_bytes)

    def share(self, widths: Mapping[str, int], dropped: Iterable[str] = ()) -> float:
        """Compute the multiply-adds of a cut model as a share of the dense model's.

        Args:
            widths: Group name -> number of channels that stay; all of them for a group that is not named.
            dropped: Names of blocks that are dropped.

        Returns:
            The share.
        """
        return self.cost(widths, dropped).multiply_adds / max(self.cost({}).multiply_adds, 1)

    def without(self, withdrawn: Mapping[str, Reason]) -> Topology:
        """Withdraw groups.

        Args:
            withdrawn: Group name -> reason.

        Returns:
            The topology without these groups; their layers are listed as unprunable.
        """
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
        """Withdraw the groups and blocks that hold a module whose name matches a pattern.

        Args:
            patterns: Shell-style patterns, such as "head.*" or "*.stem".

        Returns:
            The topology without them.

        Raises:
            ConfigurationError: For a pattern that matches nothing.
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
                        "a pattern of protect",
                        f"match one of the modules {known}",
                        repr(pattern),
                        "See autoprune explain.",
                    )
                )
            why = Reason(kind=PROTECTED, detail=repr(pattern))
            for name, module in matched.items():
                withdrawn[name] = why if module == name else replace(why, note=f"{module} shares its channels")
            staying.update(dict.fromkeys(held, why))
        return self.without(withdrawn).without_blocks(staying)

    def without_blocks(self, withdrawn: Mapping[str, Reason]) -> Topology:
        """Withdraw blocks and layers.

        Args:
            withdrawn: Name -> reason.

        Returns:
            The topology without them; they are listed as ineligible.
        """
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
        """Withdraw everything but some kinds.

        Args:
            kinds: The kinds to keep: of `GROUP_KINDS`, "blocks" and "layers".

        Returns:
            The topology without the others.
        """
        why = Reason(kind=NOT_SEARCHED, detail=str(tuple(kinds)))
        others = {group.name: why for group in self.groups if group.kind not in kinds}
        found = self.without(others) if others else self
        wanted = [kind for kind in ("blocks", "layers") if kind in kinds]
        unwanted = [block.name for block in self.blocks if not any(map(block.is_of, wanted))]
        return found.without_blocks(dict.fromkeys(unwanted, why))

    def fingerprint(self) -> str:
        """Hash groups, members and shapes: models with equal fingerprints can exchange plans.

        Returns:
            16 digits.
        """
        data = [
            [group.name, group.channels, [(m.tensor, m.axis, m.role, _digest(m.index)) for m in group.members]]
            for group in self.groups
        ]
        shapes = sorted((name, list(info.shape)) for name, info in self.tensors.items())
        return hashlib.sha256(json.dumps([data, shapes]).encode()).hexdigest()[:16]


def _holders(group: ChannelGroup) -> list[str]:
    """Return the modules with a parameter that makes the channels or is added to them, also such parameters outside."""
    return [
        member.tensor.rpartition(".")[0] or member.tensor for member in group.members if member.role in ("out", "other")
    ]


def _matched(group: ChannelGroup, pattern: str) -> str:
    """Return the first name that matches, of the group or of a module that makes its channels; "" if none does."""
    modules = (member.tensor.rpartition(".")[0] for member in group.members if member.role == "out")
    return next((name for name in (group.name, *modules) if fnmatchcase(name, pattern)), "")


def _gone(part: PositionSpan, kept: Mapping[str, tuple[int, int]]) -> int | Fraction:
    """Return the positions of a span that are removed, exactly. kept: group -> channels that stay, and all of them."""
    stays, whole = 1, 1
    for name in part.groups:
        stays, whole = stays * kept[name][0], whole * kept[name][1]
    gone, rest = divmod(part.positions * (whole - stays), whole)
    return Fraction(gone * whole + rest, whole) if rest else gone


def _elements(shape: tuple[int, ...], lost: Mapping[int, int]) -> int:
    return math.prod(size - lost.get(axis, 0) for axis, size in enumerate(shape))


def _digest(index: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(index, dtype=np.int64).tobytes()).hexdigest()[:16]
