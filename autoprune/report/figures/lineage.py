"""Lineages: which candidate started from whose weights."""

from __future__ import annotations

import numpy as np

from autoprune.front.front import Front
from autoprune.front.quantities import find_quantity
from autoprune.records.objectives import QUALITY
from autoprune.report.figure import Figure, Properties, drawn, scatter_type, titled
from autoprune.report.figures.trade_off import ORIGIN_NAMES
from autoprune.report.labels import label
from autoprune.report.theme import BEATEN, FAINT, ORIGIN_COLOURS, ORIGIN_SYMBOLS


def lineage_figure(front: Front, cost: str = "multiply_adds") -> Figure:
    """Draw every candidate at its cost and quality, with a line from the parent whose weights it started from.

    Args:
        front: Front of a study.
        cost: Cost axis.

    Returns:
        The figure; `customdata` of a point is the number of its candidate.
    """
    over = find_quantity(front, cost)
    x, y = over.values(front), find_quantity(front, QUALITY).values(front)
    place_of = {record.number: place for place, record in enumerate(front.records)}
    steps = [
        (place_of[record.parent], place)
        for place, record in enumerate(front.records)
        if record.parent is not None and record.parent in place_of
    ]
    gap = np.full((len(steps), 1), np.nan)
    ends = np.array(steps, dtype=int).reshape(-1, 2)
    members = {record.number for record in front.members}
    kind = scatter_type(len(front.records))
    descent: Properties = {
        "type": kind,
        "x": drawn(np.hstack([x[ends], gap]).ravel()),
        "y": drawn(np.hstack([y[ends], gap]).ravel()),
        "mode": "lines",
        "line": {"color": FAINT, "width": 1},
        "opacity": 0.45,
        "hoverinfo": "skip",
        "showlegend": False,
    }
    traces = [descent]
    for origin, colour in ORIGIN_COLOURS.items():
        places = [place for place, record in enumerate(front.records) if record.origin is origin]
        if not places:
            continue
        records = [front.records[place] for place in places]
        traces.append(
            {
                "type": kind,
                "x": drawn(x[places]),
                "y": drawn(y[places]),
                "mode": "markers",
                "name": ORIGIN_NAMES[origin],
                "marker": {
                    "color": colour,
                    "symbol": ORIGIN_SYMBOLS[origin],
                    "size": [10 if record.number in members else 6 for record in records],
                    "opacity": [1.0 if record.number in members else BEATEN for record in records],
                },
                "customdata": [record.number for record in records],
                "text": [f"{record.lineage_trained:,}" for record in records],
                "hovertemplate": "candidate %{customdata}<br>%{text} samples of training along its line<extra></extra>",
            }
        )
    layout: Properties = {
        "xaxis": {**titled(label(over.axis_title)), "type": "log", "tickformat": "~s", "dtick": "D2"},
        "yaxis": titled(f"{label(front.metric)} (search split)"),
        "height": 420,
    }
    return {"data": traces, "layout": layout}
