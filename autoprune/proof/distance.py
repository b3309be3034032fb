"""Measure the distance between outputs, and tell rounding from real differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

#: Values that are sampled for the usual size of an output; also the size of a chunk in comparisons.
_MANY = 2**16


class Tolerance(NamedTuple):
    """Largest distance between a right cut and its mask, relative to the usual output: sums of fewer terms round
    differently.

    Attributes:
        noise: Any distance up to this is rounding.
        most: A distance up to this is rounding if silencing changes the outputs much more.
    """

    noise: float
    most: float

    @classmethod
    def of(cls, precisions: set[torch.dtype]) -> Tolerance:
        """Derive the tolerance from the floating-point types in use.

        Args:
            precisions: The types; the coarsest one counts.

        Returns:
            The tolerance.
        """
        eps = max(torch.finfo(precision).eps for precision in precisions)
        return cls(min(math.sqrt(eps), 1e-8 + 100 * eps), math.sqrt(eps))

    def allows(self, difference: float, effect: Callable[[], float]) -> bool:
        """Tell whether rounding explains a distance.

        Args:
            difference: The distance.
            effect: Returns the distance that silencing causes; called only if needed.

        Returns:
            True where it does.
        """
        return difference <= self.noise or (difference <= self.most and difference <= 0.02 * effect())


def distance(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference of a value, relative to its own size plus the usual size.

    Args:
        outputs: The outputs.
        expected: The outputs to compare with.

    Returns:
        The distance, >= 0; infinite if shapes differ, or if a value is finite in only one of them.
    """
    worst = 0.0
    for a, b in zip(outputs, expected, strict=True):
        if a.shape != b.shape:
            return math.inf
        if not torch.equal(a, b):
            worst = max(worst, _farthest(a.flatten(), b.flatten()))
    return worst


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.complex128) if values.is_complex() else values.double()


def _farthest(a: Tensor, b: Tensor) -> float:
    """Return the distance of two vectors, chunk by chunk, as outputs over a large vocabulary exceed the cache."""
    usual, worst = _usual(a, b), 0.0
    apart = a != b
    if 2 * int(apart.sum()) < len(a):  # most outputs are not worked out, say
        a, b = a[apart], b[apart]
    for got, wanted in zip(a.split(_MANY), b.split(_MANY), strict=True):
        gaps = _gaps(got, wanted)
        farthest = float((gaps / _wide(wanted).abs().add_(usual)).masked_fill_(gaps == 0, 0.0).max())
        if not math.isfinite(farthest):
            return math.inf
        worst = max(worst, farthest)
    return worst


def _usual(a: Tensor, b: Tensor) -> float:
    """Return a usual size of values: with the largest one, scores masked with -1e9 would hide any difference.

    Sorting all values would take longer than the forward, so a sample is used.
    """
    step = max(1, len(b) // _MANY)
    gaps, some = _gaps(a[::step], b[::step]), b[::step]
    if not bool(gaps.any()):
        gaps, some = _gaps(a, b), b  # none of the sampled values differs
    sizes, wanted = (_wide(values[torch.isfinite(values)]).abs() for values in (some[some != 0], some[gaps != 0]))
    smallest = float(sizes.sort().values[len(sizes) // 4]) if len(sizes) else 0.0
    return max(smallest, float(wanted.median()) if len(wanted) else 0.0, 1e-12)


def _gaps(a: Tensor, b: Tensor) -> Tensor:
    """Return the absolute differences; 0 between equal infinite values and between two NaN."""
    gaps = (_wide(a) - _wide(b)).abs()
    return gaps if bool(gaps.isfinite().all()) else gaps.masked_fill_((a == b) | (a.isnan() & b.isnan()), 0.0)
