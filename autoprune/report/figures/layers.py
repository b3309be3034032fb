"""Layers of the candidates: channels kept in each group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from autoprune.front.front import Front
from autoprune.records.candidate import CandidateRecord
from autoprune.report.figure import SLANTED, Figure, Properties, titled
from autoprune.report.labels import hover, label, labels
from autoprune.report.theme import ACCENT

#: Largest number of candidates in a heat map.
MOST_ROWS = 60
#: Height of a row of the heat map, and of its margins, in pixels.
_ROW, _AROUND = 20, 190
#: Least height of the heat map.
_LOW = 320


def shown_members(front: Front) -> list[CandidateRecord]:
    """Select members for a heat map, the most expensive first: all, or as many as fit, evenly over the front.

    Args:
        front: Front of a study.

    Returns:
        The members, without the dense model.
    """
    members = [record for record in front.members if record is not front.dense]
    if len(members) <= MOST_ROWS:
        return members
    return [members[place] for place in np.linspace(0, len(members) - 1, MOST_ROWS).round().astype(int).tolist()]


def kept_shares(front: Front, widths: Mapping[str, int]) -> Figure:
    """Draw the share of channels that each member of the front keeps of each group.

    Args:
        front: Front of a study.
        widths: Group -> channels in the dense model.

    Returns:
        The figure: one row for each member, the most expensive on top, one column for each group and dropped block.
    """
    members = shown_members(front)
    blocks = list(dict.fromkeys(block for record in members for block in record.dropped))
    rows, texts = [], []
    for record in members:
        kept = record.widths
        rows.append(
            [round(kept.get(name, whole) / whole, 3) for name, whole in widths.items()]
            + [0.0 if block in record.dropped else 1.0 for block in blocks]
        )
        texts.append(
            [_cell(record, name, kept.get(name, whole), whole) for name, whole in widths.items()]
            + [hover([block, "dropped" if block in record.dropped else "there"]) for block in blocks]
        )
    names = [f"{record.number} ({front.share(record):.0%})" for record in members]
    trace: Properties = {
        "type": "heatmap",
        "x": labels([*widths, *blocks]),
        "y": [f"candidate {name}" for name in names],
        "z": rows,
        "text": texts,
        "hovertemplate": "%{y}<br>%{text}<extra></extra>",
        "zmin": 0.0,
        "zmax": 1.0,
        "colorbar": {**titled("kept"), "tickformat": ".0%"},
    }
    layout: Properties = {
        "height": max(_LOW, _AROUND + _ROW * len(members)),
        "xaxis": {"type": "category", "autotickangles": SLANTED, "showgrid": False},
        "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False},
    }
    return {"data": [trace], "layout": layout}


def layer_bars(record: CandidateRecord, widths: Mapping[str, int]) -> Figure:
    """Draw the channels that one candidate keeps in each group, over those of the dense model.

    Args:
        record: Candidate.
        widths: Group -> channels in the dense model.

    Returns:
        The figure.
    """
    places, kept = labels(list(widths)), record.widths
    stay = [kept.get(name, whole) for name, whole in widths.items()]
    texts = [_cell(record, name, width, widths[name]) for name, width in zip(widths, stay, strict=True)]
    dense = {"type": "bar", "x": places, "y": list(widths.values()), "name": "dense model"}
    own = {"type": "bar", "x": places, "y": stay, "name": label(f"candidate {record.number}")}
    traces: list[Properties] = [
        {**dense, "marker": {"color": "rgba(125,133,144,0.28)"}, "hoverinfo": "skip"},
        {
            **own,
            "marker": {"color": ACCENT},
            "text": texts,
            "textposition": "none",
            "hovertemplate": "%{text}<extra></extra>",
        },
    ]
    layout: Properties = {
        "barmode": "overlay",
        "yaxis": titled("channels"),
        "xaxis": {"type": "category", "autotickangles": SLANTED},
        "height": 400,
    }
    return {"data": traces, "layout": layout}


def _cell(record: CandidateRecord, name: str, width: int, whole: int) -> str:
    rule = record.plan.groups[name].criterion if name in record.plan.groups else ""
    return hover([name, f"{width} of {whole} channels kept", *([f"chosen by {rule}"] if rule else [])])
