"""Figure of a device profile: latency while groups lose channels."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.records.device_profile import Staircase
from autoprune.report.figure import Figure, Properties, drawn, titled
from autoprune.report.labels import labels


def staircase_lines(staircases: Sequence[Staircase]) -> Figure:
    """Draw the latency of each class of groups while all of its groups lose channels, with 95 % intervals.

    Args:
        staircases: Staircases of a device profile.

    Returns:
        The figure.
    """
    names = labels([one.layers for one in staircases])
    traces = [_trace(one, name) for one, name in zip(staircases, names, strict=True)]
    layout: Properties = {
        "height": 420,
        "xaxis": titled("channels lost from a multiple of 16"),
        "yaxis": titled("latency as a share of dense"),
    }
    return {"data": traces, "layout": layout}


def _trace(staircase: Staircase, name: str) -> Properties:
    halves = [ratio * half for ratio, half in zip(staircase.ratios, staircase.half_widths, strict=True)]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(staircase.lost),
        "y": drawn(staircase.ratios),
        "error_y": {"type": "data", "array": drawn(halves), "thickness": 1},
        "hovertemplate": f"{name}, %{{x}} channels lost: %{{y:.3f}} of dense<extra></extra>",
    }
