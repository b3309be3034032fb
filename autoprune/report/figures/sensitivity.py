"""Figures of the sensitivity scan: a heat map with the corrections by trials, and bars of blocks and layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autoprune.records.sensitivity import BlockSensitivity
from autoprune.report.figure import SLANTED, Figure, Properties, titled
from autoprune.report.labels import labels
from autoprune.report.theme import DIVERGING, SPAN

#: Height in pixels of a row, and of the margins.
_ROW, _AROUND = 34, 190
#: Factors at the ends of the colour scale; corrections stay within them.
_LARGEST = 4.0
#: Share of the height between the two heat maps.
_GAP = 0.08


def heat_map(
    added: Mapping[str, Sequence[float]], keep_shares: Sequence[float], factors: Mapping[str, float]
) -> Figure:
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
    traces = [_losses(added, places, keep_shares)]
    names: Properties = {"type": "category", "autotickangles": SLANTED, "showgrid": False}
    layout: Properties = {"height": _AROUND + _ROW * (rows + 2 * corrected)}
    if not corrected:
        return {"data": traces, "layout": {**layout, "xaxis": names, "yaxis": {"showgrid": False}}}
    factor_row = _corrections([factors.get(name, 1.0) for name in added], places)
    top = (1.0 - _GAP) / (max(rows, 1) + 1)  # of the row below, as high as one row above
    axes: Properties = {
        "xaxis": {"type": "category", "anchor": "y", "matches": "x2", "showticklabels": False, "showgrid": False},
        "xaxis2": {**names, "anchor": "y2"},
        "yaxis": {"anchor": "x", "domain": [top + _GAP, 1.0], "showgrid": False},
        "yaxis2": {"anchor": "x2", "domain": [0.0, top], "showgrid": False},
    }
    return {"data": [*traces, {**factor_row, "xaxis": "x2", "yaxis": "y2"}], "layout": {**layout, **axes}}


def dropped_block_bars(dropped: Sequence[BlockSensitivity]) -> Figure:
    """Draw the loss that each block or layer adds when it alone is left out, coloured by its multiply-adds.

    Args:
        dropped: Blocks and layers of the scan.

    Returns:
        The figure.
    """
    shares = [one.multiply_adds for one in dropped]
    scale: Properties = {**titled("multiply-adds"), "tickformat": ".0%"}
    trace: Properties = {
        "type": "bar",
        "x": labels([one.name for one in dropped]),
        "y": [one.added_loss for one in dropped],
        "marker": {"color": shares, "colorscale": [list(stop) for stop in SPAN], "colorbar": scale},
        "customdata": [[one.parameters, one.multiply_adds] for one in dropped],
        "hovertemplate": "%{x}: added loss %{y:.3g}, %{customdata[0]:.1%} of the parameters and %{customdata[1]:.1%} "
        "of the multiply-adds go<extra></extra>",
    }
    layout: Properties = {
        "height": 420,
        "xaxis": {"type": "category", "autotickangles": SLANTED},
        "yaxis": titled("added loss"),
    }
    return {"data": [trace], "layout": layout}


def _losses(added: Mapping[str, Sequence[float]], places: Sequence[str], keep_shares: Sequence[float]) -> Properties:
    rows = [[losses[number] for losses in added.values()] for number in range(len(keep_shares))]
    found = [loss for row in rows for loss in row if loss > 0]
    low, high = (math.log10(min(found)), math.log10(max(found))) if found else (0.0, 1.0)
    ticks = [low + (high - low) * part / 4 for part in range(5)]
    return {
        "type": "heatmap",
        "z": [[math.log10(max(loss, 1e-12)) for loss in row] for row in rows],
        "x": list(places),
        "y": [f"keep {share:.0%}" for share in keep_shares],
        "customdata": rows,
        "hovertemplate": "%{x}, %{y}: added loss %{customdata:.3g}<extra></extra>",
        "zmin": low,
        "zmax": high,
        "colorbar": {**titled("added loss"), "tickvals": ticks, "ticktext": [f"{10**tick:.2g}" for tick in ticks]},
    }


def _corrections(row: Sequence[float], places: Sequence[str]) -> Properties:
    return {
        "type": "heatmap",
        "z": [[math.log2(factor) for factor in row]],
        "x": list(places),
        "y": ["in trials"],
        "customdata": [list(row)],
        "hovertemplate": "%{x}: %{customdata:.2f} times the scan<extra></extra>",
        "colorscale": [list(stop) for stop in DIVERGING],
        "zmin": -math.log2(_LARGEST),
        "zmax": math.log2(_LARGEST),
        "showscale": False,
    }
