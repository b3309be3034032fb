"""Pinned candidates side by side with the dense model."""

from __future__ import annotations

from collections.abc import Sequence

from dash import html
from dash.development.base_component import Component

from autoprune.dashboard.columns import key_of
from autoprune.dashboard.elements import button, section_element, sentences
from autoprune.dashboard.live import Snapshot
from autoprune.display import printable_line
from autoprune.report.sections.comparison import comparison_sections, layer_data

_HOW = (
    "Pin candidates to compare them with the dense model: by the button of an opened candidate, by the space bar in "
    "the table, or by a click on a point with Shift."
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
        known = {record.number for record in one.front.records}
        numbers = [number for run, number in pinned if run == place and number in known]
        if not numbers:
            continue
        layers = one.once("layers", lambda one=one: layer_data(one.run))  # type: ignore[misc]
        title = [html.H2(printable_line(one.run.name, 80))] if len(snapshots) > 1 else []
        chips = [button(f"Unpin {number}", "unpin", key_of(place, number)) for number in numbers]
        found.append(html.Div([*title, *chips], className="row wrap"))
        sections = comparison_sections(one.run, one.front, numbers, layers, one.annotations)
        found += [section_element(section, f"{place}-") for section in sections]
    return found or [html.Section(sentences([_HOW]), className="card")]
