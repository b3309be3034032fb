"""Define the parts of an explanation, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.structure.cost import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis along which a group's channels lie.

    Attributes:
        tensor: Name in the state dict.
        axis: The axis.
        role: Use of the channels by the tensor, such as "out" for a weight that makes them.
        positions: Number of positions on the axis for each channel.
    """

    tensor: str
    axis: int
    role: str
    positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A group, block or layer that can be pruned.

    Attributes:
        name: Its name in plans and in `protect`.
        channels: Number of channels; None for blocks and layers.
        fewest: Fewest channels that a trial keeps; None for blocks and layers, and if it is not searched.
        layers: Modules that make the channels, the first one first.
        members: Axes along which the channels lie.
        exact: For blocks and layers: whether dropping is proved equal to zero weights; None for groups.
        saved: Cost that is saved by dropping it, or half of its channels.
        parameters: Saved share of the dense model's parameters, in [0, 1].
        multiply_adds: Saved share of the dense model's multiply-adds, in [0, 1].
    """

    name: str
    channels: int | None = None
    fewest: int | None = None
    layers: tuple[str, ...] = ()
    members: tuple[Axis, ...] = ()
    exact: bool | None = None
    saved: Cost
    parameters: float
    multiply_adds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stays:
    """A module that was a candidate for a kind and cannot be pruned that way.

    Attributes:
        module: Its name.
        kind: Name of the kind of reason.
        why: The reason, in words that follow the name.
        remedy: What the user can do about it.
        docs: Page and section of the docs.
        operator: The operator that causes it; "" if there is none.
        at: Module in which the operator runs.
        line: The line of code, if it is known.
    """

    module: str
    kind: str
    why: str
    remedy: str
    docs: str
    operator: str
    at: str
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """All parts of one kind.

    Attributes:
        kind: One of `StructureSettings.kinds`.
        searched: Whether the study chooses among them.
        goes: The amount that costs are given for: "half of each" or "each".
        parts: The parts, in the order of the forward.
        together: Blocks and layers that plans may name but that are no separate choice, as they only combine other
            parts.
        none: If there are no parts: the reason and the remedy; otherwise "".
        stay: Modules that were candidates for this kind.
    """

    kind: str
    searched: bool
    goes: str
    parts: tuple[Part, ...]
    together: tuple[str, ...]
    none: str
    stay: tuple[Stays, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Parameters that may be masked, or that may not for one reason.

    Attributes:
        tensors: Their names.
        parameters: Number of their entries.
        why: The reason for which they may not be masked; "" if they may.
    """

    tensors: tuple[str, ...]
    parameters: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """A model within reach of the search.

    Attributes:
        name: "smallest", "middle" or "largest".
        cost: Its cost.
        share: Share of the dense model's cost, in the unit of the budget.
        nonzero: Nonzero parameters under the sparsest masks; None if no masks are searched.
    """

    name: str
    cost: Cost
    share: float
    nonzero: int | None
