"""Computing with elements that are not there: NaN stands for them, and every operator leaves them out.

A product takes them as zero and gives NaN where nothing came in; a statistic (a norm, a mean, a softmax, a maximum) is
taken over the others; whatever works element by element hands NaN on. So a dense model with NaN in the weights that a
cut removed computes what is left of it, without being told which channels of an activation these are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.trace.values import tensors_in

Args = tuple[object, ...]
Kwargs = Mapping[str, object]
Operator = torch._ops.OpOverload
Rule = Callable[[Operator, Args, Kwargs], object]


class InDouble(TorchDispatchMode):
    """Keeps float64 where a model casts to a coarser type, so that rounding explains nothing."""

    def __torch_dispatch__(
        self, func: Operator, types: object, args: Args = (), kwargs: Kwargs | None = None
    ) -> object:
        del types
        return self.compute(func, args, _in_double(args, kwargs or {}))

    def compute(self, func: Operator, args: Args, kwargs: Kwargs) -> object:
        """The result of one operator."""
        if func.overloadpacket is torch.ops.aten._grouped_mm:
            return _rows_times_matrices(*args)
        return func(*args, **kwargs)


class WithoutAbsent(InDouble):
    """Leaves out what is NaN, see above. unknown: operators that were given NaN and that no rule covers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.unknown: dict[str, None] = {}

    def compute(self, func: Operator, args: Args, kwargs: Kwargs) -> object:
        """The result of one operator, with NaN where nothing is there."""
        name = func.overloadpacket.__name__
        given = [tensor for tensor in tensors_in((*args, *kwargs.values())) if tensor.is_floating_point()]
        if name in MOVES or not any(_is_absent(tensor).any() for tensor in given):
            return super().compute(func, args, kwargs)
        rule = RULES.get(name)
        if rule is not None:
            return rule(func, args, kwargs)
        if torch.Tag.pointwise in func.tags or name.rstrip("_") in POINTWISE:
            return _pointwise(func, args, kwargs, given)
        self.unknown[name] = None
        return func(*args, **kwargs)


@contextmanager
def plain() -> Iterator[None]:
    """No fused operators for attention or whole layers, no gradients, and the same random numbers each time."""
    fast_path, mkldnn = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            torch.manual_seed(0)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch._C._set_mkldnn_enabled(mkldnn)


def _in_double(args: Args, kwargs: Kwargs) -> Kwargs:
    wanted, first = kwargs.get("dtype"), args[0] if args else None
    coarse = isinstance(wanted, torch.dtype) and wanted.is_floating_point
    if coarse and isinstance(first, Tensor) and first.dtype == torch.float64:
        return {**kwargs, "dtype": torch.float64}
    return kwargs


