"""What the fields of plans are checked with."""

from __future__ import annotations

import math
from collections.abc import Iterable

from autoprune.errors import error_message, raise_all

#: (is it right, what, what was expected, what came).
FieldCheck = tuple[bool, str, str, object]


def validate(subject: str, checks: Iterable[FieldCheck]) -> None:
    """Raise one ConfigurationError that lists all that is wrong."""
    raise_all(subject, [error_message(what, want, repr(got)) for ok, what, want, got in checks if not ok])


def is_count(value: object) -> bool:
    """A whole number >= 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_finite(value: object) -> bool:
    """A number that is neither infinite nor not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)  # an integer may be too large for a float


def is_share(value: object) -> bool:
    """A number in [0, 1)."""
    return is_finite(value) and 0 <= value < 1  # type: ignore[operator]  # a number by then


def is_non_negative(value: object) -> bool:
    """A finite number >= 0."""
    return is_finite(value) and value >= 0  # type: ignore[operator]  # a number by then
