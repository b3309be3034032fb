"""One HTML file with everything in it: style, plotly, figures, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
import plotly.graph_objects as go
import plotly.io
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from autoprune.display import printable_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of texts. head: names of the columns. rows: as many cells each."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page under its title. figure, notes, table: in this order, where there are any."""

    title: str
    figure: go.Figure | None = None
    notes: tuple[str, ...] = ()
    table: Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole page.

    title: of the window. heading, lead: name and paragraph at the top. findings: (sentence, is a warning).
    sections: in their order.
    """

    title: str
    heading: str
    lead: str
    findings: Sequence[tuple[str, bool]] = ()
    sections: Sequence[Section] = ()


def render(page: Page) -> str:
    """Return the page as HTML; all text in it is escaped by the templates' environment."""
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=page.title,
            heading=page.heading,
            lead=page.lead,
            findings=page.findings,
            sections=page.sections,
            plotly=Markup(get_plotlyjs()),
            drawn=_drawn,
        )
    )


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("autoprune.report"),
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: object) -> object:
    """Whatever a template puts in: HTML that we made as it is, anything else as safe text, escaped after this."""
    return value if isinstance(value, Markup) else printable_line(value)


def _drawn(figure: go.Figure) -> Markup:
    """A figure as HTML; plotly escapes its data inside the script."""
    return Markup(plotly.io.to_html(figure, include_plotlyjs=False, full_html=False))
