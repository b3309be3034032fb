"""How far outputs are apart, and how much of that is rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

#: Values that tell of what size an output usually is; as many are compared at once.
_MANY = 2**16


class Tolerance(NamedTuple):
    """How far a right cut may be from a mask, relative to the usual output: rounding, as sums have fewer terms.

    noise: any difference up to that is rounding. most: one up to that is rounding where silencing changes much more.
    """

    noise: float
    most: float

    @classmethod
    def of(cls, precisions: set[torch.dtype]) -> Tolerance:
        """From the floating-point types in use, the coarsest of which counts."""
        eps = max(torch.finfo(precision).eps for precision in precisions)
        return cls(min(math.sqrt(eps), 1e-8 + 100 * eps), math.sqrt(eps))

    def allows(self, difference: float, effect: Callable[[], float]) -> bool:
        """True for a difference that rounding explains. effect: gives what silencing changed."""
        return difference <= self.noise or (difference <= self.most and difference <= 0.02 * effect())


def distance(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference of a value, relative to its size and to the usual one; infinite where one is not finite."""
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
    """The same of two vectors. In parts that fit into a cache: outputs for a large vocabulary are many."""
    usual, worst = _usual(a, b), 0.0
    for got, wanted in zip(a.split(_MANY), b.split(_MANY), strict=True):
        gaps = _gaps(got, wanted)
        farthest = float((gaps / _wide(wanted).abs().add_(usual)).masked_fill_(gaps == 0, 0.0).max())
        if not math.isfinite(farthest):
            return math.inf
        worst = max(worst, farthest)
    return worst


def _usual(a: Tensor, b: Tensor) -> float:
    """A usual size, not the largest: scores that were masked with -1e9 would hide any other difference.

    To sort all values would take longer than the forward, so some are looked at.
    """
    step = max(1, len(b) // _MANY)
    gaps, some = _gaps(a[::step], b[::step]), b[::step]
    if not bool(gaps.any()):
        gaps, some = _gaps(a, b), b  # so few differ that none of these does
    sizes, wanted = (_wide(values[torch.isfinite(values)]).abs() for values in (some[some != 0], some[gaps != 0]))
    smallest = float(sizes.sort().values[len(sizes) // 4]) if len(sizes) else 0.0
    return max(smallest, float(wanted.median()) if len(wanted) else 0.0, 1e-12)


def _gaps(a: Tensor, b: Tensor) -> Tensor:
    """Differences; none between infinite values that are equal, or between two that are no numbers."""
    gaps = (_wide(a) - _wide(b)).abs()
    return gaps if bool(gaps.isfinite().all()) else gaps.masked_fill_((a == b) | (a.isnan() & b.isnan()), 0.0)