def _is_absent(value: object) -> Tensor:
    """Where nothing is there; nowhere for what is no tensor of floating-point numbers."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.isnan()
    return torch.zeros((), dtype=torch.bool)


def _zeroed(value: object, fill: float = 0.0) -> object:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.masked_fill(value.isnan(), fill)
    return value


def _computed(func: Operator, args: Args, kwargs: Kwargs, fill: float = 0.0) -> Tensor:
    """The result with that in the place of what is not there."""
    out = func(*(_zeroed(value, fill) for value in args), **kwargs)
    assert isinstance(out, Tensor)
    return out


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def _pointwise(func: Operator, args: Args, kwargs: Kwargs, given: list[Tensor]) -> object:
    """Element by element: some kernels lose a NaN on the way."""
    absent = torch.zeros((), dtype=torch.bool)
    for tensor in given:
        absent = absent | tensor.isnan()
    out = func(*args, **kwargs)
    if isinstance(out, Tensor) and out.is_floating_point() and out.shape == absent.shape:
        return out.masked_fill_(absent, math.nan)
    return out


def _product(first: int) -> Rule:
    """A matrix product; first: where its two factors begin among the arguments, after what is added to it."""

    def rule(func: Operator, args: Args, kwargs: Kwargs) -> object:
        a, b = _tensor(args[first]), _tensor(args[first + 1])
        out = _computed(func, args, kwargs)
        rows = a.isnan().all(-1)
        columns = b.isnan().all(-2 if b.ndim > 1 else -1)
        absent = rows.unsqueeze(-1) if b.ndim > 1 else rows
        if b.ndim > 1:
            absent = absent | columns.unsqueeze(-2)
        for added in args[:first]:
            absent = absent | _is_absent(added)
        return out.masked_fill_(absent, math.nan)

    return rule


def _rows_times_matrices(rows: object, matrices: object, ends: object) -> Tensor:
    """Rows [T, K] in spans that end there, each with its own matrix of [E, K, N]; torch has no such for float64."""
    source, starts = _tensor(rows), [0, *_tensor(ends).tolist()]
    parts = [source[start:end] for start, end in itertools.pairwise(starts)]
    out = torch.cat([part @ matrix for part, matrix in zip(parts, _tensor(matrices), strict=True)])
    return torch.nn.functional.pad(out, (0, 0, 0, len(source) - len(out)))


def _grouped_product(func: Operator, args: Args, kwargs: Kwargs) -> object:
    """The same where something is absent."""
    del func, kwargs
    a, b = _tensor(args[0]), _tensor(args[1])
    out = _rows_times_matrices(_zeroed(a), _zeroed(b), args[2])
    absent = a.isnan().all(-1).unsqueeze(-1) | b.isnan().flatten(0, -2).all(0)
    return out.masked_fill_(absent, math.nan)


def _convolution(func: Operator, args: Args, kwargs: Kwargs) -> object:
    source, weight, bias = _tensor(args[0]), _tensor(args[1]), args[2]
    transposed, groups = args[6], args[8]
    assert isinstance(groups, int)
    for axis in range(2, source.ndim):
        places = _there(source, axis)
        if 0 < len(places) < source.shape[axis]:  # it slides along channels: those that are there are neighbours
            shorter = _tensor(_convolution(func, (source.index_select(axis, places), *args[1:]), kwargs))
            return func(source, *args[1:], **kwargs).fill_(math.nan).index_copy_(axis, places, shorter)
    out = _computed(func, args, kwargs)
    gone = weight.isnan()
    # A transposed weight is [in, out / groups, ...], with the inputs group by group.
    made = (gone.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1) if transposed else gone).flatten(1).all(1)
    # A group into which nothing comes makes nothing.
    silent = source.isnan().movedim(1, 0).flatten(1).all(1).unflatten(0, (groups, -1)).all(1)
    absent = made | silent.repeat_interleave(out.shape[1] // groups) | _is_absent(bias)
    return out.masked_fill_(absent.view(-1, *[1] * (out.ndim - 2)), math.nan)


def _there(source: Tensor, axis: int) -> Tensor:
    """Positions of an axis at which anything is."""
    return (~source.isnan().movedim(axis, 0).flatten(1).all(1)).nonzero().squeeze(1)


def _moments(source: Tensor, dims: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance over some axes of what is there, and of how many elements."""
    there = ~source.isnan()
    count = there.sum(dims, keepdim=True)
    mean = source.nansum(dims, keepdim=True) / count
    variance = (source - mean).square().nansum(dims, keepdim=True) / count
    return mean, variance, count


