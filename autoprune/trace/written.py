"""Follow channels through operators that choose positions of an axis by values, or write to such positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from autoprune.structure.reasons import PICKED, RANKED, UNMADE
from autoprune.trace.observations import Axes
from autoprune.trace.rearrange import first_made, picked_axes
from autoprune.trace.tracer import OperatorRule, Tracer
from autoprune.trace.values import tensors_in

Args = tuple[object, ...]
Kwargs = Mapping[str, object]


def topk(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Freeze the axis of topk(k, dim), where all values decide which positions stay; keep the others."""
    source = args[0]
    dim = kwargs.get("dim", args[2] if len(args) > 2 else -1)
    assert isinstance(source, Tensor) and isinstance(dim, int)
    axes = tracer.axes(source)
    tracer.freeze(axes[dim], RANKED)
    axes[dim] = None
    for result in tensors_in(out):
        tracer.put(result, axes)


def index_write(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow index_add and index_copy(dim, index, source): freeze the written axis, and couple the others."""
    _written_along(tracer, args, args[3], out)


def scatter(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow scatter and scatter_add(dim, index, source) like `index_write`, if they cover the other axes."""
    places, source = args[2], args[3] if len(args) > 3 else None
    target = args[0]
    assert isinstance(target, Tensor) and isinstance(places, Tensor)
    dim = _dim(args, target)
    if any(axis != dim and size != target.shape[axis] for axis, size in enumerate(places.shape)):
        raise ValueError("a part of the other axes")
    _written_along(tracer, args, source, out)


def _written_along(tracer: Tracer, args: Args, source: object, out: object) -> None:
    target = args[0]
    assert isinstance(target, Tensor)
    dim, axes = _dim(args, target), tracer.axes(target)
    tracer.freeze(axes[dim], PICKED)
    if isinstance(source, Tensor) and source.ndim:
        given = tracer.axes(source)
        tracer.freeze(given[dim], PICKED)
        axes = [
            axes[axis] if axis == dim else tracer.unify(axes[axis], given[axis], UNMADE) for axis in range(len(axes))
        ]
    for result in tensors_in(out):
        tracer.put(result, axes)


def index_put(tracer: Tracer, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow x[i, :, j] = y: freeze the axes written to by number; the others hold the channels of y."""
    target, indices, values = args[0], args[1], args[2]
    assert isinstance(target, Tensor) and isinstance(indices, list | tuple) and isinstance(values, Tensor)
    picked, axes = picked_axes(indices), tracer.axes(target)
    for axis in picked:
        tracer.freeze(axes[axis], PICKED)
    own = [axis for axis in range(target.ndim) if axis not in picked]
    first = first_made(picked)
    places: list[int | None] = [*own[:first], *([None] * _made(indices)), *own[first:]]
    given: Axes = tracer.axes(values)
    for position, nodes in enumerate(reversed(given)):
        place = places[-1 - position]
        if place is None:
            tracer.freeze(nodes, PICKED)
        elif values.shape[-1 - position] == target.shape[place]:
            axes[place] = tracer.unify(axes[place], nodes, UNMADE)
    for result in tensors_in(out):
        tracer.put(result, axes)


def _made(indices: Sequence[object]) -> int:
    """Return the number of axes by which a value replaces the indexed axes."""
    return max((1 if str(i.dtype) == "torch.bool" else i.ndim for i in indices if isinstance(i, Tensor)), default=0)


def _dim(args: Args, target: Tensor) -> int:
    assert isinstance(args[1], int)
    return args[1] % target.ndim


WRITTEN_RULES: Mapping[str, OperatorRule] = {
    "topk": topk,
    **dict.fromkeys(("index_add", "index_add_", "index_copy", "index_copy_"), index_write),
    **dict.fromkeys(("scatter", "scatter_", "scatter_add", "scatter_add_"), scatter),
    **dict.fromkeys(("index_put", "index_put_", "_unsafe_index_put"), index_put),
}
