"""Linear layers and convolutions as least-squares problems: rows, moments, solution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Layers whose output is one product of their input with their weight, and a bias.
Layer = nn.Linear | nn.modules.conv._ConvNd
#: Penalties to choose from, as shares of the mean square of the inputs.
RIDGES = (1e-8, 1e-3, 1e-1)
#: Entries of rows in memory at a time: 32 MiB in float64.
_MAX_ENTRIES = 2**22


def matrix_of(layer: Layer) -> Tensor:
    """Copy the weight of a layer as a matrix.

    Args:
        layer: A linear layer or convolution.

    Returns:
        float64 [groups, unknowns, outputs of a group]; see `unknowns_of`.
    """
    weight = layer.weight.detach().to(torch.float64, copy=True)
    return _forwards(layer, weight).reshape(_groups(layer), -1, unknowns_of(layer)).mT


def weight_of(layer: Layer, matrix: Tensor) -> Tensor:
    """Turn a matrix back into a weight: the inverse of `matrix_of`.

    Args:
        layer: The layer whose shape and dtype the weight gets.
        matrix: [groups, unknowns, outputs of a group].

    Returns:
        The weight.
    """
    inputs = unknowns_of(layer) // math.prod(layer.weight.shape[2:])
    flat = matrix.mT.reshape(-1, inputs, *layer.weight.shape[2:])
    return _forwards(layer, flat).to(layer.weight.dtype)


def unknowns_of(layer: Layer) -> int:
    """Count the weights behind one output: input channels of a group times taps of the kernel.

    Args:
        layer: A linear layer or convolution.

    Returns:
        Their number.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return layer.in_channels // layer.groups * math.prod(layer.kernel_size)


def channels_first(layer: Layer, values: Tensor) -> Tensor:
    """Reshape the input or output of a layer to [samples, channels, *positions].

    A tensor without a batch becomes one sample. The axes of a linear layer's [N, *, C] between samples and channels
    become
    one axis of positions.

    Args:
        layer: A linear layer or convolution.
        values: Its input or output.

    Returns:
        [samples, channels, *positions].
    """
    if not isinstance(layer, nn.Linear):
        return values.unsqueeze(0) if values.ndim == layer.weight.ndim - 1 else values
    values = values.unsqueeze(0) if values.ndim == 1 else values
    return values.reshape(len(values), math.prod(values.shape[1:-1]), values.shape[-1]).movedim(-1, 1)


def patches(layer: Layer, x: Tensor, size: Sequence[int]) -> Tensor:
    """List the inputs of each output of a layer.

    Args:
        layer: A linear layer or convolution.
        x: Input [samples, channels, *positions], see `channels_first`.
        size: Positions of the output, axis by axis.

    Returns:
        [samples, channels, *positions of outputs, *taps of the kernel], mostly a view of x.
    """
    if isinstance(layer, nn.Linear):
        return x
    stride = layer.stride
    spans = [dilation * (taps - 1) for taps, dilation in zip(layer.kernel_size, layer.dilation, strict=True)]
    if layer.transposed:  # a convolution with the flipped kernel over an input with zeros in between
        x = _spread(x, stride)
        assert not isinstance(layer.padding, str)
        left = [span - padding for span, padding in zip(spans, layer.padding, strict=True)]
        right = [n + span - a - m for n, span, a, m in zip(size, spans, left, x.shape[2:], strict=True)]
        x = F.pad(x, [side for pair in zip(left[::-1], right[::-1], strict=True) for side in pair])
        stride = (1,) * len(stride)
    elif any(layer._reversed_padding_repeated_twice):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    for axis, (span, step, dilation) in enumerate(zip(spans, stride, layer.dilation, strict=True)):
        x = x.unfold(2 + axis, span + 1, step)[..., ::dilation]
    return x


def select_places(values: Tensor, places: Sequence[Tensor]) -> Tensor:
    """Select samples and positions.

    Args:
        values: [samples, channels, *positions, *more].
        places: Sample, then position axis by axis, each int64 [R].

    Returns:
        [R, channels, *more].
    """
    return values.movedim(1, -1)[tuple(places)].movedim(-1, 1)


def rows_of(layer: Layer, picked: Tensor) -> Tensor:
    """Turn patches into rows of the least-squares problem.

    Args:
        layer: A linear layer or convolution.
        picked: Patches [R, channels, *taps] of some outputs.

    Returns:
        float64 [groups, R, unknowns], in the order of `matrix_of`.
    """
    return picked.reshape(len(picked), _groups(layer), unknowns_of(layer)).transpose(0, 1).double()


def _groups(layer: Layer) -> int:
    return 1 if isinstance(layer, nn.Linear) else layer.groups


def _forwards(layer: Layer, weight: Tensor) -> Tensor:
    """Convert the weight of a transposed convolution to the layout of a plain one, or back."""
    if isinstance(layer, nn.Linear) or not layer.transposed:
        return weight
    turned: Tensor = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
    return turned.flip(tuple(range(2, weight.ndim)))


