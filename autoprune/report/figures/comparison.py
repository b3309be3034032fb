"""Candidates side by side: bars for groups and layers, and learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoprune.front.compared import Compared, ComparedGroup
from autoprune.report.figure import SLANTED, Figure, Properties, drawn, titled
from autoprune.report.labels import hover, label, labels
from autoprune.report.theme import FAINT, SERIES

#: Height of a figure, and symbols of the candidates, which tell them apart without colours.
_HEIGHT = 400
_SYMBOLS = ("diamond", "circle", "square", "triangle-up", "cross", "x", "star")


def width_bars(found: Compared, titles: Sequence[str]) -> Figure:
    """Draw the share of channels that each candidate keeps of each group.

    Args:
        found: The comparison.
        titles: Name of each candidate.

    Returns:
        The figure: one bar for each group and candidate.
    """
    places = labels([group.name for group in found.groups])
    traces = []
    for number, title in enumerate(titles):
        shares = [group.widths[number] / group.channels for group in found.groups]
        texts = [hover([title, group.name, *_kept(group, number)]) for group in found.groups]
        traces.append(_bars(number, title, found.records[number].origin == "dense", (places, shares, texts)))
    return _grouped(traces, {**titled("channels kept"), "tickformat": ".0%", "range": [0, 1.05]})


def layer_bars(found: Compared, titles: Sequence[str], *, latency: bool = False) -> Figure:
    """Draw what each layer costs in each candidate.

    Args:
        found: The comparison.
        titles: Name of each candidate.
        latency: Whether to draw predicted milliseconds in place of multiply-adds.

    Returns:
        The figure: one bar for each layer and candidate.
    """
    places, unit = labels([layer.name for layer in found.layers]), "ms, predicted" if latency else "multiply-adds"
    traces = []
    for number, title in enumerate(titles):
        values = [layer.latency_ms[number] if latency else layer.multiply_adds[number] for layer in found.layers]
        if not any(math.isfinite(value) for value in values):
            continue
        texts = [
            hover([title, layer.name, layer.kind, f"{value:,.4g} {unit}"])
            for layer, value in zip(found.layers, values, strict=True)
        ]
        traces.append(_bars(number, title, found.records[number].origin == "dense", (places, values, texts)))
    return _grouped(traces, titled(unit))


def compared_curves(found: Compared, titles: Sequence[str], metric: str) -> Figure:
    """Draw the learning curve of each candidate.

    Args:
        found: The comparison.
        titles: Name of each candidate.
        metric: Name of the quality.

    Returns:
        The figure: one line for each candidate, and one for the quality of the dense model.
    """
    traces: list[Properties] = []
    for number, (record, title) in enumerate(zip(found.records, titles, strict=True)):
        curve = found.curves[number] or ((0.0, record.search.quality), (1.0, record.search.quality))
        colour, is_dense = SERIES[(number - 1) % len(SERIES)], record.origin == "dense"
        traces.append(
            {
                "type": "scatter",
                "x": drawn([share for share, _ in curve]),
                "y": drawn([quality for _, quality in curve]),
                "mode": "lines" if is_dense else "lines+markers",
                "line": {"color": FAINT if is_dense else colour, "width": 2, "dash": "dot" if is_dense else "solid"},
                "marker": {"symbol": _SYMBOLS[number % len(_SYMBOLS)], "size": 8},
                "name": label(title),
                "hovertemplate": f"{label(title)}<br>%{{y:.4f}} at %{{x:.0%}}<extra></extra>",
            }
        )
    layout: Properties = {
        "xaxis": {**titled("part of the training done"), "tickformat": ".0%"},
        "yaxis": titled(f"{label(metric)} (search split)"),
        "height": _HEIGHT,
    }
    return {"data": traces, "layout": layout}


def _grouped(traces: list[Properties], yaxis: Properties) -> Figure:
    xaxis = {"type": "category", "autotickangles": SLANTED}
    return {"data": traces, "layout": {"barmode": "group", "xaxis": xaxis, "yaxis": yaxis, "height": _HEIGHT}}


def _bars(number: int, title: str, is_dense: bool, data: tuple[list[str], list[float], list[str]]) -> Properties:
    places, values, texts = data
    return {
        "type": "bar",
        "x": places,
        "y": drawn(values),
        "name": label(title),
        "marker": {"color": FAINT if is_dense else SERIES[(number - 1) % len(SERIES)]},
        "text": texts,
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }


def _kept(group: ComparedGroup, number: int) -> list[str]:
    rule = group.criteria[number]
    return [f"{group.widths[number]} of {group.channels} channels", *([f"ranked by {rule}"] if rule else [])]
