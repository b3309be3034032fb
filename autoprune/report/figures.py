"""Figures of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from autoprune.front.convergence import Curve
from autoprune.front.front import Front
from autoprune.front.importance import Importances
from autoprune.front.table import text_table
from autoprune.records.candidate import CandidateRecord
from autoprune.records.objectives import COSTS, QUALITY, Objective
from autoprune.report.figure import Figure, Properties, margins, titled
from autoprune.report.labels import hover, label, labels

#: Colour-blind safe (Okabe and Ito 2008); one for each origin, the front in black.
ORIGIN_COLOURS: Mapping[str, str] = {
    "dense": "#000000",
    "uniform": "#E69F00",
    "solved": "#009E73",
    "enqueued": "#CC79A7",
    "sampled": "#56B4E9",
    "polished": "#0072B2",
}
#: Colours of the importances' targets, beginning with the last target.
_OF_TARGETS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
#: Costs that the report always draws.
_ALWAYS_DRAWN = ("multiply_adds", "size_bytes")


def drawn_objectives(front: Front) -> list[Objective]:
    """List what the report draws the quality over: costs with measurements, and further metrics among the objectives.

    Args:
        front: Front of a study.

    Returns:
        Multiply-adds and size, then the other objectives and timed costs, if any candidate has a number.
    """
    timed = (name for name, cost in front.problem.costs.items() if cost.is_timed)
    names = dict.fromkeys((*_ALWAYS_DRAWN, *timed, *front.problem.objectives))
    return [
        front.problem.objective(name)
        for name in names
        if name in _ALWAYS_DRAWN
        or (name != QUALITY and any(math.isfinite(front.value(record, name)) for record in front.records))
    ]


def hover_texts(front: Front) -> dict[int, str]:
    """Write the hover text of each candidate.

    Args:
        front: Front of a study.

    Returns:
        Number of a candidate -> text.
    """
    return {record.number: _hover(front, record) for record in front.records}


def pareto(front: Front, over: Objective, hovers: Mapping[int, str]) -> Figure:
    """Draw quality over one objective: candidates coloured by origin, the front as a line, standard errors as bars.

    Args:
        front: Front of a study.
        over: Objective of the horizontal axis.
        hovers: Result of `hover_texts`.

    Returns:
        The figure.
    """
    traces = []
    numbers = {record.number for record in front.members}
    for origin in ORIGIN_COLOURS:
        members = [record for record in front.records if record.origin == origin]
        members.sort(key=lambda record: record.number not in numbers)  # the legend shows the first one's marker
        if members:
            traces.append(_points(front, members, over, hovers))
    line = _staircase(front, over)
    traces.append(
        {
            "type": "scatter",
            "x": [front.value(record, over.name) for record in line],
            "y": [record.search.quality for record in line],
            "mode": "lines",
            "line": {"color": "#444444", "width": 1, "shape": "hv"},
            "name": f"best for its {label(over.axis_title)}",
            "hoverinfo": "skip",
        }
    )
    return {"data": traces, "layout": layout_over(front, over)}


def layout_over(front: Front, over: Objective) -> Properties:
    """Lay out a chart of quality against an objective.

    Args:
        front: Front of the study, for the name of its quality.
        over: Objective of the horizontal axis. Costs get a logarithmic axis.

    Returns:
        The layout.
    """
    return {
        "xaxis": {**titled(label(over.axis_title)), "type": "log" if over.is_cost else "linear"},
        "yaxis": titled(f"{label(front.metric)} (search split)"),
        "height": 460,
        "margin": margins(60, 20, 20, 50),
        "legend": {"orientation": "h", "y": -0.2},
    }


def pareto_3d(front: Front, hovers: Mapping[int, str]) -> Figure:
    """Draw quality over size and latency; members of the front are filled.

    Args:
        front: Front of a study with measured latencies.
        hovers: Result of `hover_texts`.

    Returns:
        The figure.
    """
    numbers = {record.number for record in front.members}
    traces: list[Properties] = []
    for kind, inside in (("front", True), ("dominated", False)):
        members = [record for record in front.records if (record.number in numbers) == inside and record.search.latency]
        traces.append(
            {
                "type": "scatter3d",
                "x": [record.search.size_bytes for record in members],
                "y": [front.value(record, "latency_ms") for record in members],
                "z": [record.search.quality for record in members],
                "mode": "markers",
                "marker": {
                    "size": 5 if inside else 3,
                    "color": "#D55E00" if inside else "#999999",
                    "opacity": 1.0 if inside else 0.5,
                },
                "text": [hovers[record.number] for record in members],
                "hoverinfo": "text",
                "name": kind,
            }
        )
    layout: Properties = {
        "scene": {
            "xaxis": {**titled(COSTS["size_bytes"].axis_title), "type": "log"},
            "yaxis": titled(COSTS["latency_ms"].axis_title),
            "zaxis": titled(label(front.metric)),
        },
        "height": 560,
        "margin": margins(0, 0, 10, 0),
        "legend": {"orientation": "h", "y": 0.0},
    }
    return {"data": traces, "layout": layout}


def _without(record: CandidateRecord) -> str:
    return f", without {', '.join(record.dropped)}" if record.dropped else ""


def layers(front: Front, groups: Sequence[Mapping[str, object]]) -> Figure:
    """Draw the channels kept in each group for one member of the front, chosen in a menu, over the dense widths.

    Args:
        front: Front of a study.
        groups: Rows with "name" and "channels" of each dense group.

    Returns:
        The figure.
    """
    names = [str(group["name"]) for group in groups]
    dense = [int(str(group["channels"])) for group in groups]
    places = labels(names)
    traces: list[Properties] = [
        {"type": "bar", "x": places, "y": dense, "marker": {"color": "#DDDDDD"}, "name": "dense"}
    ]
    records = list(front.members)
    shown = records.index(front.knee()) if records else 0
    for position, record in enumerate(records):
        widths = [record.widths.get(name, channels) for name, channels in zip(names, dense, strict=True)]
        criteria = [record.plan.groups[name].criterion if name in record.plan.groups else "" for name in names]
        text = [
            hover([name, f"{width} of {channels} kept", rule])
            for name, width, channels, rule in zip(names, widths, dense, criteria, strict=True)
        ]
        traces.append(
            {
                "type": "bar",
                "x": places,
                "y": widths,
                "marker": {"color": "#0072B2"},
                "name": f"candidate {record.number}",
                "visible": position == shown,
                "hovertext": text,
                "hoverinfo": "text",
            }
        )
    layout: Properties = {
        "barmode": "overlay",
        "yaxis": titled("channels"),
        "xaxis": {"type": "category", "tickangle": -45},
        "height": 480,
        "margin": margins(60, 20, 70, 120),
        "showlegend": False,
    }
    if records:
        layout["updatemenus"] = _member_menu(records, label(front.metric), shown)
    return {"data": traces, "layout": layout}


def _member_menu(records: Sequence[CandidateRecord], metric: str, shown: int) -> list[Properties]:
    """Write a menu that shows the dense bars and those of one candidate."""
    buttons = [
        {
            "label": f"candidate {record.number}: {metric} {record.search.quality:.4g}{label(_without(record))}",
            "method": "update",
            "args": [{"visible": [True, *[other == position for other in range(len(records))]]}],
        }
        for position, record in enumerate(records)
    ]
    return [{"buttons": buttons, "active": shown, "x": 0, "xanchor": "left", "y": 1.18, "yanchor": "top"}]


def progress(front: Front, curve: Curve) -> Figure:
    """Draw the hypervolume and the samples trained after each trial.

    Args:
        front: Front of a study.
        curve: Result of `front.convergence.convergence`.

    Returns:
        The figure.
    """
    trained = np.cumsum([record.samples_trained for record in front.records])
    numbers = [record.number for record in front.records]
    volume: Properties = {"x": numbers, "y": curve["hypervolume"], "name": "hypervolume", "line": {"color": "#0072B2"}}
    samples = {
        "x": numbers,
        "y": trained,
        "yaxis": "y2",
        "name": "samples trained",
        "line": {"color": "#999999", "dash": "dot"},
    }
    layout: Properties = {
        "xaxis": {**titled("trial"), "domain": [0.0, 0.94]},
        "yaxis": titled("hypervolume (quality, multiply-adds)"),
        "yaxis2": {**titled("samples trained, in all"), "overlaying": "y", "side": "right"},
        "height": 360,
        "margin": margins(60, 60, 20, 50),
        "legend": {"orientation": "h", "y": -0.25},
    }
    return {"data": [{"type": "scatter", **trace} for trace in (volume, samples)], "layout": layout}


def importance(found: Importances) -> Figure:
    """Draw the share of the variance of a target's ranks that each parameter explains; pale where chance explains as
    much.

    Targets are chosen in the legend; at first the quality and the quality at equal cost are visible.

    Args:
        found: Importances of a study.

    Returns:
        The figure.
    """
    shown = {"quality", *found.targets[-1:]}
    colours = zip(reversed(found.targets), _OF_TARGETS, strict=False)
    traces = [_target_bars(found, target, colour, shown=target in shown) for target, colour in colours]
    layout: Properties = {
        "xaxis": {**titled("share of the variance of ranks"), "tickformat": ".0%", "rangemode": "tozero"},
        "yaxis": {"type": "category", "autorange": "reversed"},
        "height": 140 + 36 * len(found.parameters),
        "margin": margins(140, 20, 20, 50),
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    }
    return {"data": traces, "layout": layout}


def _target_bars(found: Importances, target: str, colour: str, *, shown: bool) -> Properties:
    """Draw the bars of one target."""
    cells = [row.targets[target] for row in found.parameters]
    return {
        "type": "bar",
        "y": labels([row.name if row.members == 1 else f"{row.name} ({row.members})" for row in found.parameters]),
        "x": [cell.share for cell in cells],
        "error_x": _bars(
            [max(cell.high - cell.share, 0.0) for cell in cells], [max(cell.share - cell.low, 0.0) for cell in cells]
        ),
        "orientation": "h",
        "marker": {"color": colour, "opacity": [0.25 if cell.is_noise else 1.0 for cell in cells]},
        "hovertext": [
            hover([row.name, f"{target}: {cell}"]) for row, cell in zip(found.parameters, cells, strict=True)
        ],
        "hoverinfo": "text",
        "name": label(target),
        "visible": True if shown else "legendonly",
    }


def _points(front: Front, members: Sequence[CandidateRecord], over: Objective, hovers: Mapping[int, str]) -> Properties:
    """Draw the candidates of one origin."""
    origin = members[0].origin
    inside = {record.number for record in front.members}
    points: Properties = {
        "type": "scatter",
        "x": [front.value(record, over.name) for record in members],
        "y": [record.search.quality for record in members],
        "error_y": _bars([record.search.quality_error for record in members]),
        "mode": "markers",
        "marker": {
            "color": ORIGIN_COLOURS[origin],
            "size": [11 if record.number in inside else 7 for record in members],
            "symbol": [_symbol(front, record.number in inside, record) for record in members],
        },
        "text": [hovers[record.number] for record in members],
        "hoverinfo": "text",
        "name": origin,
    }
    return {**points, "error_x": _ratio_bars(front, members, over)} if over.is_timed else points


def _symbol(front: Front, inside: bool, record: CandidateRecord) -> str:
    """Return the marker: filled on the front, with a dot where a candidate is dominated within noise only."""
    within_noise = record.number in front.as_good_as
    return "circle-open-dot" if within_noise else "circle" if inside else "circle-open"


def _ratio_bars(front: Front, members: Sequence[CandidateRecord], over: Objective) -> Properties:
    """Draw 95 % intervals of the ratio to dense, in the axis' unit; asymmetric."""
    up, down = [], []
    for record in members:
        found, middle = over.comparison(record.search), front.value(record, over.name)
        up.append(middle * (found.high / found.ratio - 1) if found else 0.0)
        down.append(middle * (1 - found.low / found.ratio) if found else 0.0)
    return _bars(up, down)


def _bars(up: list[float], down: list[float] | None = None) -> Properties:
    """Draw thin error bars, as long below as above when `down` is None."""
    below = {} if down is None else {"arrayminus": down}
    return {"type": "data", "array": up, **below, "thickness": 1, "width": 2}


def _staircase(front: Front, over: Objective) -> list[CandidateRecord]:
    """Select the members of the front with the best quality for each value of one objective, from its best value on."""
    line: list[CandidateRecord] = []
    known = [record for record in front.members if math.isfinite(front.value(record, over.name))]
    for record in sorted(known, key=lambda record: over.loss(front.value(record, over.name))):
        if not line or front.problem.quality.gain(record.search.quality, line[-1].search.quality) > 0:
            line.append(record)
    return line


def _hover(front: Front, record: CandidateRecord) -> str:
    head, (cells,) = text_table(front.problem, front.dense, [record], front.as_good_as)
    said = dict(zip(head, cells, strict=True))
    lines = [f"{said.pop('candidate')} ({said.pop('origin')})", *(f"{name}: {cell}" for name, cell in said.items())]
    if record.parent is not None:
        lines.append(f"from candidate {record.parent}")
    return hover([f"candidate {lines[0]}", *lines[1:]])