def _spread(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Insert stride - 1 zeros between neighbours."""
    wide = x.new_zeros(*x.shape[:2], *((n - 1) * step + 1 for n, step in zip(x.shape[2:], stride, strict=True)))
    every = tuple(slice(None, None, step) for step in (1, 1, *stride))
    wide[every] = x
    return wide


class Moments:
    """Sums over the rows X and the residuals R of the outputs: all that least squares needs.

    Attributes:
        gram: X'X, float64 [groups, unknowns, unknowns].
        cross: X'R, float64 [groups, unknowns, outputs of a group].
        residual: Sum of the squares of R.
    """

    def __init__(self, gram: Tensor, cross: Tensor, residual: float) -> None:
        self.gram, self.cross, self.residual = gram, cross, residual

    @classmethod
    def of(cls, rows: Tensor, lacking: Tensor) -> Moments:
        """Compute the moments of some rows.

        Args:
            rows: X, [groups, R, unknowns].
            lacking: Residuals, [groups, R, outputs of a group].

        Returns:
            Their moments.
        """
        return cls(rows.mT @ rows, rows.mT @ lacking, float(lacking.square().sum()))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.gram + other.gram, self.cross + other.cross, self.residual + other.residual)

    def error(self, change: Tensor) -> float:
        """Compute the sum of squared residuals after a change of the matrix.

        Args:
            change: Change of the matrix, [groups, unknowns, outputs of a group].

        Returns:
            The sum of squares.
        """
        return self.residual + float((change * (self.gram @ change - 2 * self.cross)).sum())

    def change(self, ridge: float) -> Tensor:
        """Solve for the change of the matrix with the least penalised error.

        The error is the sum of squared residuals + ridge * mean square of a column * sum of squares of the change.

        Args:
            ridge: Penalty, >= 0.

        Returns:
            The change, [groups, unknowns, outputs of a group]; NaN if there is no solution.
        """
        columns = self.gram.shape[1]
        unit = float(self.gram.diagonal(dim1=1, dim2=2).mean())
        price = ridge * unit * torch.eye(columns, dtype=self.gram.dtype, device=self.gram.device)
        factor, failed = torch.linalg.cholesky_ex(self.gram + price)
        return torch.full_like(self.cross, math.nan) if bool(failed.any()) else torch.cholesky_solve(self.cross, factor)


def best_change(first: Moments, second: Moments) -> Tensor | None:
    """Choose the ridge that does best on held-out samples.

    Each ridge is solved for on the first half alone and tried on the second, so that few samples change little or
    nothing.
    The change is then solved for on both halves.

    Args:
        first: Moments of one half of the samples.
        second: Moments of the other half.

    Returns:
        The change of the matrix; None if no ridge beats no change.
    """
    errors = {ridge: second.error(first.change(ridge)) for ridge in RIDGES}
    known = {ridge: error for ridge, error in errors.items() if error < second.residual}
    return (first + second).change(min(known, key=known.__getitem__)) if known else None


@torch.no_grad()
def refit(layer: Layer, read: Tensor, places: Sequence[Tensor], wanted: Tensor) -> bool:
    """Give a layer the weight and bias with which its outputs are nearest to `wanted`.

    A frozen bias stays. The layer is unchanged if the solution is not finite or is no better on held-out samples.
    Source: He et al., Channel Pruning for Accelerating Very Deep Neural Networks, 2017; the ridge: Hoerl and Kennard,
    Ridge Regression, 1970.

    Args:
        layer: The layer, changed in place.
        read: Inputs of its outputs, see `patches`.
        places: Outputs to fit: sample, then position axis by axis, each int64 [R].
        wanted: Values that these outputs should have, [R, outputs].

    Returns:
        Whether the layer has changed.
    """
    old, bias = matrix_of(layer), layer.bias
    free = bias is not None and bias.requires_grad

    def moments(which: Tensor) -> Moments:
        total = Moments.of(old.new_zeros(len(old), 0, old.shape[1] + free), old.new_zeros(len(old), 0, old.shape[2]))
        for some in which.nonzero().squeeze(1).split(max(1, _MAX_ENTRIES // old[..., 0].numel())):
            rows = rows_of(layer, select_places(read, [axis[some] for axis in places]))
            lacking = wanted[some].double() - (0 if bias is None else bias.double())
            lacking = lacking.unflatten(1, (len(old), -1)).transpose(0, 1) - rows @ old
            total += Moments.of(F.pad(rows, (0, 1), value=1.0) if free else rows, lacking)
        return total

    first, second = moments(places[0] % 2 == 0), moments(places[0] % 2 == 1)
    change = best_change(first, second)
    return change is not None and _install(layer, old, change, first + second)


def _install(layer: Layer, old: Tensor, change: Tensor, whole: Moments) -> bool:
    """Add a change to the weights, rounded to their dtype, if that lowers the error."""
    unknowns = old.shape[1]
    stored = layer.weight.detach().clone()
    layer.weight.copy_(weight_of(layer, old + change[:, :unknowns]))
    done = [matrix_of(layer) - old]
    bias = None
    if change.shape[1] > unknowns:
        assert layer.bias is not None
        bias = (layer.bias.double() + change[:, unknowns:].flatten()).to(layer.bias.dtype)
        done.append((bias.double() - layer.bias.double()).view(len(old), 1, -1))
    if not whole.error(torch.cat(done, 1)) < whole.residual:
        layer.weight.copy_(stored)
        return False
    if bias is not None and layer.bias is not None:
        layer.bias.copy_(bias)
    return True
