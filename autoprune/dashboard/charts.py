"""The chart of the front for the page: the figure of the report, with keys of candidates over all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from autoprune.dashboard.columns import key_of
from autoprune.dashboard.live import Snapshot
from autoprune.display import printable_line
from autoprune.front.quantities import SPLITS, quantities
from autoprune.records.objectives import QUALITY
from autoprune.report.figure import Figure, Properties, json_values
from autoprune.report.figures.cloud import cloud
from autoprune.report.figures.parallel import axes_of
from autoprune.report.figures.trade_off import TradeOff, trade_off
from autoprune.report.labels import label
from autoprune.report.theme import SERIES

#: Properties of a trace that the page works out from its columns, or asks for when they are wanted.
_KNOWN = {"type", "x", "y", "z", "text", "hovertemplate"}
#: Most members of fronts with intervals; more hide each other.
_MOST_INTERVALS = 80
#: Scale as a client names it -> whether it is logarithmic.
_SCALES = {"linear": False, "log": True}
#: Horizontal axis at first: the first of these that was measured.
_FIRST = ("latency_ms", "multiply_adds")
#: Third axis at first: the first of these that is on no other axis.
_THIRD = ("size_bytes", "multiply_adds", "parameters", QUALITY)
#: What an empty chart says.
_NOTHING = {
    "text": "Nothing to draw yet: no candidate has both numbers on this split.",
    "xref": "paper",
    "yref": "paper",
    "x": 0.5,
    "y": 0.5,
    "showarrow": False,
}


def front_chart(snapshots: Sequence[Snapshot], shown: int, wanted: Mapping[str, object], version: str) -> Properties:
    """Draw the chart of the front.

    Args:
        snapshots: All runs; the others lie behind the shown one.
        shown: Position of the run that is looked at.
        wanted: Axes, scales, split and kind of chart as a client asks for them; the default in place of unknown ones.
        version: State that the runs are in.

    Returns:
        Data and layout of the figure, the columns along its "axes", the "quantities" that were asked for with their
        "scales", and "view", which changes with them. Points have no numbers, which the page has in its columns.
    """
    few = sum(len(one.front.members) for one in snapshots) <= _MOST_INTERVALS
    view = replace(_view(snapshots[shown], wanted), intervals=few)
    third = _third(snapshots[shown], view, wanted) if wanted.get("view") == "3d" else ""
    traces: list[Properties] = []
    layout: Properties = {}
    order = [place for place in range(len(snapshots)) if place != shown] + [shown]
    for place in order:
        one = snapshots[place]
        if not {*_along(view, third).values()} <= quantities(one.front).keys():
            continue
        figure = one.once(("chart", view, third), lambda one=one: _drawn(one, view, third))  # type: ignore[misc]
        name = "" if len(snapshots) == 1 else printable_line(one.run.name, 40)
        own = [_keyed(trace, place) for trace in figure["data"]]
        traces += own if place == shown else _of_another(own, place, name)
        layout = figure["layout"]
    if not traces:
        layout = {**layout, "annotations": [_NOTHING]}
    return {
        "data": json_values([_lean(trace) for trace in traces]),
        "layout": json_values(layout),
        "axes": {axis: _column(name, view.split, snapshots[shown]) for axis, name in _along(view, third).items()},
        "quantities": {"x": view.x, "y": view.y, "z": third},
        "scales": [_scale(layout, "xaxis"), _scale(layout, "yaxis")],
        "view": f"{shown} {third} {layout.get('uirevision')}",
        "version": version,
    }


def _lean(trace: Properties) -> Properties:
    """Leave out what the page knows of points."""
    if "customdata" not in trace:
        return trace
    return {name: value for name, value in trace.items() if name not in _KNOWN}


def parallel_axes(one: Snapshot) -> object:
    """Describe the axes along which every candidate is a line.

    Args:
        one: The run.

    Returns:
        Split -> axes: those of the report's figure without numbers, each with the "column" that holds them.
    """
    return one.once("lines", lambda: {split: json_values(_lines(one, split)) for split in SPLITS})


def _lines(one: Snapshot, split: str) -> list[Properties]:
    return [{**axis, "column": _column(str(axis["name"]), split, one)} for axis in axes_of(one.front, split)]


def _keys(numbers: object, run: int) -> list[str]:
    return [key_of(run, int(str(number))) for number in numbers] if isinstance(numbers, list) else []


def _view(one: Snapshot, wanted: Mapping[str, object]) -> TradeOff:
    known = quantities(one.front)
    first = next((name for name in _FIRST if name in known), next(iter(known)))
    x, y = (str(wanted.get(name, "")) for name in ("x", "y"))
    split = str(wanted.get("split", ""))
    return TradeOff(
        x=x if x in known else first,
        y=y if y in known else QUALITY,
        split=split if split in SPLITS else SPLITS[0],
        log_x=_SCALES.get(str(wanted.get("xs", ""))),
        log_y=_SCALES.get(str(wanted.get("ys", ""))),
    )


def _third(one: Snapshot, view: TradeOff, wanted: Mapping[str, object]) -> str:
    """Choose the quantity of the third axis; "" where there are only two."""
    known = quantities(one.front)
    free = [name for name in (*_THIRD, *known) if name in known and name not in (view.x, view.y)]
    asked = str(wanted.get("z", ""))
    return asked if asked in known else next(iter(free), "")


def _drawn(one: Snapshot, view: TradeOff, third: str) -> Figure:
    if third:
        along = _along(view, third)
        return cloud(one.front, (along["x"], along["y"], along["z"]), view.split)
    return trade_off(one.front, view)


def _along(view: TradeOff, third: str) -> dict[str, str]:
    """Name the quantity along each axis of the figure; in space, what is up in the plane is up, too."""
    return {"x": view.x, "y": third, "z": view.y} if third else {"x": view.x, "y": view.y}


def _column(name: str, split: str, one: Snapshot) -> str:
    """Name the column of the page's table that an axis shows."""
    return name if split == SPLITS[0] or quantities(one.front)[name].is_cost else f"{name}@{split}"


def _scale(layout: Properties, axis: str) -> str:
    found = layout.get(axis)
    return str(found.get("type", "linear")) if isinstance(found, dict) else "linear"


def _keyed(trace: Properties, run: int) -> Properties:
    """Key the points of a trace by run."""
    return {**trace, "customdata": _keys(trace["customdata"], run)} if "customdata" in trace else trace


def _of_another(traces: Sequence[Properties], run: int, name: str) -> list[Properties]:
    """Draw another run than the shown one in its colour. One entry of the legend shows or hides the whole run."""
    entry = next((trace for trace in traces if trace.get("mode") == "lines"), next(iter(traces), None))
    named = {"name": label(name, 40), "legendgroup": f"run {run}", "opacity": 0.6}
    return [{**_coloured(trace, run), **named, "showlegend": trace is entry} for trace in traces]


def _coloured(trace: Properties, run: int) -> Properties:
    """Draw a trace in the colour of a run."""
    found, colour = dict(trace), SERIES[(run + 2) % len(SERIES)]
    for part in ("marker", "line", "error_x", "error_y"):
        look = trace.get(part)
        if isinstance(look, dict):
            edge = {"line": {**look["line"], "color": colour}} if isinstance(look.get("line"), dict) else {}
            found[part] = {**look, "color": colour, **edge}
    return found
