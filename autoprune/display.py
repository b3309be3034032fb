"""Text of users (names, paths, error messages) made safe to show.

Such text is data. `errors.plain_text` takes terminal escapes out, spells out what does not print and shortens. Each
medium has one function that everything passes through on top of it:

- terminal: `printable_lines`, called by the console of `autoprune.terminal` and by the command line for errors;
- HTML: `printable_line`, called by `autoprune.report.page` on each value of a template and then escaped;
- plotly: `autoprune.report.labels.label`, since plotly reads tags in any text;
- CSV: `csv_cell`;
- JSON: the encoder, which spells out everything that is not ASCII; tables by `json_rows`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence

from autoprune.errors import plain_text

#: Most characters of one value, and of a message of several lines.
MAX_LINE, MAX_MESSAGE = 2_000, 20_000
#: A spreadsheet takes a cell that begins so for a formula; the wide forms too.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def printable_lines(value: object, most: int = MAX_MESSAGE) -> str:
    r"""Return the text of a value as lines of printable characters, shortened.

    Args:
        value: any object; one whose `str()` fails is shown by its type.
        most: characters that stay, >= 1.

    Returns:
        Text without terminal escapes that any encoding of Unicode can write.

    Example:
        >>> lines("a [red]name[/red]\x1b[2J")
        'a [red]name[/red]'

    """
    try:
        text = str(value)
    except Exception as error:  # an object of the user's may fail to describe itself
        text = f"<{type(value).__name__} whose str() raises {type(error).__name__}>"
    return plain_text(text, most)


def printable_line(value: object, most: int = MAX_LINE) -> str:
    """Return the text of a value like `printable_lines`, with a space for each line break and tab.

    Args:
        value: any object.
        most: characters that stay, >= 1.

    Returns:
        One line of printable text.

    """
    return printable_lines(value, most).replace("\n", " ").replace("\t", " ")


def csv_cell(value: object) -> object:
    """Return a cell that a spreadsheet does not run as a formula.

    Args:
        value: text or a number; numbers, which may begin with a sign, stay as they are.

    Returns:
        The value; text that begins like a formula has an apostrophe in front, which spreadsheets do not show.

    Example:
        >>> csv_cell("=1+1"), csv_cell(-0.5)
        ("'=1+1", -0.5)

    """
    if not isinstance(value, str):
        return value
    return f"'{printable_line(value)}" if value.lstrip(" ").startswith(_FORMULA) else printable_line(value)


def json_rows(rows: Sequence[Mapping[Hashable, object]]) -> str:
    """Return the rows of a table as JSON, with all digits and whatever their texts hold.

    Args:
        rows: column name -> value; a number that is not finite becomes null.

    Returns:
        ASCII text.

    """
    known = [{str(name): _known(value) for name, value in row.items()} for row in rows]
    return json.dumps(known, indent=1)


def summarize_names(names: Sequence[str], most: int = 2) -> str:
    """Write the first names, and how many more there are."""
    shown = first_names(names, most)
    return ", ".join(shown) if len(names) <= most else f"{', '.join(shown[:-1])} and {shown[-1]}"


def first_names(names: Sequence[str], most: int | None) -> list[str]:
    """Take the first names, and how many more there are as the last one; all of them where `most` is None."""
    if most is None or len(names) <= most:
        return list(names)
    return [*names[:most], f"{len(names) - most} more"]


def _known(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number_text(value: object) -> str:
    """Write a number for a cell: whole and large ones without fraction, others with four digits; the rest as it is."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
