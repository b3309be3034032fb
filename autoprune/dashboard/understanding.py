"""The sections of the report that explain a study: layers, sensitivity, what mattered, progress, failures."""

from __future__ import annotations

from dash import html
from dash.development.base_component import Component

from autoprune.dashboard.elements import section_element, tagged
from autoprune.dashboard.live import Snapshot
from autoprune.display import printable_line
from autoprune.report.section import Section
from autoprune.report.sections.registry import SECTIONS

#: Sections whose charts Choose shows, with more to them.
_ELSEWHERE = ("trade-offs", "all-quantities")


def understand(one: Snapshot) -> list[Component]:
    """Build the sections of a run.

    Args:
        one: The run.

    Returns:
        Links to the sections, and the sections.
    """
    found = one.once("understanding", lambda: _sections(one))
    links = [html.A(printable_line(section.title), href=f"#section-{section.anchor}") for section in found]
    return [tagged(html.Nav(links, className="links"), {"aria-label": "Sections"}), *map(section_element, found)]


def _sections(one: Snapshot) -> list[Section]:
    makers = [make for part in SECTIONS.values() for anchor, make in part.items() if anchor not in _ELSEWHERE]
    return [section for make in makers if (section := make(one.run, one.front)) is not None]
