"""Text in figures: plotly reads tags such as <b> and <a href> in every label, title and hover text."""

from __future__ import annotations

import html
from collections.abc import Sequence

from autoprune.display import printable_line

#: Characters of a label, and of a line of a hover text.
_LABEL, _HOVER = 80, 200


def label(value: object, most: int = _LABEL) -> str:
    """Return the text of a value for a figure, shortened, with its tags as text.

    Args:
        value: any object.
        most: characters that stay, >= 1.

    Returns:
        Text that plotly shows as it is.

    """
    return html.escape(printable_line(value, most), quote=False)


def labels(names: Sequence[str]) -> list[str]:
    """Return a label for each name, as categories of an axis: different names stay different.

    Args:
        names: any texts.

    Returns:
        As many labels; those that would be alike are numbered.

    """
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        text = short = label(name)
        count = 1
        while text in taken:
            count += 1
            text = f"{short} ({count})"
        taken.add(text)
        found.append(text)
    return found


def hover(lines: Sequence[object]) -> str:
    """Return the text of a hover box.

    Args:
        lines: what to show, one below the other.

    Returns:
        The lines, each safe like a label.

    """
    return "<br>".join(label(text, _HOVER) for text in lines)
