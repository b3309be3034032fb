"""Text in figures, made safe: plotly reads tags such as <b> and <a href> in every label, title and hover text."""

from __future__ import annotations

import html
from collections.abc import Sequence

from autoprune.display import printable_line

#: Largest number of characters of a label, and of a line of a hover text.
_LABEL, _HOVER = 80, 200


def label(value: object, most: int = _LABEL) -> str:
    """Convert a value to text for a figure, shortened, with its tags as text.

    Args:
        value: Any object.
        most: Largest number of characters, >= 1.

    Returns:
        Text that plotly shows literally.
    """
    return html.escape(printable_line(value, most), quote=False)


def labels(names: Sequence[str]) -> list[str]:
    """Make labels for the categories of an axis: different names get different labels.

    Args:
        names: Any texts.

    Returns:
        A label for each name; equal labels are numbered.
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
    """Make the text of a hover box.

    Args:
        lines: Lines of the box.

    Returns:
        The lines, each safe like a label.
    """
    return "<br>".join(label(text, _HOVER) for text in lines)
