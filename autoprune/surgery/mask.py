"""mask: the dense model with channels silenced, as it would compute without them. The other half of the proof."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.criteria.kept import KeptChannels, alive_positions
from autoprune.surgery.skip import skip
from autoprune.task.clone import clone_with, drop_cached_tensors, share_parameters
from autoprune.task.data import Inputs, call
from autoprune.trace.modules import track_modules
from autoprune.trace.observations import OperatorStep
from autoprune.trace.rules import POWERS, REDUCTIONS, reduced_axes
from autoprune.trace.running import plain_operators
from autoprune.trace.topology import Topology
from autoprune.trace.tracer import Tracer
from autoprune.trace.union_find import ChannelUnionFind
from autoprune.trace.values import clone_inputs
from autoprune.trace.watch import run

Args = tuple[object, ...]
#: The operator that only changes the type of values.
_CHANGES_TYPE = "_to_copy"
#: (operator, arguments, positions alive on each axis of the first argument) -> result, None to run it as it is.
Statistic = Callable[[torch._ops.OpOverload, Args, Mapping[str, object], Sequence[Tensor | None]], object]


def mask(model: nn.Module, topology: Topology, kept: KeptChannels) -> nn.Module:
    """A copy of the dense model with every parameter entry of the channels and blocks that go set to zero.

    Layers that are not exact hand on their input, as they do in a cut.

    In eval mode it computes what `cut` computes: the layers that read a silenced channel have zero weights for
    it. Where a layer looks at its channels together (LayerNorm, GroupNorm, a mean over channels, a softmax) zeros
    would still count; then the copy is wrapped, and its forward takes such statistics over the channels that stay.
    """
    kept.check(topology)
    return _silenced(clone_with(model), topology, kept, alive_positions(topology, kept), None)


def mask_traced(model: nn.Module, topology: Topology, kept: KeptChannels, traced: Tracer) -> nn.Module:
    """Mask a model for a forward on the inputs of a trace, which saves tracing it again.

    Args:
        model: The dense model in eval mode.
        topology: Its topology.
        kept: The channels and blocks that stay.
        traced: A trace of the model on the inputs that the copy will be called with.

    Returns:
        A copy that computes what `mask` computes, and shares the parameters that lose nothing with `model`.
    """
    kept.check(topology)
    alive = alive_positions(topology, kept)
    gone = topology.dropped(kept.dropped)
    changed = {name for name, _ in alive} | {name for block in gone for name in block.tensors}
    return _silenced(share_parameters(model, but=changed), topology, kept, alive, traced)


def _silenced(
    model: nn.Module,
    topology: Topology,
    kept: KeptChannels,
    alive: Mapping[tuple[str, int], Tensor],
    traced: Tracer | None,
) -> nn.Module:
    """Mask a copy in place. traced: a trace on the inputs to come; None to trace every forward."""
    _silence(model, topology, kept, alive)
    known = None if _skip_layers(model, topology, kept, alive) else traced
    return _with_statistics(model, alive, known) if topology.has_statistics else model


def _skip_layers(
    model: nn.Module, topology: Topology, kept: KeptChannels, alive: Mapping[tuple[str, int], Tensor]
) -> bool:
    """Put what hands on its input in the place of layers that are not exact; whether there are any."""
    layers = [block for block in topology.dropped(kept.dropped) if not block.exact]
    for layer in layers:
        skip(model, layer, topology, alive, whole=True)
    return len(layers) > 0


def _silence(model: nn.Module, topology: Topology, kept: KeptChannels, alive: Mapping[tuple[str, int], Tensor]) -> None:
    """Set the parameter entries that go to zero, in place. alive: positions that stay on each axis."""
    tensors = dict(model.named_parameters())
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


def _with_statistics(plain: nn.Module, alive: Mapping[tuple[str, int], Tensor], traced: Tracer | None) -> nn.Module:
    """A silenced model with a forward whose statistics over channels leave out the silenced ones.

    For proofs, not for speed: unless it is given a trace, each call runs the model twice, once to learn which
    channels are the same and once to compute. The parameters keep their names.
    """
    model = plain.__class__.__new__(plain.__class__)
    model.__dict__.update(plain.__dict__)

    def forward(*args: object, **kwargs: object) -> object:
        inputs: Inputs = kwargs if kwargs else args
        tracer = run(plain, inputs)[0] if traced is None else traced
        gone = _gone(tracer, alive)
        with plain_operators(plain), _Statistics(tracer, gone) as statistics:
            outputs = call(plain, clone_inputs(inputs))
        if statistics.finished:
            return outputs
        # Values decide on the path, as where tokens are sent to experts: follow the channels along the new one.
        following = _Following(plain, tracer, gone)
        with plain_operators(plain), track_modules(plain, following), following:
            return call(plain, inputs)

    model.__dict__["forward"] = forward
    return model


def _gone(tracer: Tracer, alive: Mapping[tuple[str, int], Tensor]) -> npt.NDArray[np.bool_]:
    """For each node of the trace, whether it stands for a class of channels that is silenced."""
    union_find = tracer.union_find
    gone = np.zeros(union_find.count, dtype=bool)
    for (name, axis), positions in alive.items():
        if name not in tracer.owned:
            continue  # of a layer that is gone
        nodes = tracer.owned[name][axis]
        assert nodes is not None
        stays = np.zeros(len(nodes), dtype=bool)
        stays[positions.numpy()] = True
        # Of a product's atoms only those that are gone at every position they hold are gone themselves.
        gone[np.setdiff1d(union_find.atoms_of(nodes[~stays]), union_find.atoms_of(nodes[stays]))] = True
    return gone


class _Statistics(TorchDispatchMode):
    """Runs operators that look across channels on the channels that stay, in the steps of a trace."""

    def __init__(self, traced: Tracer, gone: npt.NDArray[np.bool_]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._traced, self._gone, self._step = traced, gone, 0
        # In another precision a model has other types to change.
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
            return func(*args, **(kwargs or {}))  # not the model's own: a hook, or a step of autograd
        self._step += 1
        statistic = STATISTICS.get(name)
        if statistic is None or not step.axes:
            return func(*args, **(kwargs or {}))
        alive = [None if nodes is None else self._positions(nodes) for nodes in step.axes]
        return statistic(func, args, kwargs or {}, alive)

    @property
    def finished(self) -> bool:
        """Whether the model took all the steps of its trace."""
        return self._step == len(self._steps)

    def _positions(self, nodes: npt.NDArray[np.int64]) -> Tensor | None:
        if id(nodes) not in self._known:  # arrays of the trace, which outlive this
            self._known[id(nodes)] = _staying(self._traced.union_find, self._gone, nodes)
        return self._known[id(nodes)]


class _Following(Tracer):
    """As `_Statistics`, on a path of its own; what is the same channel is known from a trace of another."""

    def __init__(self, model: nn.Module, traced: Tracer, gone: npt.NDArray[np.bool_]) -> None:
        super().__init__(model)
        self.union_find = copy.deepcopy(traced.union_find)  # parameters have the same nodes in every trace of a model
        self._gone = gone

    def computed(self, func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object]) -> object:
        """On the channels that stay."""
        statistic = STATISTICS.get(func.overloadpacket.__name__)
        axes = self.steps[-1].axes
        if statistic is None or not axes:
            return func(*args, **kwargs)
        return statistic(
            func, args, kwargs, [None if n is None else _staying(self.union_find, self._gone, n) for n in axes]
        )


def _staying(union_find: ChannelUnionFind, gone: npt.NDArray[np.bool_], nodes: npt.NDArray[np.int64]) -> Tensor | None:
    """Positions of an axis that are not gone; None for all of them."""
    stays = np.flatnonzero(~union_find.marked(nodes, gone))
    return None if len(stays) == len(nodes) else torch.from_numpy(stays)


def _layer_norm(
    func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object], alive: Sequence[Tensor | None]
) -> object:
    source, shape, weight, bias, *rest = args
    positions = alive[-1]
    assert isinstance(source, Tensor) and isinstance(shape, list | tuple)
    if positions is None or len(shape) != 1:
        return func(*args, **kwargs)
    parts = [tensor[positions] if isinstance(tensor, Tensor) else None for tensor in (weight, bias)]
    out, *others = func(source.index_select(-1, positions), [len(positions)], *parts, *rest, **kwargs)
    return (source.new_zeros(source.shape).index_copy(-1, positions, out), *others)


def _group_norm(
    func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object], alive: Sequence[Tensor | None]
) -> object:
    source, weight, bias, samples, channels, space, groups, *rest = args
    positions = alive[1]
    assert isinstance(source, Tensor) and isinstance(groups, int)
    if positions is None:
        return func(*args, **kwargs)
    parts = [tensor[positions] if isinstance(tensor, Tensor) else None for tensor in (weight, bias)]
    count = len(positions)
    left = count if groups == channels else groups
    out, *others = func(source.index_select(1, positions), *parts, samples, count, space, left, *rest, **kwargs)
    return (source.new_zeros(source.shape).index_copy(1, positions, out), *others)


def _reduction(
    func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object], alive: Sequence[Tensor | None]
) -> object:
    return _reduced(func, args, kwargs, alive, named=args)


def _power(
    func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object], alive: Sequence[Tensor | None]
) -> object:
    """The order comes before the axes."""
    return _reduced(func, args, kwargs, alive, named=args[:1] + args[2:])


def _reduced(
    func: torch._ops.OpOverload,
    args: Args,
    kwargs: Mapping[str, object],
    alive: Sequence[Tensor | None],
    *,
    named: Args,
) -> object:
    """named: the arguments that say which axes are reduced."""
    source = args[0]
    assert isinstance(source, Tensor)
    for dim in reduced_axes(named, kwargs, source.ndim):
        positions = alive[dim]
        if positions is not None:
            source = source.index_select(dim, positions)
    return func(source, *args[1:], **kwargs)


def _batch_norm(
    func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object], alive: Sequence[Tensor | None]
) -> object:
    """Statistics of the values themselves run over all axes but the channels."""
    source = args[0]
    assert isinstance(source, Tensor)
    places = [(axis, where) for axis, where in enumerate(alive) if axis != 1 and where is not None]
    if not places or not any(value is True for value in args[3:6]):
        return func(*args, **kwargs)
    out, *others = func(_picked(source, places), *args[1:], **kwargs)
    return (_put_back(out, source, places), *others)


def _convolution(
    func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object], alive: Sequence[Tensor | None]
) -> object:
    """Where channels lie along a place, it slides over those that stay."""
    source, weight = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(weight, Tensor)
    places = [(axis, where) for axis, where in enumerate(alive) if axis > 1 and where is not None]
    out = func(_picked(source, places), *args[1:], **kwargs)
    assert isinstance(out, Tensor)
    return _put_back(out, source, places)


def _picked(source: Tensor, places: Sequence[tuple[int, Tensor]]) -> Tensor:
    """A tensor at the positions that stay. places: axis -> these, for some axes."""
    for axis, where in places:
        source = source.index_select(axis, where)
    return source


def _put_back(out: Tensor, source: Tensor, places: Sequence[tuple[int, Tensor]]) -> Tensor:
    """What was computed at the positions that stay, as long as `source` along these axes, and zero elsewhere."""
    for axis, where in places:
        shape = [source.shape[axis] if dim == axis else size for dim, size in enumerate(out.shape)]
        out = out.new_zeros(shape).index_copy(axis, where, out)
    return out


def _rms_norm(
    func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object], alive: Sequence[Tensor | None]
) -> object:
    source, shape, weight, *rest = args
    positions = alive[-1]
    assert isinstance(source, Tensor) and isinstance(shape, list | tuple)
    if positions is None or len(shape) != 1:
        return func(*args, **kwargs)
    part = weight[positions] if isinstance(weight, Tensor) else None
    out, *others = func(source.index_select(-1, positions), [len(positions)], part, *rest, **kwargs)
    return (source.new_zeros(source.shape).index_copy(-1, positions, out), *others)


def _weight_norm(
    func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object], alive: Sequence[Tensor | None]
) -> object:
    """A silenced direction has no length to divide by."""
    del alive
    weight, length = func(*args, **kwargs)
    return weight.nan_to_num(0.0), length


def _along(
    func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object], alive: Sequence[Tensor | None]
) -> object:
    source, dim = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(dim, int)
    positions = alive[dim]
    if positions is None:
        return func(*args, **kwargs)
    out = func(source.index_select(dim, positions), *args[1:], **kwargs)
    assert isinstance(out, Tensor)
    return out.new_zeros(source.shape).index_copy(dim, positions, out)


def _quotient(
    func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object], alive: Sequence[Tensor | None]
) -> object:
    """What is silenced, divided by a scale that is silenced with it, is silent."""
    del alive
    source, divisor = args[0], args[1]
    if not isinstance(source, Tensor) or not isinstance(divisor, Tensor):
        return func(*args, **kwargs)
    both = (source == 0) & (divisor == 0)
    out = func(*args, **kwargs)
    assert isinstance(out, Tensor)
    return out.masked_fill_(both, 0)


def _inverse(
    func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object], alive: Sequence[Tensor | None]
) -> object:
    """What is silenced has no inverse, and is silent."""
    out = func(*args, **kwargs)
    assert isinstance(out, Tensor)
    for axis, positions in enumerate(alive):
        if positions is not None:
            out = out.new_zeros(out.shape).index_copy(axis, positions, out.index_select(axis, positions))
    return out


STATISTICS: Mapping[str, Statistic] = {
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "_fused_rms_norm": _rms_norm,
    "_weight_norm_interface": _weight_norm,
    "convolution": _convolution,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit"), _batch_norm),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(POWERS, _power),
    **dict.fromkeys(("div", "div_"), _quotient),
    **dict.fromkeys(("reciprocal", "rsqrt"), _inverse),
    "_softmax": _along,
    "_safe_softmax": _along,
    "_log_softmax": _along,
}
