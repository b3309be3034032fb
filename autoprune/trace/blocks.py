"""Block: what can go whole, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """An axis along which what a module takes and what it gives may lose different channels.

    axis: of both. reads, reads_axis: a tensor of the module and its axis with the channels that it takes; "" where all
        of them stay. makes, makes_axis: with those that it gives.
    """

    axis: int
    reads: str
    reads_axis: int
    makes: str
    makes_axis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A module that goes, and what stands in its place.

    module: its name. source: the argument that is handed on, by position or keyword.
    position, outputs: the place of the result among the module's outputs, and how many there are; position is None
        for a bare tensor.
    passes: places of outputs that are arguments, and which. The others become None.
    single: None hands the argument on. Axes: zeros of the argument's shape, with one place along these axes, so that
        they can be added to anything.
    lanes: axes along which channels of the argument that are gone come back as zeros, and others go.
    """

    module: str
    source: int | str
    position: int | None = None
    outputs: int = 1
    passes: tuple[tuple[int, int | str], ...] = ()
    single: tuple[int, ...] | None = None
    lanes: tuple[Lane, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppableBlock:
    """Modules that can go whole.

    name: the module that is meant; of several the largest.
    gaps: the modules that go, in the order of the forward. Where the last one leaves zeros, the block is a branch that
        is added to something; else it is a module that hands its input on.
    tensors: parameters and buffers that go with it.
    used_tensors: tensors that it computes with: its own that the forward reads, and parameters of modules that stay
        and that nothing else reads.
    entry: module and argument where a branch is given what it is added to; None where no module is.
    exact: proved equal to the model with the block's weights at zero; else a layer of which no more is known than that
        the model runs without it.
    repeated: a layer: a member of a list of modules, or one of several equal modules in a row.
    withholds: something else that it gives is read by others, which then get None and may take another way.
    otherwise: what means the same, for the proof to try where this is wrong.
    """

    name: str
    gaps: tuple[Gap, ...]
    tensors: tuple[str, ...]
    used_tensors: tuple[str, ...]
    entry: tuple[str, int | str] | None = None
    exact: bool = True
    repeated: bool = False
    withholds: bool = False
    otherwise: DroppableBlock | None = None

    @property
    def is_branch(self) -> bool:
        """Whether zeros take its place, and not its input."""
        return self.gaps[-1].single is not None

    @property
    def needed(self) -> frozenset[str]:
        """What it computes with, as a set: without these the model has lost it."""
        return frozenset(self.used_tensors)

    def is_of(self, kind: str) -> bool:
        """Whether it is one of the "blocks", proved to be exact, or one of the "layers"; of no other kind."""
        return {"blocks": self.exact, "layers": self.repeated}.get(kind, False)

    def matches(self, pattern: str) -> bool:
        """True where a shell-style pattern is of its name, or of a module that goes with it."""
        names = (self.name, *(tensor.rpartition(".")[0] for tensor in self.tensors))
        return any(fnmatchcase(name, pattern) for name in names)

    def holds(self, module: str) -> bool:
        """True for its modules and for what is inside them."""
        return any(is_in(module, gap.module) for gap in self.gaps)


def is_in(path: str, module: str) -> bool:
    """Whether a name is that of a module, or of something inside it."""
    return path == module or path.startswith(f"{module}.")


def enclosing_modules(path: str) -> Iterator[str]:
    """The names of the modules that something is inside of, the innermost first."""
    while path := path.rpartition(".")[0]:
        yield path


def fewest_blocks(blocks: Sequence[DroppableBlock], names: Iterable[str]) -> tuple[str, ...]:
    """The fewest of the blocks that mean the same as dropping those of these names, sorted.

    A block that is a part of another one goes with it, and one whose parts are all named is named for them.
    """
    wanted = set(names)
    named = [block for block in blocks if block.name in wanted]
    gone = frozenset[str]().union(*(block.needed for block in named if block.exact))
    every = [block for block in blocks if block in named or (block.exact and block.needed <= gone)]
    return tuple(sorted(block.name for block in every if not any(is_part(block, other) for other in every)))


def independent_blocks(blocks: Sequence[DroppableBlock]) -> tuple[DroppableBlock, ...]:
    """The blocks without those that are nothing but exact ones among them taken together."""
    found = []
    for block in blocks:
        parts = [other.needed for other in blocks if other.exact and is_part(other, block)]
        if not (block.exact and block.needed <= frozenset[str]().union(*parts)):
            found.append(block)
    return tuple(found)


def is_part(block: DroppableBlock, other: DroppableBlock) -> bool:
    """Whether dropping the other one leaves nothing of a block."""
    if block == other:
        return False
    return block.needed < other.needed or (block.needed == other.needed and block.exact and not other.exact)
