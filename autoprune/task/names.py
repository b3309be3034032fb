"""Names that fit into tables, files and commands."""

from __future__ import annotations

from autoprune.errors import error_message
from autoprune.records.objectives import find_cost

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


def wrong_metric_name(what: str, name: object) -> str:
    """Check the name of a metric. It is an objective, a limit and a column, and so must not be that of a cost.

    Args:
        what: Subject of the sentence.
        name: Any object.

    Returns:
        A sentence; "" for a valid name.
    """
    if isinstance(name, str) and find_cost(name) is not None:
        return error_message(what, "be no cost, which every study has", repr(name), "Give it another name.")
    return wrong_name(what, name)
