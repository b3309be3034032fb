"""Detect scales that a module computes from a width in its forward, such as 1 / sqrt(head width)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch import Tensor

from autoprune.trace.graph import ChannelGraph
from autoprune.trace.numbers import values_in

#: Roots of a width that are used as scales: the fourth root where both queries and keys are scaled.
_ROOTS = (2, 4)
_NEAR = 1e-6


def note_scale(graph: ChannelGraph, source: object, factor: object) -> None:
    """Note a factor that may be a root of a width.

    Args:
        graph: The channels.
        source: The values that are multiplied or divided.
        factor: The factor; anything but a positive number is ignored.
    """
    if not isinstance(source, Tensor) or not isinstance(factor, float) or not 0 < factor < math.inf:
        return
    for root in _ROOTS:
        width = max(factor, 1 / factor) ** root
        if 1 < round(width) < 2**20 and math.isclose(width, round(width), rel_tol=_NEAR):
            sides = [nodes for nodes in _beside(graph, source) if len(nodes) == round(width)]
            if sides and not is_kept(graph, factor):
                for nodes in sides:
                    graph.note_scale_width(nodes)
                return


def is_kept(graph: ChannelGraph, factor: object) -> bool:
    """Tell whether the running module keeps a scale as a number, which a cut does not change.

    The root of a kept number does not count: `scaled_dot_product_attention` takes the root of a scale that it is given
    and of its default alike.

    Args:
        graph: The channels.
        factor: The scale.

    Returns:
        True if a number of the module is the scale or its inverse.
    """
    if not isinstance(factor, float) or factor <= 0:
        return False
    module = graph.modules[graph.module]
    kept = [abs(value) for value in values_in(module).values() if isinstance(value, float) and value]
    return any(math.isclose(value, form, rel_tol=_NEAR) for value in kept for form in (factor, 1 / factor))


def _beside(graph: ChannelGraph, source: Tensor) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the channels along the values, and those that the module's last product summed over."""
    yield from (nodes for nodes in graph.axes(source) if nodes is not None)
    if graph.contracted and graph.contracted[-1].module == graph.module:
        yield from graph.contracted[-1].axes
