"""Figures for Python: objects of plotly that show themselves in notebooks and are written as HTML, PNG or SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoprune.front.front import Front
from autoprune.records.limits import Limits
from autoprune.records.objectives import QUALITY
from autoprune.report import theme
from autoprune.report.figure import Figure, json_values
from autoprune.report.figures.cloud import cloud
from autoprune.report.figures.layers import kept_shares, layer_bars
from autoprune.report.figures.trade_off import TradeOff, trade_off
from autoprune.report.hover import hover_texts

if TYPE_CHECKING:
    import plotly.graph_objects

#: Page that the figures are made for; `figure.update_layout(template="plotly_dark")` is for a dark one.
_MODE = "light"


def figure(
    front: Front,
    x: str = "multiply_adds",
    y: str = QUALITY,
    z: str | None = None,
    split: str = "search",
    limits: Limits | None = None,
) -> plotly.graph_objects.Figure:
    """Draw two or three measured quantities of all candidates, as the report does.

    Args:
        front: Front of a study.
        x: Quantity along the horizontal axis: "quality", a metric of the task, or a cost.
        y: Quantity along the vertical axis.
        z: Third quantity, for a figure in space; None for a flat one.
        split: Split of the numbers, "search" or "test".
        limits: Limits whose region is shaded, in a flat figure; those of the search when None.

    Returns:
        Figure of plotly, which a notebook shows. `write_image("front.png")` needs the package kaleido and a Chromium.

    Raises:
        UnknownNameError: The study has no such quantity, or there is no such split.

    Example:
        >>> from autoprune import Limits, Run, figure
        >>> front = Run.open("runs/digits").front()  # doctest: +SKIP
        >>> figure(front, x="latency_ms", limits=Limits(max_drop=0.01)).write_image("front.png")  # doctest: +SKIP
    """
    hovers = hover_texts(front)
    if z is not None:
        return _plotted(cloud(front, (x, y, z), split, hovers))
    shown = front.problem.limits if limits is None else limits
    return _plotted(trade_off(front, TradeOff(x=x, y=y, split=split, limits=shown), hovers))


def figure_layers(front: Front, candidate: int | None = None) -> plotly.graph_objects.Figure:
    """Draw the channels that members of the front keep in each group.

    Args:
        front: Front of a study.
        candidate: Number of one candidate, for bars beside those of the dense model; None for a heat map of the front.

    Returns:
        Figure of plotly, see `figure`.

    Raises:
        NotFoundError: There is no such candidate.

    Example:
        >>> figure_layers(Run.open("runs/digits").front(), candidate=7).show()  # doctest: +SKIP
    """
    widths = {} if front.dense is None else front.dense.widths
    return _plotted(kept_shares(front, widths) if candidate is None else layer_bars(front.get(candidate), widths))


def _plotted(found: Figure) -> plotly.graph_objects.Figure:
    import plotly.graph_objects

    plotted = plotly.graph_objects.Figure(json_values(found))
    surface = theme.TOKENS[_MODE]["surface"]
    return plotted.update_layout(template=theme.templates()[_MODE], paper_bgcolor=surface)
