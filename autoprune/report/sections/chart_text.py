"""Text alternatives of charts: what they show, with their main numbers."""

from __future__ import annotations

import numpy as np

from autoprune.front.front import Front
from autoprune.front.quantities import Quantity, find_quantity
from autoprune.records.objectives import QUALITY


def trade_off_text(front: Front, x: str, y: str = QUALITY, split: str = "search") -> str:
    """Describe a chart of two quantities.

    Args:
        front: Front of a study.
        x: Name of the quantity along the horizontal axis.
        y: Name of the quantity along the vertical axis.
        split: Split of the numbers.

    Returns:
        One or two sentences.
    """
    over, of = find_quantity(front, x), find_quantity(front, y)
    xs, ys = over.values(front, split), of.values(front, split)
    known = np.isfinite(xs) & np.isfinite(ys)
    numbers = {record.number for record in front.members}
    members = np.array([record.number in numbers for record in front.records], dtype=bool) & known
    text = f"{int(known.sum())} candidates by {_name(front, of)} and {_name(front, over)}"
    text += f", {int(members.sum())} of them on the front"
    if members.any():
        places = np.flatnonzero(members)
        order = np.lexsort((ys[places] if of.better == "lower" else -ys[places], xs[places]))
        low, high = places[order[0]], places[order[-1]]
        text += f": from {_at(over, xs[low])} with {_at(of, ys[low])} to {_at(over, xs[high])} with {_at(of, ys[high])}"
    dense = next((place for place, record in enumerate(front.records) if record is front.dense), None)
    if dense is not None and known[dense]:
        text += f". The dense model has {_at(of, ys[dense])} at {_at(over, xs[dense])}"
    return f"{text}."


def _name(front: Front, quantity: Quantity) -> str:
    return front.metric if quantity.name == QUALITY else quantity.axis_title


def _at(quantity: Quantity, value: float) -> str:
    return f"{value:{quantity.form}}"
