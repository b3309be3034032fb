"""Scales that a module works out from a width each time that it runs, such as 1 / sqrt(head width)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor

from autoprune.trace.numbers import values_in

if TYPE_CHECKING:
    from autoprune.trace.tracer import Tracer

#: Powers of a width that scales are; its fourth root where queries and keys are both scaled.
_ROOTS = (2, 4)
_NEAR = 1e-6


def note_scale(tracer: Tracer, source: object, factor: object) -> None:
    """Values are multiplied with, or divided by, a number: it may be a root of a width.

    source: the values. factor: the number.
    """
    if not isinstance(source, Tensor) or not isinstance(factor, float) or not 0 < factor < math.inf:
        return
    for root in _ROOTS:
        width = max(factor, 1 / factor) ** root
        if 1 < round(width) < 2**20 and math.isclose(width, round(width), rel_tol=_NEAR):
            sides = [nodes for nodes in _beside(tracer, source) if len(nodes) == round(width)]
            if sides and not is_kept(tracer, factor):
                for nodes in sides:
                    tracer.note_scale_width(nodes)
                return


def is_kept(tracer: Tracer, factor: object) -> bool:
    """Whether a scale is a number that the module at work keeps, which stays as it is in a cut.

    Of the root of one it is not known: torch takes it in `scaled_dot_product_attention` of a number that it is given as
    well as of the default, whatever else the module keeps.
    """
    if not isinstance(factor, float) or factor <= 0:
        return False
    module = tracer.modules[tracer.module]
    kept = [abs(value) for value in values_in(module).values() if isinstance(value, float) and value]
    return any(math.isclose(value, form, rel_tol=_NEAR) for value in kept for form in (factor, 1 / factor))


def _beside(tracer: Tracer, source: Tensor) -> Iterator[npt.NDArray[np.int64]]:
    """Channels along the values, and those that the last product of the module at work summed over."""
    yield from (nodes for nodes in tracer.axes(source) if nodes is not None)
    if tracer.contracted and tracer.contracted[-1].module == tracer.module:
        yield from tracer.contracted[-1].axes
