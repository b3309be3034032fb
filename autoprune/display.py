"""Safe display of users' text: names, paths and error messages.

Such text is data. `errors.plain_text` removes terminal escapes, spells out characters that do not print and shortens.
Each medium has one more function that every text passes through:

- terminal: `printable_lines`, called by the console of `autoprune.report.terminal`, and by the command line for errors;
- HTML: `printable_line`, called by `autoprune.report.page` on each value of a template, and then escaped;
- plotly: `autoprune.report.labels.label`, since plotly reads tags in any text;
- CSV: `csv_text`, which passes each cell through `csv_cell`;
- JSON: the encoder, which spells out everything that is not ASCII; tables by `json_rows`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence

from autoprune.errors import plain_text

#: Most tensors in one message.
_FAULTS_TOLD = 3
#: Largest number of characters of one value, and of a message of several lines.
MAX_LINE, MAX_MESSAGE = 2_000, 20_000
#: Integers of JSON lie between minus this and this, so that arrays can hold them.
LARGEST_INTEGER = 2**63
#: Characters of a wrong value that a message shows.
_MAX_VALUE = 60
#: A spreadsheet reads a cell that begins with one of these as a formula; the wide forms too.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def printable_lines(value: object, most: int = MAX_MESSAGE) -> str:
    r"""Convert a value to lines of printable characters, shortened.

    Args:
        value: Any object; one whose `str()` fails is shown by its type.
        most: Largest number of characters, >= 1.

    Returns:
        Text without terminal escapes that any encoding of Unicode can write.

    Example:
        >>> printable_lines("a [red]name[/red]\x1b[2J")
        'a [red]name[/red]'
    """
    try:
        text = str(value)
    except Exception as error:  # the __str__ of a user's object may fail
        text = f"<{type(value).__name__} whose str() raises {type(error).__name__}>"
    return plain_text(text, most)


def printable_line(value: object, most: int = MAX_LINE) -> str:
    """Convert a value to one line like `printable_lines`, with a space for each line break and tab.

    Args:
        value: Any object.
        most: Largest number of characters, >= 1.

    Returns:
        One line of printable text.
    """
    return printable_lines(value, most).replace("\n", " ").replace("\t", " ")


def csv_cell(value: object) -> object:
    """Convert a value to a cell that a spreadsheet does not run as a formula.

    Args:
        value: Text or a number. Numbers, which may begin with a sign, stay unchanged.

    Returns:
        The value. Text that begins like a formula has an apostrophe in front, which spreadsheets do not show.

    Example:
        >>> csv_cell("=1+1"), csv_cell(-0.5)
        ("'=1+1", -0.5)
    """
    if not isinstance(value, str):
        return value
    shown = printable_line(value)
    # Terminal escapes in front are gone from the text that is shown; line breaks and tabs are spaces there.
    is_formula = any(text.lstrip(" ").startswith(_FORMULA) for text in (value, shown))
    return f"'{shown}" if is_formula else shown


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Write the rows of a table as CSV with all digits, by `csv_cell`. Every CSV comes from here.

    Args:
        rows: Column name -> value; all rows have the same columns. None and NaN become empty cells.

    Returns:
        The text, with a line of names; "" without rows.

    Example:
        >>> csv_text([{"name": "=1", "gain": -0.5}]).splitlines()
        ['name,gain', "'=1,-0.5"]
    """
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([csv_cell(str(name)) for name in rows[0]])
    for row in rows:
        writer.writerow(["" if is_missing(value) else csv_cell(value) for value in row.values()])
    return text.getvalue()


def is_missing(value: object) -> bool:
    """Tell whether a table has no value in a cell.

    Args:
        value: Value of the cell.

    Returns:
        True for None and NaN.
    """
    return value is None or (isinstance(value, float) and math.isnan(value))


def json_rows(rows: Sequence[Mapping[str, object]]) -> str:
    """Write the rows of a table as JSON with all digits.

    Args:
        rows: Column name -> value; a number that is not finite becomes null.

    Returns:
        ASCII text.
    """
    known = [{name: _known(value) for name, value in row.items()} for row in rows]
    return json.dumps(known, indent=1)


def summarize_names(names: Sequence[str], most: int = 2) -> str:
    """Write the first names and the number of the others.

    Args:
        names: One or more names.
        most: Number of names to write, >= 1.

    Returns:
        Such as "a, b and 3 more".
    """
    shown = first_names(names, most)
    return ", ".join(shown) if len(names) <= most else f"{', '.join(shown[:-1])} and {shown[-1]}"


def first_names(names: Sequence[str], most: int | None) -> list[str]:
    """Take the first names; the last entry then tells the number of the others.

    Args:
        names: Any number of names.
        most: Number of names to take; None for all.

    Returns:
        The names, and "N more" where there are more.
    """
    if most is None or len(names) <= most:
        return list(names)
    return [*names[:most], f"{len(names) - most} more"]


def _known(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number_text(value: object) -> str:
    """Write a number for a cell of a table.

    Args:
        value: A number, or any other object.

    Returns:
        Whole and large numbers without fraction, others with four digits, other objects by `str()`.
    """
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def signed_text(value: float) -> str:
    """Write a difference with four decimals; none is "+0.0000", from whichever side.

    Args:
        value: A difference.

    Returns:
        The number with its sign.

    Example:
        >>> signed_text(-0.00001), signed_text(-0.25)
        ('+0.0000', '-0.2500')
    """
    return f"{round(value, 4) + 0.0:+.4f}"


def describe_value(value: object) -> str:
    """Describe a wrong value of JSON in a few words.

    Args:
        value: Any object.

    Returns:
        One phrase, such as "a list of 3".

    Example:
        >>> describe_value([1, 2, 3])
        'a list of 3'
    """
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= LARGEST_INTEGER:
        return f"an integer of {value.bit_length()} bits"
    return shorten(repr(value))


def shorten(text: str) -> str:
    """Cut a long text for a message.

    Args:
        text: Any text.

    Returns:
        At most 60 characters, and "..." where some were cut.
    """
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}..."


def join_faults(faults: Collection[str]) -> str:
    """Join the first few faults to one line.

    Args:
        faults: Clauses.

    Returns:
        The line, with the number of faults that are left out.
    """
    first = [*faults][:_FAULTS_TOLD]
    more = f"; {len(faults) - _FAULTS_TOLD} more" if len(faults) > _FAULTS_TOLD else ""
    return f"{'; '.join(first)}{more}"


def without_password(text: str) -> str:
    """Hide the password of a URL.

    Args:
        text: URL, path, or text with a URL.

    Returns:
        The same with *** in place of the password.

    Example:
        >>> without_password("postgresql+psycopg://me:secret@host/name")
        'postgresql+psycopg://me:***@host/name'
    """
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", text)
