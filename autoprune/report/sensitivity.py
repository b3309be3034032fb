"""Figures of the sensitivity scan: a heat map with the corrections by trials, and bars of blocks and layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from autoprune.records.sensitivity import BlockSensitivity
from autoprune.report.figures import new_figure
from autoprune.report.labels import labels

#: Height in pixels of a row, and of the margins.
_ROW, _AROUND = 34, 190
#: Factors at the ends of the colour scale; corrections stay within them.
_LARGEST = 4.0


def heat_map(
    added: Mapping[str, Sequence[float]], keep_shares: Sequence[float], factors: Mapping[str, float]
) -> go.Figure:
    """Draw the logarithm of the loss that each group adds alone when only a share of its channels stays.

    Args:
        added: Group name -> loss for each share, > 0.
        keep_shares: Shares of channels that stay.
        factors: Group name -> ratio of the harm in trials to the harm in the scan; a separate row, left out where all
            are 1.

    Returns:
        The figure.
    """
    places, corrected = labels(list(added)), any(abs(factor - 1.0) > 1e-6 for factor in factors.values())
    rows = len(keep_shares)
    figure = make_subplots(
        figure=new_figure(),
        rows=2 if corrected else 1,
        cols=1,
        shared_xaxes=True,
        row_heights=[max(rows, 1), 1] if corrected else None,
        vertical_spacing=0.08,
    )
    figure.add_trace(_losses(added, places, keep_shares), row=1, col=1)
    if corrected:
        figure.add_trace(_corrections([factors.get(name, 1.0) for name in added], places), row=2, col=1)
    figure.update_layout(
        height=_AROUND + _ROW * (rows + 2 * corrected),
        margin={"l": 80, "r": 20, "t": 20, "b": 120},
    )
    figure.update_xaxes(type="category")
    figure.update_xaxes(tickangle=-45, row=2 if corrected else 1, col=1)
    return figure


def dropped_block_bars(dropped: Sequence[BlockSensitivity]) -> go.Figure:
    """Draw the loss that each block or layer adds when it alone is left out, coloured by its multiply-adds.

    Args:
        dropped: Blocks and layers of the scan.

    Returns:
        The figure.
    """
    shares = [one.multiply_adds for one in dropped]
    trace = go.Bar(
        x=labels([one.name for one in dropped]),
        y=[one.added_loss for one in dropped],
        marker={"color": shares, "colorscale": "Cividis", "colorbar": {"title": "multiply-adds", "tickformat": ".0%"}},
        customdata=[[one.parameters, one.multiply_adds] for one in dropped],
        hovertemplate="%{x}: added loss %{y:.3g}, %{customdata[0]:.1%} of the parameters and %{customdata[1]:.1%} of "
        "the multiply-adds go<extra></extra>",
    )
    figure = new_figure(trace)
    figure.update_layout(height=420, margin={"l": 80, "r": 20, "t": 20, "b": 120})
    figure.update_xaxes(type="category", tickangle=-45)
    figure.update_yaxes(title="added loss")
    return figure


def _losses(added: Mapping[str, Sequence[float]], places: Sequence[str], keep_shares: Sequence[float]) -> go.Heatmap:
    rows = [[losses[number] for losses in added.values()] for number in range(len(keep_shares))]
    found = [loss for row in rows for loss in row if loss > 0]
    low, high = (math.log10(min(found)), math.log10(max(found))) if found else (0.0, 1.0)
    ticks = [low + (high - low) * part / 4 for part in range(5)]
    return go.Heatmap(
        z=[[math.log10(max(loss, 1e-12)) for loss in row] for row in rows],
        x=list(places),
        y=[f"keep {share:.0%}" for share in keep_shares],
        customdata=rows,
        hovertemplate="%{x}, %{y}: added loss %{customdata:.3g}<extra></extra>",
        colorscale="Cividis",
        zmin=low,
        zmax=high,
        colorbar={"title": "added loss", "tickvals": ticks, "ticktext": [f"{10**tick:.2g}" for tick in ticks]},
    )


def _corrections(row: Sequence[float], places: Sequence[str]) -> go.Heatmap:
    return go.Heatmap(
        z=[[math.log2(factor) for factor in row]],
        x=list(places),
        y=["in trials"],
        customdata=[list(row)],
        hovertemplate="%{x}: %{customdata:.2f} times the scan<extra></extra>",
        colorscale="RdBu_r",
        zmin=-math.log2(_LARGEST),
        zmax=math.log2(_LARGEST),
        showscale=False,
    )
