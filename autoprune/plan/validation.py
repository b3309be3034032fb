"""Validation of the fields of plans and settings."""

from __future__ import annotations

import math
from collections.abc import Iterable

from autoprune.display import LARGEST_INTEGER, describe_value
from autoprune.errors import error_message, raise_all

#: (whether the value is valid, name of the field, what it must do, the value).
FieldCheck = tuple[bool, str, str, object]


def validate(subject: str, checks: Iterable[FieldCheck]) -> None:
    """Check fields and report all faults at once.

    Args:
        subject: Name of the object that has the fields, for the message.
        checks: One check for each rule.

    Raises:
        ConfigurationError: When a check fails; the message lists every fault.
    """
    raise_all(subject, [error_message(what, want, shown(got)) for ok, what, want, got in checks if not ok])


def shown(value: object) -> str:
    """Write a wrong value for a message.

    Args:
        value: Any object.

    Returns:
        Its text, and of an integer too large for files and arrays how many bits it has.
    """
    if isinstance(value, tuple):
        inner = ", ".join(map(shown, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return describe_value(value) if isinstance(value, int) and not isinstance(value, bool) else repr(value)


def is_count(value: object) -> bool:
    """Tell whether a value is an integer >= 0 that files and arrays can hold.

    Args:
        value: Any object; True and False are no integers here.

    Returns:
        True for an integer in [0, 2**63).
    """
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_INTEGER


def is_finite(value: object) -> bool:
    """Tell whether a value is a finite number.

    Args:
        value: Any object; True and False are no numbers here.

    Returns:
        False for infinities, NaN, integers of more than 63 bits and anything but a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < LARGEST_INTEGER if isinstance(value, int) else math.isfinite(value)


def is_share(value: object) -> bool:
    """Tell whether a value is a number in [0, 1).

    Args:
        value: Any object.

    Returns:
        True for a number in [0, 1).
    """
    return is_finite(value) and 0 <= value < 1  # type: ignore[operator]  # a number by then


def is_non_negative(value: object) -> bool:
    """Tell whether a value is a finite number >= 0.

    Args:
        value: Any object.

    Returns:
        True for a finite number >= 0.
    """
    return is_finite(value) and value >= 0  # type: ignore[operator]  # a number by then
