"""Parallel coordinates: every candidate as a line through all that was measured of it."""

from __future__ import annotations

import math

import numpy as np

from autoprune.front.front import Front
from autoprune.front.quantities import Quantity, quantities
from autoprune.records.objectives import QUALITY
from autoprune.report.figure import Figure, Properties, drawn
from autoprune.report.labels import label
from autoprune.report.theme import SPAN

#: Ticks of a logarithmic axis.
_TICKS = 4
#: Longest name of an axis, in characters.
_LONGEST = 22


def parallel(front: Front, split: str = "search") -> Figure:
    """Draw every candidate that was trained to the end as a line over quality, metrics and costs.

    Better is up on every axis whose direction is known. Costs are logarithmic.

    Args:
        front: Front of a study.
        split: Split of the numbers, "search" or "test".

    Returns:
        The figure; `meta` of the trace holds the numbers of its candidates, in the order of its lines.
    """
    shown, values, places = _lines(front, split)
    layout: Properties = {"height": 400, "margin": {"l": 64, "r": 48, "t": 72, "b": 24}}
    if not len(places):
        return {"data": [], "layout": layout}
    rows = [(quantity, values[place, places]) for place, quantity in enumerate(shown)]
    trace: Properties = {
        "type": "parcoords",
        "dimensions": [
            {**_axis(front, quantity, row), "values": drawn(_along(quantity, row))} for quantity, row in rows
        ],
        "line": {"color": drawn(values[0, places]) if shown else [], "colorscale": [list(stop) for stop in SPAN]},
        "meta": [front.records[place].number for place in places],
        "labelangle": -12,
        "labelside": "top",
    }
    return {"data": [trace], "layout": layout}


def axes_of(front: Front, split: str = "search") -> list[Properties]:
    """Describe the axes of `parallel` without the numbers along them.

    Args:
        front: Front of a study.
        split: Split of the numbers, "search" or "test".

    Returns:
        An axis for each quantity; none where there is no candidate to draw.
    """
    shown, values, places = _lines(front, split)
    return [_axis(front, quantity, values[row, places]) for row, quantity in enumerate(shown)] if len(places) else []


def _lines(front: Front, split: str) -> tuple[list[Quantity], np.ndarray, np.ndarray]:
    """Find the quantities that are drawn, the numbers of all candidates, and the places of those that are lines."""
    shown = shown_quantities(front)
    values = np.array([quantity.values(front, split) for quantity in shown]).reshape(len(shown), len(front.records))
    return shown, values, np.flatnonzero(np.isfinite(values).all(axis=0) & front.numbers.complete)


def shown_quantities(front: Front) -> list[Quantity]:
    """List the axes.

    Args:
        front: Front of a study.

    Returns:
        The quality, further metrics, objectives, and the costs that everybody asks for.
    """
    costs = (*front.problem.objectives, "multiply_adds", "parameters")
    return [quantity for name, quantity in quantities(front).items() if not quantity.is_cost or name in costs]


def _is_log(quantity: Quantity, values: np.ndarray) -> bool:
    return quantity.is_cost and bool((values > 0).all())


def _along(quantity: Quantity, values: np.ndarray) -> np.ndarray:
    return np.log10(values) if _is_log(quantity, values) else values


def _axis(front: Front, quantity: Quantity, values: np.ndarray) -> Properties:
    name = front.metric if quantity.name == QUALITY else quantity.axis_title
    found: Properties = {"label": label(name, _LONGEST), "name": quantity.name}
    shown = _along(quantity, values)
    low, high = float(shown.min()), float(shown.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    if not quantity.is_cost:
        found["tickformat"] = ".3~f"
    found["range"] = [high, low] if quantity.better == "lower" else [low, high]
    if _is_log(quantity, values):
        ticks = [low + (high - low) * part / (_TICKS - 1) for part in range(_TICKS)]
        found |= {"tickvals": ticks, "ticktext": [_short(10**tick) for tick in ticks]}
    return found


def _short(value: float) -> str:
    """Write a number with two or three digits and a letter for its size."""
    power = min(max(int(math.log10(value)) // 3, 0), 4) if value >= 1 else 0
    return f"{value / 1000**power:.3g}{' kMGT'[power].strip()}"
