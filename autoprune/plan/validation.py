"""Validation of the fields of plans and settings."""

from __future__ import annotations

import math
from collections.abc import Iterable

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
    raise_all(subject, [error_message(what, want, repr(got)) for ok, what, want, got in checks if not ok])


def is_count(value: object) -> bool:
    """Tell whether a value is an integer >= 0.

    Args:
        value: Any object; True and False are no integers here.

    Returns:
        True for an integer >= 0.
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_finite(value: object) -> bool:
    """Tell whether a value is a finite number.

    Args:
        value: Any object; True and False are no numbers here.

    Returns:
        False for infinities, NaN and anything but a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)  # an integer may be too large for a float


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
