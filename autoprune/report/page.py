"""HTML page in one file: style, plotly, figures and tables."""

from __future__ import annotations

import functools
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
    """Table of texts.

    Attributes:
        head: Names of the columns.
        rows: Cells of each row, one for each column.
        numeric: Whether the cells are numbers, which are never broken over two lines.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Part of the page under a title.

    Attributes:
        title: Title.
        figure: Figure under the title.
        notes: Paragraphs under the figure.
        table: Table under the notes.
    """

    title: str
    figure: go.Figure | None = None
    notes: tuple[str, ...] = ()
    table: Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Whole page.

    Attributes:
        title: Title of the browser window.
        heading: Heading at the top.
        lead: Paragraph under the heading.
        findings: (sentence, whether it is a warning).
        sections: Sections in their order.
    """

    title: str
    heading: str
    lead: str
    findings: Sequence[tuple[str, bool]] = ()
    sections: Sequence[Section] = ()


def render(page: Page) -> str:
    """Render a page; the environment of the templates escapes all text.

    Args:
        page: Page to render.

    Returns:
        HTML.
    """
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
    """Make a value of a template safe: our HTML stays, other text is cleaned here and escaped afterwards."""
    return value if isinstance(value, Markup) else printable_line(value)


def _drawn(figure: go.Figure) -> Markup:
    """Render a figure as HTML in the style of the page; plotly escapes its data inside the script."""
    plain = figure.to_dict()
    plain["layout"]["template"] = _style()
    return Markup(plotly.io.to_html(plain, include_plotlyjs=False, full_html=False, validate=False))


@functools.cache
def _style() -> dict[str, object]:
    """Return the template of all figures; setting it in each of them takes plotly longer than the rest of the page."""
    style: dict[str, object] = plotly.io.templates["plotly_white"].to_plotly_json()
    return style
