"""Figures as plain data in plotly's JSON format, which the page hands to plotly.js.

The classes of the Python package plotly check each property of a figure, which takes longer than the rest of a report.
The tests do that instead: `plotly.graph_objects.Figure(figure)` accepts every figure and changes nothing in it.
"""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np

#: Trace of a figure, or its layout: property -> value. Figures have hundreds of properties of any JSON type.
Properties = dict[str, object]


class Figure(TypedDict):
    """Figure in plotly's JSON format.

    Attributes:
        data: Traces, each with its "type".
        layout: Axes, margins, legend and height in pixels.
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


def margins(left: int, right: int, top: int, bottom: int) -> Properties:
    """Write the margins of a figure.

    Args:
        left: Pixels.
        right: Pixels.
        top: Pixels.
        bottom: Pixels.

    Returns:
        The properties.
    """
    return {"l": left, "r": right, "t": top, "b": bottom}


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
