"""HTML page in one file: style, plotly, figures and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup

from autoprune.display import printable_line
from autoprune.report.figure import Figure, json_values


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
    figure: Figure | None = None
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
            plotly=Markup(_packaged("plotly.min.js")),
            style=json.loads(_packaged("templates/plotly_white.json")),
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("autoprune.report"),
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json_values"] = json_values
    return environment


def _finalize(value: object) -> object:
    """Make a value of a template safe: our HTML stays, other text is cleaned here and escaped afterwards."""
    return value if isinstance(value, Markup) else printable_line(value)


def _packaged(name: str) -> str:
    """Read a file of the package plotly, whose own functions import all of its classes first."""
    return resources.files("plotly").joinpath("package_data", name).read_text(encoding="utf-8")
