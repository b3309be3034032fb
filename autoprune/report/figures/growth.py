"""Growth of the hypervolume over work and time."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.front.convergence import Curve, hypervolume_band
from autoprune.records.origins import Origin
from autoprune.report.figure import Figure, Properties, drawn, titled
from autoprune.report.theme import ACCENT, FAINT, ORIGIN_COLOURS

#: Axis of progress -> its title.
ALONG = {"candidates": "finished candidates", "samples": "samples processed", "seconds": "seconds of work"}


def growth_figure(curves: Sequence[Curve], by: str = "samples", baseline: Curve | None = None) -> Figure:
    """Draw hypervolume against samples processed or seconds, with median and range of several studies.

    Args:
        curves: Results of `front.convergence.convergence`, one for each study.
        by: Axis of progress.
        baseline: The same of the uniform sweep alone; None without one.

    Returns:
        The figure.
    """
    lines = _band(hypervolume_band(curves, by=by), by) if len(curves) > 1 else []
    for curve in curves:
        name = {"name": "this study"} if len(curves) == 1 else {"showlegend": False}
        lines.append({**_growth(curve, by, ACCENT if len(curves) == 1 else FAINT), **name})
    if baseline is not None:
        colour = ORIGIN_COLOURS[Origin.UNIFORM]
        lines.append({**_growth(baseline, by, colour), "name": "uniform sweep alone"})
    layout: Properties = {
        "xaxis": {**titled(ALONG[by]), "rangemode": "tozero", "tickformat": "~s"},
        "yaxis": {**titled("hypervolume (quality, multiply-adds)"), "rangemode": "tozero"},
        "height": 360,
    }
    return {"data": [{"type": "scatter", **line} for line in lines], "layout": layout}


def _growth(curve: Curve, by: str, colour: str) -> Properties:
    return {
        "x": drawn(curve[by]),
        "y": drawn(curve["hypervolume"]),
        "mode": "lines",
        "line": {"color": colour, "width": 2, "shape": "hv"},
        "hovertemplate": "%{x:,.4~g} " + ALONG[by] + "<br>hypervolume %{y:.4~g}<extra></extra>",
    }


def _band(band: Curve, by: str) -> list[Properties]:
    """Draw the range of several studies, and their median."""
    outline = [*band[by], *band[by][::-1]]
    return [
        {
            "x": drawn(outline),
            "y": drawn([*band["high"], *band["low"][::-1]]),
            "fill": "toself",
            "fillcolor": "rgba(58,134,221,0.16)",
            "line": {"width": 0},
            "mode": "lines",
            "name": "lowest to highest",
            "hoverinfo": "skip",
        },
        {
            "x": drawn(band[by]),
            "y": drawn(band["median"]),
            "mode": "lines",
            "line": {"color": ACCENT, "width": 2.5},
            "name": "median",
        },
    ]
