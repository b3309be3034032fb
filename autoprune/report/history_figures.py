"""Figures of a study's history: hypervolume over samples and seconds, and lineages of candidates."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.front.convergence import Curve, hypervolume_band
from autoprune.front.front import Front
from autoprune.report.figure import Figure, Properties, margins, titled
from autoprune.report.figures import ORIGIN_COLOURS, layout_over

#: Axis of the convergence -> its title.
_ALONG = {"samples": "samples processed", "seconds": "seconds"}


def growth_figure(curves: Sequence[Curve]) -> Figure:
    """Draw hypervolume against samples processed and against seconds, with median and range of several studies.

    Args:
        curves: Results of `front.convergence.convergence`, one for each study.

    Returns:
        The figure.
    """
    traces: list[Properties] = []
    for by, axis in zip(_ALONG, ("", "2"), strict=True):
        lines = _band(hypervolume_band(curves, by=by), by, shown=not axis) if len(curves) > 1 else []
        lines += [_growth(curve, by, colour="#0072B2" if len(curves) == 1 else "#bbbbbb") for curve in curves]
        traces += [{"type": "scatter", **line, "xaxis": f"x{axis}", "yaxis": f"y{axis}"} for line in lines]
    samples, seconds = _ALONG.values()
    layout: Properties = {
        "xaxis": {**titled(samples), "anchor": "y", "domain": [0.0, 0.48], "rangemode": "tozero"},
        "xaxis2": {**titled(seconds), "anchor": "y2", "domain": [0.52, 1.0], "rangemode": "tozero"},
        "yaxis": {**titled("hypervolume (quality, multiply-adds)"), "anchor": "x"},
        "yaxis2": {"anchor": "x2", "matches": "y", "showticklabels": False},
        "height": 360,
        "margin": margins(60, 20, 20, 50),
    }
    return {"data": traces, "layout": layout}


def _growth(curve: Curve, by: str, colour: str) -> Properties:
    return {
        "x": curve[by],
        "y": curve["hypervolume"],
        "mode": "lines",
        "line": {"color": colour, "width": 1, "shape": "hv"},
        "showlegend": False,
        "text": [f"{count} candidates" for count in curve["candidates"]],
    }


def lineage_figure(front: Front, cost: str = "multiply_adds") -> Figure:
    """Draw every candidate at its cost and quality, with a line from the parent whose weights it started from.

    Args:
        front: Front of a study.
        cost: Cost axis.

    Returns:
        The figure.
    """
    known = {record.number: record for record in front.records}
    xs: list[float | None] = []
    ys: list[float | None] = []
    for record in front.records:
        parent = known.get(record.parent) if record.parent is not None else None
        if parent is not None:
            xs += [front.value(parent, cost), front.value(record, cost), None]
            ys += [parent.search.quality, record.search.quality, None]
    descent = {"x": xs, "y": ys, "mode": "lines", "line": {"color": "#cccccc", "width": 1}}
    traces: list[Properties] = [{"type": "scatter", **descent, "hoverinfo": "skip", "showlegend": False}]
    members = {record.number for record in front.members}
    for origin, colour in ORIGIN_COLOURS.items():
        records = [record for record in front.records if record.origin == origin]
        if not records:
            continue
        traces.append(
            {
                "type": "scatter",
                "x": [front.value(record, cost) for record in records],
                "y": [record.search.quality for record in records],
                "mode": "markers",
                "name": origin,
                "marker": {
                    "color": colour,
                    "size": [9 if record.number in members else 5 for record in records],
                    "opacity": [1.0 if record.number in members else 0.5 for record in records],
                },
                "text": [
                    f"candidate {record.number}, {record.lineage_trained:,} samples trained with along its line"
                    for record in records
                ],
            }
        )
    return {"data": traces, "layout": layout_over(front, front.problem.objective(cost))}


def _band(band: Curve, by: str, *, shown: bool) -> list[Properties]:
    """Draw the range of several studies, and their median."""
    outline = [*band[by], *band[by][::-1]]
    return [
        {
            "x": outline,
            "y": [*band["high"], *band["low"][::-1]],
            "fill": "toself",
            "fillcolor": "rgba(0,114,178,0.15)",
            "line": {"width": 0},
            "name": "lowest to highest",
            "hoverinfo": "skip",
            "showlegend": shown,
        },
        {
            "x": band[by],
            "y": band["median"],
            "line": {"color": "#0072B2", "width": 2},
            "name": "median",
            "showlegend": shown,
        },
    ]
