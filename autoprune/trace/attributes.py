"""Numbers that modules keep of a shape: which of them follow which group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from autoprune.trace.topology import Attribute
from autoprune.trace.tracer import Follower, Grid, Tracer

#: Where rows and columns are equally many, names with these parts are taken for the number of columns.
_WIDTH_WORDS = ("dim", "size", "width", "channel")


def attributes_of(tracer: Tracer, model: nn.Module, atoms: Sequence[int]) -> tuple[Attribute, ...]:
    """Attributes that follow the width of the group of `atoms`.

    Looked for in the modules that reshape the group's channels into a grid, of which the group is one side:
    whole numbers equal to the length of that side, or to the whole grid. The proof tells whether the guess is
    right.
    """
    members = {tracer.labels.find(atom) for atom in atoms}
    found: dict[tuple[str, str], Attribute] = {}
    for grid in tracer.grids:
        for side, is_rows in ((grid.rows, True), (grid.columns, False)):
            own = {atom for node in side.tolist() for atom in tracer.labels.atoms(node)}
            if own == members:
                for attribute in _numbers(model, grid, is_rows):
                    found[attribute.module, attribute.name] = attribute
    for follower in tracer.followers:
        own = {atom for node in follower.nodes.tolist() for atom in tracer.labels.atoms(node)}
        if own == members:
            for attribute in _named(model, follower):
                found[attribute.module, attribute.name] = attribute
    return tuple(found.values())


def _named(model: nn.Module, follower: Follower) -> Iterator[Attribute]:
    """The number by its name in torch's modules, any number of that value and a like name in others."""
    numbers = vars(model.get_submodule(follower.module))
    names = [follower.name] if follower.name in numbers else [name for name in numbers if "group" in name]
    for name in names:
        if type(numbers[name]) is int and numbers[name] == follower.value:
            yield Attribute(module=follower.module, name=name, value=follower.value)


def _numbers(model: nn.Module, grid: Grid, is_rows: bool) -> Iterator[Attribute]:
    rows, columns = len(grid.rows), len(grid.columns)
    for name, value in vars(model.get_submodule(grid.module)).items():
        if type(value) is not int or name.startswith("_"):
            continue
        names_width = any(word in name for word in _WIDTH_WORDS)
        if value == rows == columns:
            follows = is_rows != names_width
        else:
            follows = value in (rows * columns, rows if is_rows else columns)
        if follows:
            yield Attribute(module=grid.module, name=name, value=value)
