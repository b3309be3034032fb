"""Pinned candidates side by side with the dense model."""

from __future__ import annotations

from collections.abc import Sequence

from dash import html
from dash.development.base_component import Component

from autoprune.dashboard.elements import sentences, table_element
from autoprune.dashboard.live import Snapshot
from autoprune.display import printable_line
from autoprune.front.front import Front
from autoprune.front.table import text_table
from autoprune.records.candidate import CandidateRecord
from autoprune.report.section import Table

_HOW = (
    "Pin candidates to compare them: with the button of an opened candidate, with Space in the table, or by a "
    "click on a point with Shift."
)


def compare(snapshots: Sequence[Snapshot], pinned: Sequence[tuple[int, int]]) -> list[Component]:
    """Compare pinned candidates.

    Args:
        snapshots: The runs.
        pinned: (position of the run, number) of each candidate.

    Returns:
        The elements.
    """
    found: list[Component] = []
    for place, one in enumerate(snapshots):
        numbers = [number for run, number in pinned if run == place]
        records = [record for record in one.front.records if record.number in numbers]
        if records:
            name = printable_line(one.run.name, 80)
            found.append(
                html.Section([html.H2(name), table_element(_table(one.front, records), name)], className="card stack")
            )
    return found or [html.Section(sentences([_HOW]), className="card")]


def _table(front: Front, records: Sequence[CandidateRecord]) -> Table:
    """Write a column for the dense model and each candidate."""
    dense = front.dense
    shown = [*([dense] if dense is not None and dense not in records else []), *records]
    head, rows = text_table(front.problem, dense, shown, front.as_good_as)
    lines = [(name, *(row[place] for row in rows)) for place, name in enumerate(head) if place]
    groups = sorted({name for record in shown for name in record.widths})
    lines += [(name, *(str(record.widths.get(name, "")) for record in shown)) for name in groups]
    titles = ["dense" if record is dense else f"candidate {record.number}" for record in shown]
    return Table(head=("", *titles), rows=tuple(lines))
