"""Figures as plain data in plotly's JSON format, which the page hands to plotly.js.

The classes of the Python package plotly check each property of a figure, which takes longer than the rest of a report.
The tests do that instead: `plotly.graph_objects.Figure(figure)` accepts every figure and changes nothing in it.

A figure has no template, and nothing behind it: the page that shows it is light or dark, see `report.theme`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

#: Trace of a figure, or its layout: property -> value. Figures have hundreds of properties of any JSON type.
Properties = dict[str, object]
#: Angles of names along an axis: the first at which they have room.
SLANTED = (0, -45, -90)
#: Significant digits of numbers that are drawn.
_DIGITS = 5
#: Largest number of points that are drawn as shapes of the page; more are drawn by WebGL.
_MOST_SHAPES = 1000


class Figure(TypedDict):
    """Figure in plotly's JSON format.

    Attributes:
        data: Traces, each with its "type".
        layout: Axes, legend and height in pixels.
    """

    data: list[Properties]
    layout: Properties


def titled(text: str) -> Properties:
    """Write the title of an axis or of a colour bar.

    Args:
        text: Title, safe like a label.

    Returns:
        The property, to be joined by others.
    """
    return {"title": {"text": text}}


def scatter_type(points: int) -> str:
    """Choose how points are drawn.

    Args:
        points: Number of points in the figure.

    Returns:
        Type of the trace.
    """
    return "scattergl" if points > _MOST_SHAPES else "scatter"


def drawn(values: np.ndarray | Sequence[float]) -> list[float | None]:
    """Shorten numbers for a figure.

    Args:
        values: Numbers.

    Returns:
        The numbers with five significant digits, whole ones unchanged; None where they are not finite.
    """
    return [
        None if not math.isfinite(one) else one if float(one).is_integer() else float(f"{one:.{_DIGITS}g}")
        for one in (values.tolist() if isinstance(values, np.ndarray) else values)
    ]


def json_values(value: object) -> object:
    """Convert a figure, or a part of it, to values of JSON, which has no arrays and no NaN.

    Args:
        value: Mappings, sequences and arrays of numbers and texts.

    Returns:
        The same with lists in place of arrays and None in place of numbers that are not finite, which are not drawn.
    """
    if isinstance(value, dict):
        return {key: json_values(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return json_values(value.tolist())
    if isinstance(value, list | tuple):
        return [json_values(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
