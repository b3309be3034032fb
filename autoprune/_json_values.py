"""Checked conversion of JSON values to Python's types, for the codec."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from types import NoneType
from typing import cast, get_args

from cattrs import Converter

from autoprune.display import LARGEST_INTEGER, describe_value, shorten
from autoprune.errors import error_message

#: Arguments of an annotation; a study has few annotations and millions of values.
_arguments = functools.cache(get_args)
#: Numbers lie between minus this and this, so that their squares and sums do not overflow.
_HIGHEST = 1e100
#: Longest text of which equal ones are shared, in characters.
_LONGEST_NAME = 64


class WrongValueError(Exception):
    """Value that does not have its type."""

    def __init__(self, expected: str, got: str) -> None:
        self.expected, self.got = expected, got
        super().__init__(expected, got)

    def located(self, path: str) -> str:
        """Build the sentence about the value at a path."""
        return error_message(path.removeprefix(".") or "it", self.expected, self.got).removesuffix(".")


class VersionMisfitError(WrongValueError):
    """Version that cannot be read; other faults follow from it."""

    is_later = False

    def located(self, path: str) -> str:
        """Build the sentence about the version of the object at a path."""
        where = f"{path.removeprefix('.')}: its" if path else "its"
        return f"{where} version must {self.expected}, but got {self.got}"


class MisfitError(Exception):
    """All faults of a value: (path below the value, error)."""

    def __init__(self, faults: Iterable[tuple[str, Exception]]) -> None:
        self.faults = tuple(faults)
        super().__init__(self.faults)


def below(step: str, error: Exception) -> list[tuple[str, Exception]]:
    """Convert the faults of a part to faults of the whole."""
    faults = error.faults if isinstance(error, MisfitError) else (("", error),)
    return [(f"{step}{path}", one) for path, one in faults]


def integer(data: object, _: object) -> int:
    """Accept an integer."""
    if type(data) is not int or abs(data) >= LARGEST_INTEGER:
        raise WrongValueError("be an integer", describe_value(data))
    return data


def number(data: object, _: object) -> float:
    """Accept a finite number of reasonable size."""
    if not (type(data) is float and abs(data) < _HIGHEST) and not (type(data) is int and abs(data) < LARGEST_INTEGER):
        too_high = type(data) is float and math.isfinite(data)
        raise WrongValueError(
            f"be a number below {_HIGHEST:g}" if too_high else "be a finite number", describe_value(data)
        )
    return data


def any_number(data: object, kind: object) -> float:
    """Accept a number, also NaN and infinities."""
    return data if isinstance(data, float) else number(data, kind)


def member(data: object, kind: type[StrEnum]) -> StrEnum:
    """Accept the value of a member of an enumeration."""
    values = [one.value for one in kind]
    if data not in values:
        raise WrongValueError(f"be one of {', '.join(map(str, values))}", describe_value(data))
    return kind(data)


def text(data: object, _: object) -> str:
    """Accept a text."""
    if not isinstance(data, str):
        raise WrongValueError("be a text", describe_value(data))
    return _shared(data)


def _shared(name: str) -> str:
    """Return one text for equal names, which thousands of candidates have in common."""
    return sys.intern(name) if type(name) is str and len(name) <= _LONGEST_NAME else name


def boolean(data: object, _: object) -> bool:
    """Accept true or false."""
    if not isinstance(data, bool):
        raise WrongValueError("be true or false", describe_value(data))
    return data


def tuple_of(converter: Converter, data: object, kind: object) -> tuple[object, ...]:
    """Convert a list to a tuple, of any length or of the annotation's length."""
    if not isinstance(data, list | tuple):
        raise WrongValueError("be a list", describe_value(data))
    kinds = _arguments(kind)
    if len(kinds) == 2 and kinds[1] is ...:
        if (kinds[0] is int and _are_integers(data)) or (kinds[0] is float and _are_floats(data)):
            return tuple(data)
        kinds = (kinds[0],) * len(data)
    if len(kinds) != len(data):
        raise WrongValueError(f"be a list of {len(kinds)}", describe_value(data))
    return tuple(_each(converter, ((place, one, kinds[place]) for place, one in enumerate(data))))


def _are_integers(data: Collection[object]) -> bool:
    """Tell whether all entries are integers, in one pass: lists of channels are long."""
    if not data or set(map(type, data)) != {int}:
        return False
    numbers = cast("Collection[int]", data)
    return min(numbers) > -LARGEST_INTEGER and max(numbers) < LARGEST_INTEGER


def _are_floats(data: Collection[object]) -> bool:
    """Tell whether all entries are finite floats, in one pass: lists of deviations are long."""
    return set(map(type, data)) == {float} and all(map(math.isfinite, cast("Collection[float]", data)))


def mapping_of(converter: Converter, data: object, kind: object) -> dict[str, object]:
    """Convert the values of an object."""
    inside, given = _arguments(kind)[1], json_object(data)
    structure = converter.get_structure_hook(inside)
    try:
        return {_shared(name): structure(one, inside) for name, one in given.items()}
    except (WrongValueError, MisfitError):
        pass  # collect the faults of all values
    parts = [(name, one, inside) for name, one in given.items()]
    return dict(zip(given, _each(converter, parts), strict=True))


def json_object(data: object) -> Mapping[str, object]:
    """Accept an object."""
    if not isinstance(data, Mapping):
        raise WrongValueError("be an object", describe_value(data))
    return data


def _each(converter: Converter, parts: Iterable[tuple[object, object, object]]) -> list[object]:
    """Structure every part: (name or place, data, annotation). Raises all of their faults at once."""
    found, faults = [], []
    for step, data, kind in parts:
        try:
            found.append(converter.structure(data, cast("type[object]", kind)))
        except (WrongValueError, MisfitError) as error:
            faults += below(f"[{shorten(repr(step))}]", error)
    if faults:
        raise MisfitError(faults)
    return found


def union_of(converter: Converter, data: object, kind: object) -> object:
    """Convert by the first annotation that accepts the value; only None accepts null."""
    kinds = _arguments(kind)
    if data is None and NoneType in kinds:
        return None
    if _is_plain(data) and type(data) in kinds:
        return data  # parameters of trials, of which a run has many
    kinds = tuple(one for one in kinds if one is not NoneType)
    errors: list[WrongValueError | MisfitError] = []
    for one in kinds:
        try:
            return converter.structure(data, one)
        except (WrongValueError, MisfitError) as error:
            errors.append(error)
    wrong = [error for error in errors if isinstance(error, WrongValueError)]
    if len(wrong) < len(errors):  # of the right kind, and wrong inside
        raise next(error for error in errors if isinstance(error, MisfitError))
    raise WrongValueError(
        _either([error.expected for error in wrong] + ["be null"] * (len(kinds) < len(_arguments(kind)))),
        describe_value(data),
    )


def _is_plain(data: object) -> bool:
    """Tell whether a value is one of the types of JSON, and no extreme number."""
    if isinstance(data, bool | str):
        return True
    return isinstance(data, int | float) and abs(data) < LARGEST_INTEGER


def _either(expected: list[str]) -> str:
    first, *others = expected
    return " or ".join((first, *(other.removeprefix("be ") for other in others)))
