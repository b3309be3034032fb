"""Elements of the page made from the plain data of sections. React writes every text as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from dash import html
from dash.development.base_component import Component

from autoprune.display import printable_line
from autoprune.report.figure import json_values
from autoprune.report.section import Picture, Section, Table

#: Longest cell that stays on one line.
_LONG = 60


def tagged(element: Component, attributes: Mapping[str, str]) -> Component:
    """Give an element attributes whose names have hyphens.

    Args:
        element: The element.
        attributes: Name, such as "aria-label" -> value.

    Returns:
        The element.
    """
    for name, value in attributes.items():
        setattr(element, name, value)
    return element


def section_element(section: Section, prefix: str = "") -> Component:
    """Build a section.

    Args:
        section: The section.
        prefix: Beginning of its anchor, where there are several of its kind.

    Returns:
        Its element.
    """
    title = f"section-{prefix}{section.anchor}"
    parts: list[Component] = [html.H2(printable_line(section.title), id=title)]
    parts += sentences([section.lead] if section.lead else [])
    parts += sentences(section.warnings, "warning")
    if section.pictures:
        two = " two" if len(section.pictures) > 1 else ""
        parts.append(html.Div([picture_element(one) for one in section.pictures], className=f"pictures{two}"))
    parts += [] if section.table is None else [table_element(section.table, section.title)]
    parts += sentences(section.notes, "soft small")
    return tagged(html.Section(parts, className="card stack"), {"aria-labelledby": title})


def sentences(texts: Iterable[str], kind: str = "") -> list[Component]:
    """Build paragraphs.

    Args:
        texts: A sentence for each.
        kind: Class of the paragraphs.

    Returns:
        The elements.
    """
    return [html.P(printable_line(text, 2000), className=kind) for text in texts]


def picture_element(picture: Picture) -> Component:
    """Build a figure, which the page draws when it comes in sight.

    Args:
        picture: The figure and its text.

    Returns:
        Its element.
    """
    figure = json.dumps(json_values(picture.figure), separators=(",", ":"))
    height = picture.figure["layout"].get("height", 420)
    plot = tagged(
        html.Div(className="plot", role="group", style={"height": f"{height}px"}),
        {"data-figure": figure, "aria-label": printable_line(picture.text, 2000)},
    )
    head = [html.H3(printable_line(picture.title))] if picture.title else []
    return html.Figure([*head, plot, html.Figcaption(printable_line(picture.text, 2000))])


def table_element(table: Table, title: str) -> Component:
    """Build a table in a box that scrolls.

    Args:
        table: The table.
        title: Its name for screen readers.

    Returns:
        Its element.
    """
    head = [
        html.Th(printable_line(name), scope="col", className="name" if place < table.names else "number")
        for place, name in enumerate(table.head)
    ]
    body = [html.Tr([_cell(text, place, table.names) for place, text in enumerate(row)]) for row in table.rows]
    return tagged(
        html.Div(
            html.Table([html.Thead(html.Tr(head)), html.Tbody(body)]), className="table", tabIndex="0", role="region"
        ),
        {"aria-label": f"Table: {printable_line(title)}"},
    )


def _cell(text: str, place: int, names: int) -> Component:
    shown = printable_line(text)
    kind = "number" if place >= names else "name long" if len(shown) > _LONG else "name"
    return html.Th(shown, scope="row", className=kind) if place == 0 and names else html.Td(shown, className=kind)


def facts(pairs: Sequence[tuple[str, str, str]]) -> Component:
    """Build a list of numbers with their meaning.

    Args:
        pairs: (number, meaning, note) for each.

    Returns:
        The element.
    """
    entries = [
        html.Div(
            [
                html.Dt([printable_line(meaning), *([html.Small(printable_line(note))] if note else [])]),
                html.Dd(printable_line(number)),
            ]
        )
        for number, meaning, note in pairs
    ]
    return html.Dl(entries, className="facts")


def button(text: str, act: str, key: str = "", *, primary: bool = False) -> Component:
    """Build a button that asks the page for something.

    Args:
        text: What it says.
        act: Name of the action, see `assets/40-controls.js`.
        key: Key of the candidate that it is about, or the text to copy.
        primary: Whether it is the one that most people want.

    Returns:
        The element.
    """
    kind = "button primary" if primary else "button"
    return tagged(html.Button(text, type="button", className=kind), {"data-act": act, "data-key": key})
