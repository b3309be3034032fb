"""Figures of the report as objects of plotly, which checks each property."""

from __future__ import annotations

import plotly.graph_objects as go

from autoprune.report.figure import Figure, json_values


def drawn(figure: Figure) -> go.Figure:
    """The figure, once plotly accepts it and finds nothing to rewrite, such as a title that is no object."""
    plain = json_values(figure)
    found = go.Figure(plain)
    shown = found.to_plotly_json()
    shown["layout"].pop("template")  # plotly's own, which is in each of its figures
    assert _unscaled(shown) == _unscaled(plain)
    return found


def _unscaled(value: object) -> object:
    """A figure without its colour scales: plotly writes the colours in place of their names."""
    if isinstance(value, dict):
        return {key: _unscaled(entry) for key, entry in value.items() if key != "colorscale"}
    return [_unscaled(entry) for entry in value] if isinstance(value, list | tuple) else value
