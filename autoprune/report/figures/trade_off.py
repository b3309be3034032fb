"""Two measured quantities of all candidates against each other: the chart that a model is chosen by."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.front.front import Front
from autoprune.front.limit_check import INTERVAL
from autoprune.front.quantities import Quantity, allowed_range, find_quantity
from autoprune.records.limits import Limits
from autoprune.records.objectives import QUALITY
from autoprune.records.origins import Origin
from autoprune.report.figure import Figure, Properties, drawn, scatter_type, titled
from autoprune.report.labels import label
from autoprune.report.theme import (
    ACCENT,
    BEATEN,
    FAINT,
    NOISE,
    ORIGIN_COLOURS,
    ORIGIN_SYMBOLS,
    REGION,
    STOPPED,
)

#: Origin -> its name in a legend.
ORIGIN_NAMES = {
    Origin.DENSE: "dense model",
    Origin.UNIFORM: "uniform sweep",
    Origin.SOLVED: "solved",
    Origin.ENQUEUED: "your plans",
    Origin.SAMPLED: "sampled",
    Origin.POLISHED: "polished",
}
#: Share of the beaten candidates that may lie outside the chart at first, and room around the rest.
_OUTSIDE, _ROOM = 0.05, 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeOff:
    """Axes, split and limits of the chart.

    Attributes:
        x: Name of the quantity along the horizontal axis.
        y: Name of the quantity along the vertical axis.
        split: Split of the numbers, "search" or "test".
        log_x: Whether the horizontal axis is logarithmic; None for costs only.
        log_y: Whether the vertical axis is logarithmic; None for costs only.
        limits: Limits whose region is shaded; None for none.
        intervals: Whether members of the front and baselines have their 95 % intervals.
    """

    x: str = "multiply_adds"
    y: str = QUALITY
    split: str = "search"
    log_x: bool | None = None
    log_y: bool | None = None
    limits: Limits | None = None
    intervals: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """One axis with the numbers of all candidates along it."""

    quantity: Quantity
    values: np.ndarray
    log: bool
    split: str

    @classmethod
    def of(cls, front: Front, name: str, split: str, log: bool | None) -> _Axis:
        quantity = find_quantity(front, name)
        values = quantity.values(front, split)
        positive = not (values <= 0).any()
        return cls(
            quantity=quantity,
            values=values,
            log=(quantity.is_cost if log is None else log) and positive,
            split=split,
        )

    def title(self, front: Front) -> str:
        """Name the axis; the split matters only to a metric."""
        name = front.metric if self.quantity.name == QUALITY else self.quantity.axis_title
        return label(name if self.quantity.is_cost else f"{name} ({self.split} split)")

    @property
    def form(self) -> str:
        """Format of the ticks: 1.2M for counts."""
        if not self.quantity.is_cost:
            return ""
        return ".3~g" if self.quantity.is_compared else "~s"

    def loss(self) -> np.ndarray:
        """Turn the numbers into losses."""
        return -self.values if self.quantity.better == "higher" else self.values


def trade_off(front: Front, view: TradeOff, hovers: Sequence[str] = (), marked: Collection[int] = ()) -> Figure:
    """Draw two quantities of all candidates.

    Members of the front and baselines have their 95 % intervals, unless `view` leaves them out; dominated and stopped
    candidates are faded. The line joins the best of the front. The region within limits and the noise of the dense
    model are shaded.

    Args:
        front: Front of a study.
        view: What to draw.
        hovers: Result of `report.hover.hover_texts`; empty texts for the numbers of the axes alone.
        marked: Numbers of candidates with a ring.

    Returns:
        The figure; `customdata` of a point is the number of its candidate.

    Raises:
        UnknownNameError: The study has no such quantity.
    """
    x = _Axis.of(front, view.x, view.split, view.log_x)
    y = _Axis.of(front, view.y, view.split, view.log_y)
    shown = _Shown.of(front, x, y)
    points = _Points(front=front, x=x, y=y, hovers=hovers, intervals=view.intervals)
    traces = [*points.stopped(shown), *points.beaten(shown), *_best_line(x, y, shown), *points.shown(shown)]
    traces += points.marked([place for place, record in enumerate(front.records) if record.number in marked])
    layout: Properties = {
        "xaxis": _axis(front, x, shown),
        "yaxis": _axis(front, y, shown),
        "height": 460,
        "uirevision": f"{view.x} {view.y} {view.split} {x.log} {y.log}",
    }
    shapes = [*_noise(front, x, y), *_region(front, view, x, y, shown)]
    return {"data": traces, "layout": {**layout, "shapes": shapes} if shapes else layout}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """Which candidates are drawn how, bool [records]."""

    bold: np.ndarray
    stopped: np.ndarray
    beaten: np.ndarray
    member: np.ndarray

    @classmethod
    def of(cls, front: Front, x: _Axis, y: _Axis) -> _Shown:
        known = np.isfinite(x.values) & np.isfinite(y.values)
        numbers = {record.number for record in front.members}
        member = np.array([record.number in numbers for record in front.records], dtype=bool)
        baseline = np.array([record.origin.is_baseline for record in front.records], dtype=bool)
        stopped = np.array([record.stopped for record in front.records], dtype=bool)
        bold = (member | baseline) & ~stopped
        return cls(bold=bold & known, stopped=stopped & known, beaten=~bold & ~stopped & known, member=member & known)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Points:
    """Traces of points."""

    front: Front
    x: _Axis
    y: _Axis
    hovers: Sequence[str]
    intervals: bool

    def stopped(self, shown: _Shown) -> Iterator[Properties]:
        places = np.flatnonzero(shown.stopped)
        if len(places):
            marker = {"color": FAINT, "symbol": "x-thin-open", "size": 6, "opacity": STOPPED}
            yield {**self._points(places), "marker": marker, "name": "stopped early", "legendrank": 1100}

    def beaten(self, shown: _Shown) -> Iterator[Properties]:
        for origin, places in self._by_origin(shown.beaten):
            marker = {"color": ORIGIN_COLOURS[origin], "symbol": ORIGIN_SYMBOLS[origin], "size": 7, "opacity": BEATEN}
            alone = not any(self.front.records[place].origin is origin for place in np.flatnonzero(shown.bold))
            yield {
                **self._points(places),
                "marker": marker,
                "name": ORIGIN_NAMES[origin],
                "legendgroup": str(origin),
                "showlegend": alone,
            }

    def shown(self, shown: _Shown) -> Iterator[Properties]:
        for origin, unsorted in self._by_origin(shown.bold):
            dense = origin is Origin.DENSE
            within = self._is_as_good(unsorted) & (not dense)
            order = np.argsort(within, kind="stable")  # the legend shows the marker of the first one
            places, as_good = unsorted[order], within[order]
            sizes = [15 if dense else 11 if shown.member[place] else 8 for place in places]
            symbol = ORIGIN_SYMBOLS[origin]
            trace = {
                **self._points(places, shapes=True),
                "marker": {
                    "color": ORIGIN_COLOURS[origin],
                    "symbol": [f"{symbol}-open-dot" if one else symbol for one in as_good],
                    "size": sizes,
                    "opacity": 1.0,
                    "line": {"width": 1.5, "color": ORIGIN_COLOURS[origin]},
                },
                "name": ORIGIN_NAMES[origin],
                "legendgroup": str(origin),
            }
            yield {**trace, **self._intervals(places, ORIGIN_COLOURS[origin])}

    def _intervals(self, places: np.ndarray, colour: str) -> Properties:
        found: Properties = {}
        for axis, key in ((self.x, "error_x"), (self.y, "error_y")):
            arms = axis.quantity.arms(self.front, axis.split) if self.intervals else None
            if arms is not None:
                found[key] = _bars(arms[0][places], arms[1][places], colour)
        return found

    def marked(self, places: Sequence[int]) -> list[Properties]:
        known = [place for place in places if np.isfinite([self.x.values[place], self.y.values[place]]).all()]
        if not known:
            return []
        marker = {"color": ACCENT, "symbol": "circle-open", "size": 24, "line": {"width": 2.5}}
        ring: Properties = {"type": "scatter", "mode": "markers", "marker": marker, "name": "suggested"}
        at = {"x": drawn(self.x.values[known]), "y": drawn(self.y.values[known])}
        return [{**ring, **at, "hoverinfo": "skip", "legendrank": 900}]

    def _is_as_good(self, places: np.ndarray) -> np.ndarray:
        """Tell which candidates are on the front although they are beaten, within the noise."""
        numbers = (self.front.records[place].number for place in places)
        return np.array([number in self.front.as_good_as for number in numbers], dtype=bool)

    def _by_origin(self, mask: np.ndarray) -> Iterator[tuple[Origin, np.ndarray]]:
        for origin in ORIGIN_NAMES:
            places = [place for place in np.flatnonzero(mask).tolist() if self.front.records[place].origin is origin]
            if places:
                yield origin, np.array(places)

    def _points(self, places: np.ndarray, *, shapes: bool = False) -> Properties:
        numbers = [self.front.records[place].number for place in places]
        points: Properties = {
            "type": "scatter" if shapes else scatter_type(len(self.front.records)),
            "mode": "markers",
            "x": drawn(self.x.values[places]),
            "y": drawn(self.y.values[places]),
            "customdata": numbers,
        }
        if self.hovers and all(self.hovers[place] for place in places):
            return {
                **points,
                "text": [self.hovers[place] for place in places],
                "hovertemplate": "%{text}<extra></extra>",
            }
        lines = [
            f"{axis.title(self.front)} %{{{name}:{axis.quantity.form}}}"
            for axis, name in ((self.x, "x"), (self.y, "y"))
        ]
        return {**points, "hovertemplate": "<br>".join(("candidate %{customdata}", *lines)) + "<extra></extra>"}


def _bars(up: np.ndarray, down: np.ndarray, colour: str) -> Properties:
    """Draw thin 95 % intervals."""
    arms = {"array": drawn(up), "arrayminus": drawn(down)}
    return {"type": "data", **arms, "thickness": 1, "width": 0, "color": colour}


def _best_line(x: _Axis, y: _Axis, shown: _Shown) -> list[Properties]:
    """Join the members that are best in one quantity for each number of the other one, from the best on."""
    places = np.flatnonzero(shown.member)
    if not (x.quantity.better and y.quantity.better) or not len(places) or x.quantity.name == y.quantity.name:
        return []
    over, of = x.loss(), y.loss()
    line: list[int] = []
    for place in sorted(places.tolist(), key=lambda place: (over[place], of[place])):
        if not line or of[place] < of[line[-1]]:
            line.append(place)
    return [
        {
            "type": "scatter",
            "x": drawn(x.values[line]),
            "y": drawn(y.values[line]),
            "mode": "lines",
            "line": {"color": FAINT, "width": 1.5, "shape": "hv"},
            "name": f"best for its {label(x.quantity.axis_title)}",
            "hoverinfo": "skip",
            "legendrank": 1050,
        }
    ]


def _axis(front: Front, axis: _Axis, shown: _Shown) -> Properties:
    found: Properties = {**titled(axis.title(front)), "type": "log" if axis.log else "linear"}
    if axis.form:
        found["tickformat"] = axis.form
    reach = _reach(axis, shown)
    if axis.log and reach is not None and reach[1] >= 10 * reach[0]:
        found["dtick"] = "D2"  # ticks at 1, 2 and 5
    return (
        found if reach is None else {**found, "range": [math.log10(end) for end in reach] if axis.log else list(reach)}
    )


def _reach(axis: _Axis, shown: _Shown) -> tuple[float, float] | None:
    """Find the part of an axis that is worth looking at: the front, the baselines, and nearly all others."""
    ends = [axis.values[shown.bold]]
    beaten = axis.values[shown.beaten]
    if len(beaten):
        ends.append(np.quantile(beaten, (_OUTSIDE, 1 - _OUTSIDE), method="nearest"))
    values = np.concatenate(ends)
    if len(np.unique(values)) < 2:  # beside one number there are stopped candidates alone
        values = np.concatenate([values, axis.values[shown.stopped]])
    if not len(values):
        return None
    values = np.log10(values) if axis.log else values
    low, high = float(values.min()), float(values.max())
    room = _ROOM * (high - low) if high > low else max(abs(high) * _ROOM, 0.01)
    low, high = low - room, high + room
    return (10**low, 10**high) if axis.log else (low, high)


def _noise(front: Front, x: _Axis, y: _Axis) -> list[Properties]:
    """Shade the 95 % interval of the dense model's own quality."""
    dense = None if front.dense is None else front.dense.measured_on(y.split)
    if dense is None or not dense.quality_error > 0:
        return []
    ends = (dense.quality - INTERVAL * dense.quality_error, dense.quality + INTERVAL * dense.quality_error)
    found = []
    for name, other, axis in (("x", "y", x), ("y", "x", y)):
        if axis.quantity.name == QUALITY:
            across = {f"{other}ref": "paper", f"{other}0": 0, f"{other}1": 1}
            along = dict(zip((f"{name}0", f"{name}1"), ends, strict=True))
            found.append(_rectangle({f"{name}ref": name, **along, **across}, NOISE, "noise of the dense model (95 %)"))
    return found


def _region(front: Front, view: TradeOff, x: _Axis, y: _Axis, shown: _Shown) -> list[Properties]:
    """Shade what the limits allow; they refer to the search split."""
    if view.limits is None or not view.limits.given:
        return []
    corners: Properties = {}
    limited = False
    for name, axis in (("x", x), ("y", y)):
        reach = _reach(axis, shown)
        if reach is None:
            return []
        of_split = axis.quantity.is_cost or axis.split == "search"
        low, high = allowed_range(front, view.limits, axis.quantity) if of_split else (-math.inf, math.inf)
        limited = limited or math.isfinite(low) or math.isfinite(high)
        ends = max(low, reach[0]), min(high, reach[1])
        if ends[0] >= ends[1]:
            return []
        corners |= {f"{name}ref": name, **dict(zip((f"{name}0", f"{name}1"), ends, strict=True))}
    return [_rectangle(corners, REGION, "within the limits")] if limited else []


def _rectangle(corners: Properties, colour: str, name: str) -> Properties:
    look = {"fillcolor": colour, "line": {"width": 0}, "layer": "below", "showlegend": True, "name": name}
    return {"type": "rect", **corners, **look, "legendrank": 1200}
