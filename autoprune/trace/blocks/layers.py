"""Find layers: members of lists of modules that can be dropped, also if they add nothing to their input."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import nn

from autoprune.structure.blocks import DroppableBlock, Gap, Lane, enclosing_modules, is_in
from autoprune.structure.reasons import NO_ROW, RESHAPING, SHARED, UNCLEAR, ReasonKind
from autoprune.trace.blocks.owners import Owners
from autoprune.trace.flow import ModuleCall, PassedTensor
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.union_find import AxisNodes


def find_layers(
    graph: ChannelGraph, model: nn.Module, owners: Owners, blocks: Sequence[DroppableBlock]
) -> tuple[tuple[DroppableBlock, ...], Mapping[str, ReasonKind]]:
    """Mark the blocks that are layers, and add equal modules in a row that are no blocks.

    Args:
        graph: The channels of a finished trace.
        model: The model that was traced.
        owners: Tensors that belong to its modules.
        blocks: The blocks found so far.

    Returns:
        All blocks in the order of the modules; and, for modules that compute products and are no layers, the reason.
    """
    return _Finder(graph, model, owners, blocks).found()


class _Finder:
    """Modules of a trace, with their calls and the rows of equal modules."""

    def __init__(self, graph: ChannelGraph, model: nn.Module, owners: Owners, blocks: Sequence[DroppableBlock]) -> None:
        self.graph, self.flow, self.blocks = graph, graph.flow, {block.name: block for block in blocks}
        self.modules = dict(model.named_modules())
        self.owners = owners
        self.calls = self.flow.by_module()
        self.computing = {path for weight in graph.positions for path in enclosing_modules(weight)}
        # A module that serves a branch of another module belongs to that branch, even if its parts are equal.
        read = ((block, name.rpartition(".")[0]) for block in blocks for name in block.used_tensors)
        self.serving = {path for block, path in read if not block.holds(path)} - self.blocks.keys()
        self.runs = list(self._runs())
        self.repeated = {path for run in self.runs for path in run}
        deep = [run for run in self.runs if next(self.modules[run[0]].children(), None) is not None]
        # A module that holds a row of layers is no layer itself, except for a block made of equal parts.
        self.stacks = {
            path
            for run in deep
            for path in enclosing_modules(run[0])
            if path not in self.repeated and (path not in self.blocks or run[0] in self.blocks)
        }

    def found(self) -> tuple[tuple[DroppableBlock, ...], Mapping[str, ReasonKind]]:
        chosen: dict[str, DroppableBlock] = {}
        closed: list[str] = []
        reasons: dict[str, ReasonKind] = {}
        for path in self.modules:
            if path not in self.computing or path in self.stacks or any(is_in(path, one) for one in closed):
                continue
            block = self.blocks.get(path)
            made = self._exact(block) if block is not None else self._layer(path)
            if isinstance(made, DroppableBlock):
                chosen[path] = made
                if not made.repeated:
                    reasons[path] = NO_ROW
                closed += [path] if block is None else [gap.module for gap in block.gaps]
            elif path in self.calls:
                reasons[path] = made
        every = {**self.blocks, **chosen}
        return tuple(every[path] for path in self.modules if path in every), reasons

    def _exact(self, block: DroppableBlock) -> DroppableBlock:
        """Return a block, marked as a layer if it is a member of a list or of several equal modules in a row."""
        parent = self.modules[block.name.rpartition(".")[0]]
        if block.name not in self.repeated and not isinstance(parent, nn.ModuleList | nn.Sequential | nn.ModuleDict):
            return block
        other = self._layer(block.name) if not block.is_branch else None
        return _marked(block, other if isinstance(other, DroppableBlock) else None)

    def _layer(self, path: str) -> DroppableBlock | ReasonKind:
        """Return a module as a layer that passes its input on, or the reason why it is none."""
        gaps = {self._gap(call) for call in self.calls.get(path, ())}
        tensors = self.owners.tensors((path,))
        gap = gaps.pop() if len(gaps) == 1 else UNCLEAR
        if isinstance(gap, ReasonKind):
            return gap
        if path not in self.repeated:
            return NO_ROW
        if tensors is None:
            return SHARED
        reads = self.owners.read_by(self.calls[path], gap, tensors)
        return DroppableBlock(name=path, gaps=(gap,), tensors=tensors, used_tensors=reads, exact=False, repeated=True)

    def _gap(self, call: ModuleCall) -> Gap | ReasonKind:
        gave = self.flow.leaving(call)
        if not gave or not any(_alike(took, one) for took in call.took for one in gave):
            return RESHAPING
        fitting = [took for took in call.took if _alike(took, gave[0])]
        lanes = self._lanes(call.module, fitting[0], gave[0]) if len(gave) == 1 and fitting else None
        if lanes is None:
            return UNCLEAR
        return call.gap(fitting[0].place, gave[0], lanes=lanes)

    def _lanes(self, module: str, took: PassedTensor, gave: PassedTensor) -> tuple[Lane, ...] | None:
        """Return the axes along which input and output may lose different channels; None if no tensor tells which."""
        found = []
        for axis, (read, made) in enumerate(zip(took.axes, gave.axes, strict=True)):
            if self.graph.union_find.stay_alike(read, made):
                continue
            sides = self._side(module, read), self._side(module, made)
            if None in sides:
                return None
            (reads, reads_axis), (makes, makes_axis) = (side or ("", 0) for side in sides)
            found.append(Lane(axis=axis, reads=reads, reads_axis=reads_axis, makes=makes, makes_axis=makes_axis))
        return tuple(found)

    def _side(self, module: str, nodes: AxisNodes) -> tuple[str, int] | None:
        """Return the (tensor, axis) of the module with these channels; ("", 0) if all of them stay, None if there is no
        such axis.
        """
        union_find = self.graph.union_find
        if nodes is None or union_find.stay(nodes):
            return "", 0
        roots = union_find.roots(nodes).tolist()
        for name, axes in self.graph.owned.items():
            for axis, own in enumerate(axes if name.startswith(f"{module}.") else ()):
                if own is not None and union_find.roots(own).tolist() == roots:
                    return name, axis
        return None

    def _runs(self) -> Iterator[list[str]]:
        """Yield rows of equal children of one module, each computed from the output of the one before."""
        alike: dict[object, list[str]] = {}
        for path, module in self.modules.items():
            if path in self.calls and path in self.computing and path not in self.serving:
                shapes = tuple((name, tuple(tensor.shape)) for name, tensor in module.state_dict().items())
                alike.setdefault((path.rpartition(".")[0], type(module), shapes), []).append(path)
        for paths in alike.values():
            ordered = sorted(paths, key=lambda path: self.calls[path][0].ended)
            for follows, run in itertools.groupby(itertools.pairwise(ordered), lambda pair: self._follows(*pair)):
                if follows:
                    yield list(dict.fromkeys(path for pair in run for path in pair))

    def _follows(self, first: str, second: str) -> bool:
        given = {passed.value for passed in self.calls[first][0].gave}
        taken = [passed.value for passed in self.calls[second][0].took]
        return any(given & self.flow.ancestors(value, down_to=min(given)) for value in taken) if given else False


def _marked(block: DroppableBlock, last: DroppableBlock | None) -> DroppableBlock:
    """Mark a block and its alternatives as layers, and append one more alternative."""
    otherwise = last if block.otherwise is None else _marked(block.otherwise, last)
    return replace(block, repeated=True, otherwise=otherwise)


def _alike(took: PassedTensor, gave: PassedTensor) -> bool:
    return took.shape == gave.shape and took.dtype == gave.dtype and took.value != gave.value
