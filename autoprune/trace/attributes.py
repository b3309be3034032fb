"""Numbers that modules keep of a shape: which of them follow which group, and which follow a weight."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import nn

from autoprune.trace.topology import Attribute, ShapeAttribute
from autoprune.trace.tracer import Follower, Grid, Tracer

#: Where rows and columns are equally many, names with these parts are taken for the number of columns.
_WIDTH_WORDS = ("dim", "size", "width", "channel", "d_k", "d_v", "kv_proj")
#: Names that are never the length of a flattened grid, or of a side of one, however large they are.
_OTHER_WORDS = ("num_buckets", "max_", "_length", "position", "window", "vocab", "layer", "value_groups", "n_rep")
#: Names of the length of the axis that a weight makes, and of the one that it reads.
_OUT_WORDS, _IN_WORDS = ("out", "nf", "num_output"), ("in", "nx", "num_input")


class _Claim(NamedTuple):
    """A number of a module that may be the length of a side of a grid, or of the whole grid."""

    module: str
    name: str
    value: int
    nodes: npt.NDArray[np.int64]
    whole: bool


class Attributes:
    """The numbers that follow groups, found once the trace is complete.

    Looked for in the modules that reshape channels into a grid: whole numbers equal to the length of a side, or to
    the whole grid. Where one number is the length of several sides (the head width of query, key and value), these
    become the same channels. The proof tells whether the guess is right.
    """

    def __init__(self, tracer: Tracer, model: nn.Module) -> None:
        self._tracer, self._model = tracer, model
        self._claims = [claim for grid in tracer.grids for claim in _claims(tracer, model, grid)]
        self._claims += [
            _Claim(length.module, name, length.value, length.nodes, whole=False)
            for length in tracer.lengths
            for name, value in vars(model.get_submodule(length.module)).items()
            if type(value) is int and value == length.value
        ]
        self._couple()
        self._atoms = [(claim, _atoms(tracer, claim.nodes)) for claim in self._claims]
        self._followers = [(follower, _atoms(tracer, follower.nodes)) for follower in tracer.followers]

    def of(self, atoms: Sequence[int]) -> tuple[Attribute, ...]:
        """Attributes that follow the width of the group of `atoms`."""
        members = {self._tracer.labels.find(atom) for atom in atoms}
        found: dict[tuple[str, str], Attribute] = {}
        for claim, own in self._atoms:
            if own == members:
                found[claim.module, claim.name] = Attribute(module=claim.module, name=claim.name, value=claim.value)
        for follower, own in self._followers:
            if own == members:
                for attribute in _named(self._model, follower):
                    found[attribute.module, attribute.name] = attribute
        return tuple(found.values())

    def reshaped(self, atoms: Sequence[int]) -> tuple[str, ...]:
        """Modules that reshape an axis into a grid with the group of `atoms` as one side."""
        members = {self._tracer.labels.find(atom) for atom in atoms}
        return tuple(
            dict.fromkeys(
                grid.module
                for grid in self._tracer.grids
                if members & (_atoms(self._tracer, grid.rows) | _atoms(self._tracer, grid.columns))
            )
        )

    def hint(self, atoms: Sequence[int]) -> str:
        """What else the width of the group of `atoms` decides."""
        members = {self._tracer.labels.find(atom) for atom in atoms}
        for scaled in self._tracer.scaling:
            if members & _atoms(self._tracer, scaled.nodes):
                return f"sets the scale of the attention logits (in {scaled.module})"
        return ""

    def _couple(self) -> None:
        """Sides that share a number shrink together; where one of them has to stay, the number does."""
        labels = self._tracer.labels
        sides: dict[tuple[str, str], list[_Claim]] = defaultdict(list)
        for claim in self._claims:
            if not claim.whole:
                sides[claim.module, claim.name].append(claim)
        stuck = set()
        for key, claims in sides.items():
            if any(labels.reason(atom) for claim in claims for atom in _atoms(self._tracer, claim.nodes)):
                stuck.add(key)
                continue
            for claim in claims[1:]:
                labels.unify(claims[0].nodes, claim.nodes)
        self._claims = [claim for claim in self._claims if (claim.module, claim.name) not in stuck]


def _atoms(tracer: Tracer, nodes: npt.NDArray[np.int64]) -> set[int]:
    return {atom for node in nodes.tolist() for atom in tracer.labels.atoms(node)}


def _claims(tracer: Tracer, model: nn.Module, grid: Grid) -> Iterator[_Claim]:
    """Numbers of the module that are as large as a side of its grid, or as the grid."""
    found = set()
    sides = [(nodes, _distinct(tracer, nodes)) for nodes in (grid.rows, grid.columns)]
    for rows, columns in itertools.product(*sides):
        for name, value in vars(model.get_submodule(grid.module)).items():
            if type(value) is not int or name.startswith("_") or any(word in name for word in _OTHER_WORDS):
                continue
            names_width = any(word in name for word in _WIDTH_WORDS)
            for side, other, is_rows in ((rows, columns, True), (columns, rows, False)):
                if (name, is_rows) in found:
                    continue
                if value == len(side) and not (len(rows) == len(columns) and names_width == is_rows):
                    found.add((name, is_rows))
                    yield _Claim(grid.module, name, value, side, whole=False)
                elif value == len(side) * len(other):
                    found.add((name, is_rows))
                    yield _Claim(grid.module, name, value, side, whole=True)


def _distinct(tracer: Tracer, nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """One node of each class, in order: rows that are heads times batch count the heads once."""
    first = {tracer.labels.find(node): node for node in reversed(nodes.tolist())}
    return np.array(list(reversed(first.values())), dtype=np.int64)


def _named(model: nn.Module, follower: Follower) -> Iterator[Attribute]:
    """The number by its name in torch's modules, any number of that value and a like name in others."""
    numbers = vars(model.get_submodule(follower.module))
    names = [follower.name] if follower.name in numbers else [name for name in numbers if "group" in name]
    for name in names:
        if numbers[name] in (follower.value, (follower.value,)) and type(numbers[name]) in (int, tuple):
            yield Attribute(module=follower.module, name=name, value=follower.value)


def shape_attributes(tracer: Tracer, model: nn.Module) -> tuple[ShapeAttribute, ...]:
    """Numbers of modules outside torch that hold a weight, equal to the length of one of its axes."""
    found = []
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torch.nn."):
            continue
        prefix = f"{path}." if path else ""
        for name, value in vars(module).items():
            place = _axis_of(tracer, [prefix + own for own in module._parameters], name, value)
            if place is not None:
                found.append(ShapeAttribute(module=path, name=name, tensor=place[0], axis=place[1]))
    return tuple(found)


def _axis_of(tracer: Tracer, tensors: Sequence[str], name: str, value: object) -> tuple[str, int] | None:
    """The axis of a weight that is made or read and has that length; by the name where both have."""
    if type(value) is not int or value < 2 or name.startswith("_"):
        return None
    places = [
        (tracer.roles.get((tensor, axis), ""), tensor, axis)
        for tensor in tensors
        if tensor in tracer.named and tracer.named[tensor].ndim > 1
        for axis, size in enumerate(tracer.named[tensor].shape)
        if size == value and tracer.roles.get((tensor, axis)) in ("out", "in")
    ]
    if len({role for role, _, _ in places}) > 1:
        wanted = "out" if any(word in name for word in _OUT_WORDS) else "in" if _reads(name) else ""
        places = [place for place in places if place[0] == wanted]
    return places[0][1:] if places else None


def _reads(name: str) -> bool:
    return any(word in name for word in _IN_WORDS)