def _normalised(source: Tensor, dims: list[int], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance, _ = _moments(source, dims)
    scale = (variance + eps).rsqrt()
    return (source - mean) * scale, mean, scale


def _affine(source: Tensor, weight: object, bias: object, shape: list[int]) -> Tensor:
    if isinstance(weight, Tensor):
        source = source * weight.view(shape)
    return source + bias.view(shape) if isinstance(bias, Tensor) else source


def _layer_norm(func: Operator, args: Args, kwargs: Kwargs) -> object:
    source, shape, weight, bias, eps = args
    assert isinstance(source, Tensor) and isinstance(shape, list | tuple) and isinstance(eps, float)
    out, mean, scale = _normalised(source, list(range(-len(shape), 0)), eps)
    return _affine(out, weight, bias, list(shape)), mean, scale


def _rms_norm(func: Operator, args: Args, kwargs: Kwargs) -> object:
    source, shape, weight, eps = args
    assert isinstance(source, Tensor) and isinstance(shape, list | tuple)
    dims = list(range(-len(shape), 0))
    square = source.square().nansum(dims, keepdim=True) / (~source.isnan()).sum(dims, keepdim=True)
    scale = (square + (eps if isinstance(eps, float) else torch.finfo(source.dtype).eps)).rsqrt()
    return _affine(source * scale, weight, None, list(shape)), scale


def _group_norm(func: Operator, args: Args, kwargs: Kwargs) -> object:
    source, weight, bias, samples, _, _, groups, eps = args
    assert isinstance(source, Tensor) and isinstance(groups, int) and isinstance(eps, float)
    out, mean, scale = _normalised(source.reshape(source.shape[0], groups, -1), [2], eps)
    del samples
    return _affine(out.view(source.shape), weight, bias, [-1, *[1] * (source.ndim - 2)]), mean, scale


def _batch_norm(func: Operator, args: Args, kwargs: Kwargs) -> object:
    source, weight, bias, mean, variance = args[:5]
    eps = args[-1]
    assert isinstance(source, Tensor) and isinstance(eps, float)
    shape = [-1, *[1] * (source.ndim - 2)]
    if any(value is True for value in args[5:6]) or not isinstance(mean, Tensor):
        out = _normalised(source, [axis for axis in range(source.ndim) if axis != 1], eps)[0]
    else:
        out = (source - mean.view(shape)) * (_tensor(variance).view(shape) + eps).rsqrt()
    empty = source.new_zeros(0)
    return _affine(out, weight, bias, shape), empty, empty


def _softmax(func: Operator, args: Args, kwargs: Kwargs) -> object:
    absent = _is_absent(args[0])
    return _computed(func, args, kwargs, fill=-math.inf).masked_fill_(absent, math.nan)


def _dims(source: Tensor, dim: object) -> list[int]:
    if isinstance(dim, int):
        return [dim]
    return list(dim) if isinstance(dim, list | tuple) and dim else list(range(source.ndim))


def _given(args: Args, kwargs: Kwargs, place: int, name: str, default: object = None) -> object:
    return kwargs.get(name, args[place] if len(args) > place else default)


def _empty(source: Tensor, dims: list[int], out: Tensor) -> Tensor:
    """Where all that was reduced is absent, in the shape of the result."""
    return source.isnan().all(dim=tuple(dims)).view(out.shape) if dims else source.isnan()


def _reduction(fill: float, place: int = 1) -> Rule:
    """A reduction in which an element of that value counts for nothing; place: of the axes among the arguments."""

    def rule(func: Operator, args: Args, kwargs: Kwargs) -> object:
        source = _tensor(args[0])
        dims = _dims(source, _given(args, kwargs, place, "dim"))
        out = func(_zeroed(source, fill), *args[1:], **kwargs)
        first = tensors_in(out)[0]
        first.masked_fill_(_empty(source, dims, first), math.nan)
        return out

    return rule


def _mean(func: Operator, args: Args, kwargs: Kwargs) -> object:
    source = _tensor(args[0])
    keepdim = bool(_given(args, kwargs, 2, "keepdim", default=False))
    return source.nanmean(_dims(source, _given(args, kwargs, 1, "dim")), keepdim)


def _spread(func: Operator, args: Args, kwargs: Kwargs) -> object:
    """Var, std, var_mean and std_mean."""
    source, name = _tensor(args[0]), func.overloadpacket.__name__
    dims = _dims(source, _given(args, kwargs, 1, "dim"))
    correction = kwargs.get("correction", 1)
    assert isinstance(correction, int | float)
    mean, variance, count = _moments(source, dims)
    variance = variance * count / (count - correction)
    result = variance.sqrt() if name.startswith("std") else variance
    if not kwargs.get("keepdim", False):
        result, mean = result.squeeze(dims), mean.squeeze(dims)
    return (result, mean) if name.endswith("mean") else result


def _weight_norm(func: Operator, args: Args, kwargs: Kwargs) -> object:
    """A direction and its length along one axis."""
    direction, length = _tensor(args[0]), _tensor(args[1])
    dim = _given(args, kwargs, 2, "dim", 0)
    dims = [axis for axis in range(direction.ndim) if axis != dim]
    norm = direction.square().nansum(dims, keepdim=True).sqrt()
    return direction * (length / norm), norm


def _running(func: Operator, args: Args, kwargs: Kwargs) -> object:
    return _computed(func, args, kwargs).masked_fill_(_is_absent(args[0]), math.nan)


def _picked(func: Operator, args: Args, kwargs: Kwargs) -> object:
    """The largest, the largest few or where they are: nothing is smaller than anything."""
    return func(_zeroed(args[0], -math.inf), *args[1:], **kwargs)


#: What only moves elements, or looks at places that are absent together.
MOVES = frozenset(
    (
        *("view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t", "expand", "unsqueeze"),
        *("squeeze", "cat", "stack", "split", "split_with_sizes", "unbind", "slice", "select", "clone", "contiguous"),
        *("copy_", "_to_copy", "index", "index_select", "gather", "embedding", "roll", "flip", "repeat", "alias"),
        *("constant_pad_nd", "pixel_shuffle", "pixel_unshuffle", "native_channel_shuffle", "im2col", "unfold"),
        *("as_strided", "detach", "lift_fresh", "where", "masked_fill", "masked_fill_", "scatter", "scatter_"),
        *("index_put", "index_put_", "index_add", "index_add_", "fill_", "zero_", "new_zeros", "new_ones", "new_full"),
        *("new_empty", "new_empty_strided", "empty_like", "zeros_like", "ones_like", "full_like", "rand_like"),
        *("diagonal", "tril", "triu", "reflection_pad2d", "reflection_pad1d", "replication_pad2d", "avg_pool2d"),
        *("max_pool2d_with_indices", "max_pool2d", "avg_pool1d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"),
        *("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa"),
        *("_upsample_bicubic2d_aa", "grid_sampler_2d", "repeat_interleave", "narrow", "isnan", "isinf", "eq", "ne"),
        *("_fused_sdp_choice", "sym_size", "is_same_size", "_local_scalar_dense", "equal", "_unsafe_index", "resize_"),
        *("max_pool2d_with_indices_backward", "slice_scatter", "select_scatter", "nonzero", "empty", "zeros"),
    )
)
#: Works element by element though torch does not say so.
POINTWISE = frozenset(("hardswish", "_prelu_kernel", "glu", "log_sigmoid_forward", "native_dropout", "clamp", "mul"))
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), _product(0)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _product(1)),
    "_grouped_mm": _grouped_product,
    "convolution": _convolution,
    "native_layer_norm": _layer_norm,
    "_fused_rms_norm": _rms_norm,
    "native_group_norm": _group_norm,
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"), _batch_norm
    ),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), _softmax),
    "sum": _reduction(0.0),
    "linalg_vector_norm": _reduction(0.0, place=2),
    "norm": _reduction(0.0, place=2),
    **dict.fromkeys(("amax", "max", "logsumexp"), _reduction(-math.inf)),
    **dict.fromkeys(("amin", "min"), _reduction(math.inf)),
    "prod": _reduction(1.0),
    "mean": _mean,
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _spread),
    "_weight_norm_interface": _weight_norm,
    "cumsum": _running,
    **dict.fromkeys(("argmax", "topk", "sort"), _picked),
}
