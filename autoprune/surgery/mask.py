"""mask: the dense model with channels silenced, as it would compute without them. The other half of the proof."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from autoprune.criteria.kept import KeptChannels, alive_positions
from autoprune.surgery.clone import clone_with
from autoprune.task.data import Inputs, call
from autoprune.trace.rules import POWERS, REDUCTIONS, reduced_axes
from autoprune.trace.topology import Topology
from autoprune.trace.tracer import Tracer, module_names, plain_operators, run

Args = tuple[object, ...]
#: (operator, arguments, positions alive on each axis of the first argument) -> result, None to run it as it is.
Statistic = Callable[[torch._ops.OpOverload, Args, Mapping[str, object], Sequence[Tensor | None]], object]


def mask(model: nn.Module, topology: Topology, kept: KeptChannels, *, traced: Tracer | None = None) -> nn.Module:
    """A copy of the dense model with every parameter entry of the channels and blocks that go set to zero.

    In eval mode it computes what `cut` computes: the layers that read a silenced channel have zero weights for
    it. Where a layer looks at its channels together (LayerNorm, GroupNorm, a mean over channels, a softmax) zeros
    would still count; then the copy is wrapped, and its forward takes such statistics over the channels that stay.

    traced: a trace of the model on the inputs that the copy will be called with, which saves one at each call.
    """
    kept.check(topology)
    copy = clone_with(model)
    tensors = dict(copy.named_parameters())
    alive = alive_positions(topology, kept)
    with torch.no_grad():
        for name in (tensor for block in kept.dropped for tensor in topology.block(block).tensors):
            if name in tensors:
                tensors[name].zero_()
        for (name, axis), positions in alive.items():
            if name in tensors:
                silent = torch.ones(tensors[name].shape[axis], dtype=torch.bool)
                silent[positions] = False
                tensors[name].index_fill_(axis, silent.nonzero().squeeze(1).to(tensors[name].device), 0)
    return _with_statistics(copy, alive, traced) if topology.has_statistics else copy


def _with_statistics(model: nn.Module, alive: Mapping[tuple[str, int], Tensor], traced: Tracer | None) -> nn.Module:
    """Give a silenced model a forward whose statistics over channels leave out the silenced ones.

    For proofs, not for speed: each call runs the model twice, once to learn which channels are the same and once
    to compute. The parameters keep their names.
    """
    plain = model.__class__.__new__(model.__class__)
    plain.__dict__.update(model.__dict__)

    def forward(*args: object, **kwargs: object) -> object:
        inputs: Inputs = kwargs if kwargs else args
        tracer = run(plain, inputs)[0] if traced is None else traced
        statistics = _Statistics(plain, tracer, _gone(tracer, alive))
        with plain_operators(plain), module_names(plain, statistics), statistics:
            return call(plain, inputs)

    model.__dict__["forward"] = forward
    return model


def _gone(tracer: Tracer, alive: Mapping[tuple[str, int], Tensor]) -> set[int]:
    """Classes of channels that are silenced."""
    gone: set[int] = set()
    for (name, axis), positions in alive.items():
        nodes = tracer.owned[name][axis]
        assert nodes is not None
        atoms = [tracer.labels.atoms(int(node)) for node in nodes.tolist()]
        stays = set(positions.tolist())
        # Of a product's atoms only those that are gone at every position they hold are gone themselves.
        held = {atom for position in stays for atom in atoms[position]}
        gone |= {atom for position, own in enumerate(atoms) if position not in stays for atom in own} - held
    return gone


class _Statistics(Tracer):
    """Runs operators that look across channels on the channels that stay."""

    def __init__(self, model: nn.Module, known: Tracer, gone: set[int]) -> None:
        super().__init__(model)
        self._known, self._gone = known, gone

    def execute(self, func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object]) -> object:
        statistic = STATISTICS.get(func.overloadpacket.__name__)
        source = args[0] if args else None
        if statistic is None or not isinstance(source, Tensor):
            return func(*args, **kwargs)
        # Nodes are numbered in the order of the forward, so the finished trace knows the same numbers.
        alive = [None if nodes is None else self._positions(nodes.tolist()) for nodes in self.axes(source)]
        return statistic(func, args, kwargs, alive)

    def _positions(self, nodes: Sequence[int]) -> Tensor | None:
        stays = [position for position, node in enumerate(nodes) if not (self._known.labels.atoms(node) & self._gone)]
        return None if len(stays) == len(nodes) else torch.tensor(stays, dtype=torch.int64)


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
    source = args[0]
    assert isinstance(source, Tensor)
    for dim in reduced_axes(args, kwargs, source.ndim):
        positions = alive[dim]
        if positions is not None:
            source = source.index_select(dim, positions)
    return func(source, *args[1:], **kwargs)


def _power(
    func: torch._ops.OpOverload, args: Args, kwargs: Mapping[str, object], alive: Sequence[Tensor | None]
) -> object:
    """The order comes before the axes."""
    source = args[0]
    assert isinstance(source, Tensor)
    for dim in reduced_axes(args[:1] + args[2:], kwargs, source.ndim):
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
    part = source
    for axis, where in places:
        part = part.index_select(axis, where)
    out, *others = func(part, *args[1:], **kwargs)
    for axis, where in reversed(places):
        shape = [source.shape[axis] if dim == axis else size for dim, size in enumerate(out.shape)]
        out = out.new_zeros(shape).index_copy(axis, where, out)
    return (out, *others)


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


STATISTICS: Mapping[str, Statistic] = {
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "_fused_rms_norm": _rms_norm,
    "_weight_norm_interface": _weight_norm,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit"), _batch_norm),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(POWERS, _power),
    "_softmax": _along,
    "_safe_softmax": _along,
    "_log_softmax": _along,
}
