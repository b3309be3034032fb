"""Names that fit into tables, files and commands."""

from __future__ import annotations

from autoprune.errors import error_message

#: Most characters of the name of a metric or scheduler, which becomes the head of a column.
LONGEST_NAME = 100


def wrong_name(what: str, name: object) -> str:
    """Check a name.

    Args:
        what: Subject of the sentence.
        name: Any object.

    Returns:
        A sentence; "" for a valid name.
    """
    if isinstance(name, str) and name.strip() and name.isprintable() and len(name) <= LONGEST_NAME:
        return ""
    return error_message(
        what, f"be printable text of 1 to {LONGEST_NAME} characters", repr(name), "Give it another name."
    )
