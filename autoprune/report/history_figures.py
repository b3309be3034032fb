"""Figures of a study's history: hypervolume over samples and seconds, and lineages of candidates."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from autoprune.front.convergence import Curve, hypervolume_band
from autoprune.front.front import Front
from autoprune.report.figures import ORIGIN_COLOURS, lay_out_over, new_figure

#: Axis of the convergence -> its title.
_ALONG = {"samples": "samples processed", "seconds": "seconds"}


def growth_figure(curves: Sequence[Curve]) -> go.Figure:
    """Draw hypervolume against samples processed and against seconds, with median and range of several studies.

    Args:
        curves: Results of `front.convergence.convergence`, one for each study.

    Returns:
        The figure.
    """
    figure = make_subplots(figure=new_figure(), cols=len(_ALONG), shared_yaxes=True, horizontal_spacing=0.04)
    for column, (by, title) in enumerate(_ALONG.items(), start=1):
        if len(curves) > 1:
            for trace in _band(hypervolume_band(curves, by=by), by, shown=column == 1):
                figure.add_trace(trace, row=1, col=column)
        for curve in curves:
            figure.add_trace(
                go.Scatter(
                    x=curve[by],
                    y=curve["hypervolume"],
                    mode="lines",
                    line={"color": "#0072B2" if len(curves) == 1 else "#bbbbbb", "width": 1, "shape": "hv"},
                    showlegend=False,
                    text=[f"{count} candidates" for count in curve["candidates"]],
                ),
                row=1,
                col=column,
            )
        figure.update_xaxes(title_text=title, rangemode="tozero", row=1, col=column)
    figure.update_yaxes(title_text="hypervolume (quality, multiply-adds)", col=1)
    figure.update_layout(height=360, margin={"l": 60, "r": 20, "t": 20, "b": 50})
    return figure


def lineage_figure(front: Front, cost: str = "multiply_adds") -> go.Figure:
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
    figure = new_figure(
        go.Scatter(x=xs, y=ys, mode="lines", line={"color": "#cccccc", "width": 1}, hoverinfo="skip", showlegend=False)
    )
    members = {record.number for record in front.members}
    for origin, colour in ORIGIN_COLOURS.items():
        records = [record for record in front.records if record.origin == origin]
        if not records:
            continue
        figure.add_trace(
            go.Scatter(
                x=[front.value(record, cost) for record in records],
                y=[record.search.quality for record in records],
                mode="markers",
                name=origin,
                marker={
                    "color": colour,
                    "size": [9 if record.number in members else 5 for record in records],
                    "opacity": [1.0 if record.number in members else 0.5 for record in records],
                },
                text=[
                    f"candidate {record.number}, {record.lineage_trained:,} samples trained with along its line"
                    for record in records
                ],
            )
        )
    lay_out_over(figure, front, front.problem.objective(cost))
    return figure


def _band(band: Curve, by: str, *, shown: bool) -> list[go.Scatter]:
    outline = [*band[by], *band[by][::-1]]
    return [
        go.Scatter(
            x=outline,
            y=[*band["high"], *band["low"][::-1]],
            fill="toself",
            fillcolor="rgba(0,114,178,0.15)",
            line={"width": 0},
            name="lowest to highest",
            hoverinfo="skip",
            showlegend=shown,
        ),
        go.Scatter(
            x=band[by], y=band["median"], line={"color": "#0072B2", "width": 2}, name="median", showlegend=shown
        ),
    ]
