"""Importances of the parameters of the space."""

from __future__ import annotations

from autoprune.front.importance import Importances
from autoprune.report.figure import Figure, Properties, titled
from autoprune.report.labels import hover, label, labels
from autoprune.report.theme import SERIES


def importance(found: Importances) -> Figure:
    """Draw the share of the variance of a target's ranks that each parameter explains; pale where chance explains as
    much.

    Targets are chosen in the legend; at first the quality and the quality at equal cost are visible.

    Args:
        found: Importances of a study.

    Returns:
        The figure.
    """
    shown = {"quality", *found.targets[-1:]}
    colours = zip(reversed(found.targets), SERIES, strict=False)
    traces = [_target_bars(found, target, colour, shown=target in shown) for target, colour in colours]
    layout: Properties = {
        "xaxis": {**titled("share of the variance of ranks"), "tickformat": ".0%", "rangemode": "tozero"},
        "yaxis": {"type": "category", "autorange": "reversed"},
        "height": 140 + 36 * len(found.parameters),
    }
    return {"data": traces, "layout": layout}


def _target_bars(found: Importances, target: str, colour: str, *, shown: bool) -> Properties:
    """Draw the bars of one target."""
    cells = [row.targets[target] for row in found.parameters]
    return {
        "type": "bar",
        "y": labels([row.name if row.members == 1 else f"{row.name} ({row.members})" for row in found.parameters]),
        "x": [cell.share for cell in cells],
        "error_x": _bars(
            [max(cell.high - cell.share, 0.0) for cell in cells], [max(cell.share - cell.low, 0.0) for cell in cells]
        ),
        "orientation": "h",
        "marker": {"color": colour, "opacity": [0.25 if cell.is_noise else 1.0 for cell in cells]},
        "hovertext": [
            hover([row.name, f"{target}: {cell}"]) for row, cell in zip(found.parameters, cells, strict=True)
        ],
        "hoverinfo": "text",
        "name": label(target),
        "visible": True if shown else "legendonly",
    }


def _bars(up: list[float], down: list[float]) -> Properties:
    """Draw thin intervals."""
    return {"type": "data", "array": up, "arrayminus": down, "thickness": 1, "width": 2}
