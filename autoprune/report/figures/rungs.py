"""Learning curves: the quality of each candidate at the rungs of its training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoprune.front.front import Front
from autoprune.records.candidate import CandidateRecord
from autoprune.report.figure import Figure, Properties, drawn, scatter_type, titled
from autoprune.report.labels import label
from autoprune.report.theme import ACCENT, BAD, FAINT


def learning_curves(front: Front) -> Figure:
    """Draw the quality of every candidate with rungs against the part of its training that was done.

    A candidate that was trained to the end has its final quality as its last point.

    Args:
        front: Front of a study.

    Returns:
        The figure: one trace for the stopped, one for the beaten, one for the front.
    """
    members = {record.number for record in front.members}
    looked = [record for record in front.records if record.rungs]
    kinds = [
        ("beaten", [one for one in looked if not one.stopped and one.number not in members], FAINT, 0.3),
        ("stopped early", [one for one in looked if one.stopped], BAD, 0.55),
        ("front", [one for one in looked if one.number in members], ACCENT, 0.9),
    ]
    kind = scatter_type(len(looked))
    layout: Properties = {
        "xaxis": {**titled("part of the training done"), "tickformat": ".0%"},
        "yaxis": titled(f"{label(front.metric)} (search split)"),
        "height": 400,
    }
    traces = [
        _lines(name, records, colour, opacity) | {"type": kind} for name, records, colour, opacity in kinds if records
    ]
    return {"data": traces, "layout": layout}


def _lines(name: str, records: Sequence[CandidateRecord], colour: str, opacity: float) -> Properties:
    """Draw the curves of several candidates as one trace, with gaps."""
    xs: list[float] = []
    ys: list[float] = []
    numbers: list[int] = []
    for record in records:
        curve = [*record.rungs, *([] if record.stopped else [(1.0, record.search.quality)]), (math.nan, math.nan)]
        xs += [share for share, _ in curve]
        ys += [quality for _, quality in curve]
        numbers += [record.number] * len(curve)
    return {
        "x": drawn(xs),
        "y": drawn(ys),
        "mode": "lines+markers",
        "line": {"color": colour, "width": 1.5},
        "marker": {"color": colour, "size": 5},
        "opacity": opacity,
        "name": name,
        "customdata": numbers,
        "hovertemplate": "candidate %{customdata}<br>%{y:.4f} at %{x:.0%}<extra></extra>",
    }
