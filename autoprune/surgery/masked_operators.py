"""Run operators that combine channels over the channels that stay alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from autoprune.trace.rules.reductions import POWERS, REDUCTIONS, reduced_axes

Args = tuple[object, ...]
#: (operator, args, kwargs, positions that stay on each axis of the first argument; None for all) -> result.
Statistic = Callable[[torch._ops.OpOverload, Args, Mapping[str, object], Sequence[Tensor | None]], object]


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
    """Skip the order, which comes before the axes."""
    return _reduced(func, args, kwargs, alive, named=args[:1] + args[2:])


def _reduced(
    func: torch._ops.OpOverload,
    args: Args,
    kwargs: Mapping[str, object],
    alive: Sequence[Tensor | None],
    *,
    named: Args,
) -> object:
    """Reduce over the channels that stay. named: the arguments that name the reduced axes."""
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
    """Take statistics of the values themselves, which run over all axes but the channels."""
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
    """Slide over the channels that stay, where they lie along a position axis."""
    source, weight = args[0], args[1]
    assert isinstance(source, Tensor) and isinstance(weight, Tensor)
    places = [(axis, where) for axis, where in enumerate(alive) if axis > 1 and where is not None]
    out = func(_picked(source, places), *args[1:], **kwargs)
    assert isinstance(out, Tensor)
    return _put_back(out, source, places)


def _picked(source: Tensor, places: Sequence[tuple[int, Tensor]]) -> Tensor:
    """Select the positions that stay. places: (axis, positions)."""
    for axis, where in places:
        source = source.index_select(axis, where)
    return source


def _put_back(out: Tensor, source: Tensor, places: Sequence[tuple[int, Tensor]]) -> Tensor:
    """Scatter results back to the length of `source` along these axes, with zeros elsewhere."""
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
    """Set a silenced direction to zero: it has no length to divide by."""
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
    """Set 0 / 0 to zero: a silenced value divided by a silenced scale stays silent."""
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
    """Set the inverse of silenced values to zero."""
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
