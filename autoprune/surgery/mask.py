"""Mask a model: silence channels and blocks in a dense copy. A proof compares cuts with masks."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.plan.kept import KeptChannels
from autoprune.structure.topology import Topology
from autoprune.surgery.masked_operators import STATISTICS
from autoprune.surgery.positions import alive_positions
from autoprune.surgery.skip import skip
from autoprune.task.clone import clone_with, drop_cached_tensors, share_parameters
from autoprune.task.data import Inputs, call
from autoprune.trace.dispatch import Tracer
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.hooks import track_modules
from autoprune.trace.observations import OperatorStep
from autoprune.trace.running import plain_operators
from autoprune.trace.union_find import ChannelUnionFind
from autoprune.trace.values import clone_inputs
from autoprune.trace.watch import run

Args = tuple[object, ...]
#: Operator that only changes the dtype of values.
_CHANGES_TYPE = "_to_copy"


def mask(model: nn.Module, topology: Topology, kept: KeptChannels) -> nn.Module:
    """Copy the dense model with every parameter entry of the removed channels and blocks set to zero.

    In eval mode the copy computes what `cut` computes: the layers that read a silenced channel have zero weights for
    it. If a layer combines its channels (LayerNorm, GroupNorm, a mean over channels, a softmax), zeros would still
    count; the forward of the copy then takes such statistics over the channels that stay. Layers that are not exact
    pass their input on, as they do in a cut.

    Args:
        model: The dense model.
        topology: Its topology.
        kept: Channels and blocks that stay.

    Returns:
        The copy.
    """
    kept.check(topology)
    return _silenced(clone_with(model), topology, kept, alive_positions(topology, kept), None)


def mask_traced(
    model: nn.Module, topology: Topology, kept: KeptChannels, traced: ChannelGraph, left: Container[str] = ()
) -> tuple[nn.Module, dict[str, dict[int, Tensor]]]:
    """Mask a model for a forward on the inputs of a known trace, which saves tracing it again.

    Args:
        model: The dense model in eval mode.
        topology: Its topology.
        kept: The channels and blocks that stay.
        traced: The channels of a trace on the inputs that the copy will be called with.
        left: Names of parameters that stay unchanged; the caller silences them when it runs the copy.

    Returns:
        A copy that computes what `mask` computes; parameters that lose nothing are shared with `model`. Then, for each
        parameter that is left, the positions that stay on its axes.
    """
    kept.check(topology)
    alive = alive_positions(topology, kept)
    gone = {name for block in topology.dropped(kept.dropped) for name in block.tensors}
    changed = {name for name, _ in alive} | gone
    staying: dict[str, dict[int, Tensor]] = {name: {} for name in changed if name in left}
    for (name, axis), positions in alive.items():
        if name in staying:
            staying[name][axis] = positions
    for name in gone & staying.keys():
        staying[name][0] = torch.empty(0, dtype=torch.int64)
    masked = share_parameters(model, but=changed - staying.keys())
    return _silenced(masked, topology, kept, alive, traced, staying), staying


def _silenced(
    model: nn.Module,
    topology: Topology,
    kept: KeptChannels,
    alive: Mapping[tuple[str, int], Tensor],
    traced: ChannelGraph | None,
    left: Container[str] = (),
) -> nn.Module:
    """Mask a copy in place, but for parameters `left`. traced: channels of a trace on the inputs to come, if any."""
    _silence(model, topology, kept, alive, left)
    known = None if _skip_layers(model, topology, kept, alive) else traced
    return _with_statistics(model, alive, known) if topology.has_statistics else model


def _skip_layers(
    model: nn.Module, topology: Topology, kept: KeptChannels, alive: Mapping[tuple[str, int], Tensor]
) -> bool:
    """Replace dropped layers that are not exact by their input; return whether there are any."""
    layers = [block for block in topology.dropped(kept.dropped) if not block.exact]
    for layer in layers:
        skip(model, layer, topology, alive, whole=True)
    return len(layers) > 0


def _silence(
    model: nn.Module,
    topology: Topology,
    kept: KeptChannels,
    alive: Mapping[tuple[str, int], Tensor],
    left: Container[str],
) -> None:
    """Set the removed parameter entries to zero, in place. alive: positions that stay on each axis."""
    tensors = {name: parameter for name, parameter in model.named_parameters() if name not in left}
    with torch.no_grad():
        for name in (tensor for block in topology.dropped(kept.dropped) for tensor in block.tensors):
            if name in tensors:
                tensors[name].zero_()
        for (name, axis), positions in alive.items():
            if name in tensors:
                gone = torch.ones(tensors[name].shape[axis], dtype=torch.bool)
                gone[positions] = False
                tensors[name].index_fill_(axis, gone.nonzero().squeeze(1).to(tensors[name].device), 0)
    drop_cached_tensors(model)


def _with_statistics(
    plain: nn.Module, alive: Mapping[tuple[str, int], Tensor], traced: ChannelGraph | None
) -> nn.Module:
    """Wrap a silenced model: its statistics over channels leave out the silenced ones.

    For proofs, not for speed: unless a trace is given, each call runs the model twice, once to trace the channels and
    once to compute. The parameters keep their names.
    """
    model = plain.__class__.__new__(plain.__class__)
    model.__dict__.update(plain.__dict__)

    def forward(*args: object, **kwargs: object) -> object:
        inputs: Inputs = kwargs if kwargs else args
        graph = run(plain, inputs)[0] if traced is None else traced
        gone = _gone(graph, alive)
        with plain_operators(plain), _Statistics(graph, gone) as statistics:
            outputs = call(plain, clone_inputs(inputs))
        if statistics.finished:
            return outputs
        # Values decide on the path, as where tokens are sent to experts: follow the channels along the new path.
        following = _Following(plain, graph, gone)
        with plain_operators(plain), track_modules(plain, following.graph), following:
            return call(plain, inputs)

    model.__dict__["forward"] = forward
    return model


def _gone(graph: ChannelGraph, alive: Mapping[tuple[str, int], Tensor]) -> npt.NDArray[np.bool_]:
    """Tell for each node of the trace whether its class is silenced."""
    union_find = graph.union_find
    gone = np.zeros(union_find.count, dtype=bool)
    for (name, axis), positions in alive.items():
        if name not in graph.owned:
            continue  # tensor of a dropped layer
        nodes = graph.owned[name][axis]
        assert nodes is not None
        stays = np.zeros(len(nodes), dtype=bool)
        stays[positions.numpy()] = True
        # An atom of a product is silenced only if it is removed at every position that it holds.
        gone[np.setdiff1d(union_find.atoms_of(nodes[~stays]), union_find.atoms_of(nodes[stays]))] = True
    return gone


class _Statistics(TorchDispatchMode):
    """Runs operators that combine channels over the channels that stay, in the steps of a trace."""

    def __init__(self, traced: ChannelGraph, gone: npt.NDArray[np.bool_]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._traced, self._gone, self._step = traced, gone, 0
        # In another precision a model has other dtype changes.
        self._steps = [step for step in traced.steps if step.name != _CHANGES_TYPE]
        self._known: dict[int, Tensor | None] = {}

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: Args = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        del types
        name, first = func.overloadpacket.__name__, args[0] if args else None
        step = self._steps[self._step] if self._step < len(self._steps) else None
        if step is None or OperatorStep.of(name, first, step.axes) != step:
            return func(*args, **(kwargs or {}))  # not an operator of the model: a hook, or a step of autograd
        self._step += 1
        statistic = STATISTICS.get(name)
        if statistic is None or not step.axes:
            return func(*args, **(kwargs or {}))
        alive = [None if nodes is None else self._positions(nodes) for nodes in step.axes]
        return statistic(func, args, kwargs or {}, alive)

    @property
    def finished(self) -> bool:
        """Whether the model took all steps of its trace."""
        return self._step == len(self._steps)

    def _positions(self, nodes: npt.NDArray[np.int64]) -> Tensor | None:
        if id(nodes) not in self._known:  # arrays of the trace, which outlive this
            self._known[id(nodes)] = _staying(self._traced.union_find, self._gone, nodes)
        return self._known[id(nodes)]


class _Following(Tracer):
    """Does the same as `_Statistics` on a new path, with the channels of a known trace."""

    def __init__(self, model: nn.Module, traced: ChannelGraph, gone: npt.NDArray[np.bool_]) -> None:
        super().__init__(ChannelGraph(model))
        self.graph.union_find = copy.deepcopy(
            traced.union_find
        )  # parameters have the same nodes in every trace of a model
        self._gone = gone

    def computed(self, func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object]) -> object:
        """Run an operator over the channels that stay."""
        statistic = STATISTICS.get(func.overloadpacket.__name__)
        axes = self.graph.steps[-1].axes
        if statistic is None or not axes:
            return func(*args, **kwargs)
        return statistic(
            func, args, kwargs, [None if n is None else _staying(self.graph.union_find, self._gone, n) for n in axes]
        )


def _staying(union_find: ChannelUnionFind, gone: npt.NDArray[np.bool_], nodes: npt.NDArray[np.int64]) -> Tensor | None:
    """Return the positions of an axis that stay; None for all of them."""
    stays = np.flatnonzero(~union_find.marked(nodes, gone))
    return None if len(stays) == len(nodes) else torch.from_numpy(stays)
