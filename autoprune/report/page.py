"""HTML page in one file: style, plotly, sections with figures and tables."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup

from autoprune.display import printable_line
from autoprune.report import theme
from autoprune.report.figure import json_values
from autoprune.report.section import Section, Summary

#: Longest cell that is kept on few lines.
_LONG = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Whole page.

    Attributes:
        title: Title of the browser window.
        heading: Heading at the top.
        lead: Paragraph of the first screen where there is no summary; "" for none.
        summary: Result on the first screen; None for none.
        parts: (title of a part, its sections) in their order.
    """

    title: str
    heading: str
    lead: str = ""
    summary: Summary | None = None
    parts: Sequence[tuple[str, Sequence[Section]]] = ()


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
            page=page,
            plotly=Markup(plotly_script()),
            style=Markup(f"{theme.stylesheet()}\n{theme.static_text('report.css')}"),
            templates=theme.templates(),
            theme_script=Markup(theme.static_text("theme.js")),
            script=Markup(theme.static_text("report.js")),
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
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": False}
    environment.tests["long"] = lambda text: len(text) > _LONG
    return environment


def _finalize(value: object) -> object:
    """Make a value of a template safe: our HTML stays, other text is cleaned here and escaped afterwards."""
    return value if isinstance(value, Markup) else printable_line(value)


@functools.cache
def plotly_script() -> str:
    """Read plotly.js from the package plotly, whose own functions import all of its classes first.

    Returns:
        Its code.
    """
    return resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
