"""Three measured quantities of all candidates in space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.front.front import Front
from autoprune.front.quantities import Quantity, find_quantity
from autoprune.records.objectives import QUALITY
from autoprune.records.origins import Origin
from autoprune.report.figure import Figure, Properties, drawn, titled
from autoprune.report.labels import label
from autoprune.report.theme import ACCENT, FAINT, ORIGIN_COLOURS


def cloud(
    front: Front,
    names: tuple[str, str, str] = ("size_bytes", "latency_ms", QUALITY),
    split: str = "search",
    hovers: Sequence[str] = (),
) -> Figure:
    """Draw three quantities of all candidates; those of the front stand out.

    Args:
        front: Front of a study.
        names: Names of the quantities along the three axes.
        split: Split of the numbers, "search" or "test".
        hovers: Result of `report.hover.hover_texts`; empty for the numbers of the axes alone.

    Returns:
        The figure; `customdata` of a point is the number of its candidate.

    Raises:
        UnknownNameError: The study has no such quantity.
    """
    axes = [find_quantity(front, name) for name in names]
    values = np.array([axis.values(front, split) for axis in axes])
    known = np.isfinite(values).all(axis=0)
    numbers = {record.number for record in front.members}
    member = np.array([record.number in numbers for record in front.records], dtype=bool)
    dense = np.array([record is front.dense for record in front.records], dtype=bool)
    looks: list[tuple[str, np.ndarray, Properties]] = [
        ("beaten or stopped", known & ~member & ~dense, {"size": 3, "color": FAINT, "opacity": 0.45}),
        ("front", known & member & ~dense, {"size": 6, "color": ACCENT}),
        ("dense model", known & dense, {"size": 7, "color": ORIGIN_COLOURS[Origin.DENSE], "symbol": "diamond"}),
    ]
    traces: list[Properties] = []
    for name, mask, marker in looks:
        places = np.flatnonzero(mask).tolist()
        if not places:
            continue
        trace: Properties = {"type": "scatter3d", "mode": "markers", "marker": marker, "name": name}
        trace |= {axis: drawn(values[place, places]) for place, axis in enumerate("xyz")}
        trace["customdata"] = [front.records[place].number for place in places]
        if hovers:
            trace |= {"text": [hovers[place] for place in places], "hovertemplate": "%{text}<extra></extra>"}
        traces.append(trace)
    scene = {f"{axis}axis": _axis(front, quantity) for axis, quantity in zip("xyz", axes, strict=True)}
    layout: Properties = {
        "scene": {
            **scene,
            "camera": {"eye": {"x": 1.35, "y": -1.35, "z": 0.65}, "center": {"x": 0, "y": 0, "z": -0.15}},
        },
        "height": 520,
        "uirevision": " ".join(names),
    }
    return {"data": traces, "layout": layout}


def _axis(front: Front, quantity: Quantity) -> Properties:
    name = front.metric if quantity.name == QUALITY else quantity.axis_title
    form = {"type": "log", "tickformat": "~s", "dtick": "D2"} if quantity.is_cost and not quantity.is_compared else {}
    return {**titled(label(name)), **form}
