"""Explanation: what can be pruned of a model, what a study searches of that, and what is left alone, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.codec import to_plain_object
from autoprune.explaining.text import explanation_text
from autoprune.space.settings import SpaceSettings
from autoprune.study.left_alone import Cause, causes
from autoprune.study.manifest import UnprunableModule
from autoprune.trace.topology import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis that a group's channels run along.

    Args:
        tensor: Name in the state dict.
        axis: Which one.
        role: What the tensor does with the channels, such as "out" for a weight that makes them.
        positions: How many positions of the axis go with each channel.

    """

    tensor: str
    axis: int
    role: str
    positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A group, a block or a layer that can go.

    Args:
        name: What plans and `protect` call it.
        channels: How many it has; None for what goes whole.
        fewest: Fewest that a trial keeps; None for what goes whole or is not searched.
        layers: Modules that make the channels, the first one first.
        members: Where the channels lie.
        exact: Of what goes whole: proved equal to the model with its weights at zero; None for groups.
        saved: What goes with it, and with half of its channels.
        parameters: The same as a share of the dense model's, in [0, 1].
        multiply_adds: The same as a share of the dense model's, in [0, 1].

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
    """A module that might have been a part of a kind, and is none.

    Args:
        module: Its name.
        kind: Name of the kind of reason.
        why: The reason, in words that follow the name.
        remedy: What to do about it.
        docs: Page and section that say more.
        operator: What it is due to; "" where no operator is.
        at: The module in which that is.
        line: The line of code, as far as it is known.

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

    Args:
        kind: Of `SpaceSettings.kinds`.
        searched: The study chooses among them.
        goes: What the numbers are of: "half of each" or "each".
        parts: In the order of the forward.
        together: Blocks and layers that plans may name and that are no choice of their own, as they are nothing but
            other parts together.
        none: Why there are none, and what to do; "" where there are some.
        stay: What might have been of this kind.

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
    """Parameters by whether masks of single weights may be laid on them.

    Args:
        tensors: Their names.
        parameters: How many numbers they hold.
        why: Why they may not be masked; "" where they may.

    """

    tensors: tuple[str, ...]
    parameters: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """A model within reach of the search.

    Args:
        name: "smallest", "middle" or "largest".
        cost: What it costs.
        share: Of the dense model's cost that budgets are shares of.
        nonzero: Parameters that are not zero under the sparsest masks; None where no masks are searched.

    """

    name: str
    cost: Cost
    share: float
    nonzero: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What `explain` says of a model.

    Args:
        task: What is predicted, in words.
        model: Costs of the dense model on the example inputs.
        space: What the study searches.
        sections: What can go, kind by kind.
        weights: What can be masked, and what cannot and why.
        left_alone: Layers of which some channels stay, each with the reason, the place and what to do.
        reach: The smallest, a middle and the largest model within reach; none where only masks are searched.
        notes: What else is to be known, in sentences.

    """

    task: str = ""
    model: Cost
    space: SpaceSettings
    sections: tuple[Section, ...]
    weights: tuple[Weights, ...]
    left_alone: tuple[UnprunableModule, ...]
    reach: tuple[Reach, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return self.text()

    def text(self, *, everything: bool = False) -> str:
        """Write what the command line prints.

        Args:
            everything: Name all layers and tensors where there are many alike. Groups, blocks and layers that can go
                are all named in any case, by their whole names.

        """
        return explanation_text(self, everything=everything)

    def to_dict(self) -> dict[str, object]:
        """Make what `--json` prints."""
        return to_plain_object(self)

    def causes(self) -> list[Cause]:
        """Group what is left alone by reason and place, what keeps the most multiply-adds first."""
        return causes(self.left_alone)
