"""Define blocks and layers that can be dropped whole, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """An axis along which the input and the output of a module may lose different channels.

    Attributes:
        axis: The axis, of both tensors.
        reads: Tensor of the module that holds the input's channels; "" where all of them stay.
        reads_axis: Axis of `reads` along which they lie.
        makes: Tensor of the module that holds the output's channels; "" where all of them stay.
        makes_axis: Axis of `makes` along which they lie.
    """

    axis: int
    reads: str
    reads_axis: int
    makes: str
    makes_axis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A module that is dropped, and the value that replaces its output.

    Attributes:
        module: Name of the module.
        source: Argument that replaces the output, by position or keyword.
        position: Place of the replaced value among the module's outputs; None for a bare tensor.
        outputs: Number of outputs.
        passes: (place of an output, argument that it repeats). All other outputs become None.
        single: None passes the argument on. Otherwise the replacement is zeros of the argument's shape, with length 1
            along these axes, so that they can be added to anything.
        lanes: Axes along which the replacement gets zeros for missing channels and loses others.
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
    """Modules that can be dropped together: a residual block, a branch, or a layer.

    Attributes:
        name: Name of the block: that of its largest module.
        gaps: Modules that are dropped, in the order of the forward. If the last gap leaves zeros, the block is a branch
            that is added to a value; otherwise it is a module that passes its input on.
        tensors: Parameters and buffers that are dropped with it.
        used_tensors: Tensors that it computes with: its own that the forward reads, and parameters of remaining modules
            that nothing else reads.
        entry: (module, argument) where a branch receives the value that it is added to; None where no module receives
            it.
        exact: Whether dropping it is proved equal to setting its weights to zero. Otherwise it is a layer, and only
            known is that the model runs without it.
        repeated: Whether it is a layer: a member of a list of modules, or one of several equal modules in a row.
        withholds: Whether other modules read a further output of it; they get None and may take another path.
        otherwise: Equivalent block to try if the proof refuses this one.
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
        """Whether zeros replace it, rather than its input."""
        return self.gaps[-1].single is not None

    @property
    def needed(self) -> frozenset[str]:
        """The tensors that it computes with, as a set. A model without them has lost the block."""
        return frozenset(self.used_tensors)

    def is_of(self, kind: str) -> bool:
        """Tell whether the block is of a kind.

        Args:
            kind: "blocks" (exact), "layers" (repeated), or any other kind, of which no block is.

        Returns:
            True where it is of that kind.
        """
        return {"blocks": self.exact, "layers": self.repeated}.get(kind, False)

    def matches(self, pattern: str) -> bool:
        """Tell whether a pattern matches the block or one of its modules.

        Args:
            pattern: Shell-style pattern of module names.

        Returns:
            True for the block's name, and for the module of any tensor that is dropped with it.
        """
        names = (self.name, *(tensor.rpartition(".")[0] for tensor in self.tensors))
        return any(fnmatchcase(name, pattern) for name in names)

    def holds(self, module: str) -> bool:
        """Tell whether a module is dropped with the block.

        Args:
            module: Name of the module.

        Returns:
            True for the block's modules and every module inside them.
        """
        return any(is_in(module, gap.module) for gap in self.gaps)


def is_in(path: str, module: str) -> bool:
    """Tell whether a name is a module or lies inside it.

    Args:
        path: Name of a module or tensor.
        module: Name of the module.

    Returns:
        True where `path` is `module` or begins with it and a dot.
    """
    return path == module or path.startswith(f"{module}.")


def enclosing_modules(path: str) -> Iterator[str]:
    """Yield the names of the modules around a module or tensor, the innermost first.

    Args:
        path: Name of the module or tensor.

    Yields:
        Names, without that of the model itself.
    """
    while path := path.rpartition(".")[0]:
        yield path


def fewest_blocks(blocks: Sequence[DroppableBlock], names: Iterable[str]) -> tuple[str, ...]:
    """Reduce names of blocks to the fewest that drop the same tensors.

    A part of another named block is left out. A block whose parts are all named replaces them.

    Args:
        blocks: All blocks of the model.
        names: Names of the blocks to drop.

    Returns:
        Names, sorted.
    """
    wanted = set(names)
    named = [block for block in blocks if block.name in wanted]
    gone = frozenset[str]().union(*(block.needed for block in named if block.exact))
    every = [block for block in blocks if block in named or (block.exact and block.needed <= gone)]
    return tuple(sorted(block.name for block in every if not any(is_part(block, other) for other in every)))


def independent_blocks(blocks: Sequence[DroppableBlock]) -> tuple[DroppableBlock, ...]:
    """Leave out blocks that only combine other exact blocks.

    Args:
        blocks: Blocks to choose from.

    Returns:
        The blocks that compute with a tensor that their exact parts do not use.
    """
    found = []
    for block in blocks:
        parts = [other.needed for other in blocks if other.exact and is_part(other, block)]
        if not (block.exact and block.needed <= frozenset[str]().union(*parts)):
            found.append(block)
    return tuple(found)


def is_part(block: DroppableBlock, other: DroppableBlock) -> bool:
    """Tell whether dropping one block drops another one entirely.

    Args:
        block: The block that may be a part.
        other: The block that is dropped.

    Returns:
        True where nothing of `block` is left.
    """
    if block == other:
        return False
    return block.needed < other.needed or (block.needed == other.needed and block.exact and not other.exact)
