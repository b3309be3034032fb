"""The one codec: JSON of run folders, plans and exports to frozen dataclasses and back; believed only where it fits.

A class says how it is stored with `@stored(Format(...))`; types of fields are its annotations, and taken at their word:
no text for a number, no true for 1, and no NaN but where the format allows it. An integer is a number too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import TypeVar, cast, get_args, get_origin

from cattrs import Converter
from cattrs.errors import ClassValidationError
from cattrs.gen import make_dict_structure_fn, override

from autoprune.errors import AutopruneError, StorageError, UnknownNameError, error_message

T = TypeVar("T")
#: Integers lie between minus this and this, so that arrays can hold them.
_LARGEST = 2**63
#: Numbers lie between minus this and this, so that their squares and sums do not overflow.
_HIGHEST = 1e100
#: Faults that one message tells.
_TOLD = 3
#: Characters of a wrong value that a message shows.
_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How a dataclass is stored.

    what: a noun for people. version: the last one, written beside the fields; 0 for a part of something with a version.
    optional: fields that may be missing and then have their default; None for all that have one. since: field ->
        version that brought it, missing before. apart: fields that are stored elsewhere.
    any_number: fields whose numbers may be NaN or infinite; None for all fields.
    refuses_unknown: a field that the class does not have is a fault; else it is left out.
    """

    what: str
    version: int = 0
    optional: Collection[str] | None = ()
    since: Mapping[str, int] = field(default_factory=dict)
    apart: Collection[str] = ()
    any_number: Collection[str] | None = ()
    refuses_unknown: bool = False


#: How each class is stored.
STORED_FORMATS: dict[type, Format] = {}


def stored(form: Format) -> Callable[[type[T]], type[T]]:
    """Enter a dataclass into STORED_FORMATS."""

    def enter(kind: type[T]) -> type[T]:
        STORED_FORMATS[kind] = form
        return kind

    return enter


def from_plain(kind: type[T], data: object, where: str, raises: type[AutopruneError] = StorageError) -> T:
    """Make a dataclass from parsed JSON.

    Args:
        kind: A class of STORED_FORMATS.
        data: What `parse` gave.
        where: What holds the data, for the message, such as the path of a file.
        raises: Class of the error.

    Raises:
        AutopruneError: Of the class asked for; names each field that does not fit, what it must be, and what it is.

    """
    try:
        return _CONVERTER.structure(data, kind)
    except (_WrongError, _MisfitError) as misfit:
        faults = _below("", misfit)
    path, error = faults[0]
    if isinstance(error, _VersionError):
        raise raises(f"{where}: {error.located(path)}.")
    if len(faults) == 1 and not path and where == STORED_FORMATS[kind].what and isinstance(error, raises):
        raise error  # it names the whole already
    told = "; ".join(_told(path, error) for path, error in faults[:_TOLD])
    more = f" (and {len(faults) - _TOLD} more)" if len(faults) > _TOLD else ""
    raise raises(error_message(where, f"hold {STORED_FORMATS[kind].what}", f"one in which {told}{more}"))


def to_plain(value: object) -> object:
    """Make JSON-ready data of a dataclass, mapping or sequence; `from_plain` reads it."""
    if is_dataclass(value) and not isinstance(value, type):
        form = STORED_FORMATS.get(type(value), Format(what=""))
        names = [one.name for one in fields(value) if one.name not in form.apart]
        version = {"version": form.version} if form.version else {}
        return {**version, **{name: to_plain(getattr(value, name)) for name in names}}
    if isinstance(value, Mapping):
        return {str(name): to_plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(one) for one in value]
    return value


def to_plain_object(value: object) -> dict[str, object]:
    """Make a JSON object of a dataclass."""
    return cast("dict[str, object]", to_plain(value))


def parse(data: bytes | str, where: str, raises: type[AutopruneError] = StorageError) -> object:
    """Parse JSON in UTF-8. Raises an error of the class asked for, which says where and why it does not parse."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        if text.strip():
            return json.loads(text)
        problem = "an empty file" if isinstance(data, bytes) else "an empty text"
    except RecursionError:
        problem = "one that is nested too deep"
    except UnicodeDecodeError as error:
        problem = f"bytes that are not UTF-8 ({error.reason} at byte {error.start})"
    except ValueError as error:  # JSONDecodeError, and integers of thousands of digits
        problem = f"text that does not parse ({_short(str(error))})"
    raise raises(error_message(where, "be JSON", problem))


def load_dataclass(kind: type[T], path: Path, where: str = "") -> T:
    """Read a dataclass from a file. Raises StorageError, which names the file, and the field where one is at fault."""
    where = where or str(path)
    return from_plain(kind, parse(read_bytes(path), where), where)


def read_bytes(path: Path) -> bytes:
    """Read a whole file. Raises StorageError where it cannot be read, or is a folder."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(
            error_message(str(path), "be a file that can be read", error.strerror or repr(error))
        ) from error


def describe_value(value: object) -> str:
    """Describe a wrong value in a few words, whatever it is."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= _LARGEST:
        return f"an integer of {value.bit_length()} bits"
    return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class _WrongError(Exception):
    """A value that is not what its type says."""

    def __init__(self, expected: str, got: str) -> None:
        self.expected, self.got = expected, got
        super().__init__(expected, got)

    def located(self, path: str) -> str:
        """The sentence about the value at a path."""
        return error_message(path.removeprefix(".") or "it", self.expected, self.got).removesuffix(".")


class _VersionError(_WrongError):
    """A version that cannot be read; what else is wrong follows from it."""

    def located(self, path: str) -> str:
        where = f"{path.removeprefix('.')}: its" if path else "its"
        return f"{where} version must {self.expected}, but got {self.got}"


class _MisfitError(Exception):
    """Every fault of a value: (path below the value, error)."""

    def __init__(self, faults: Iterable[tuple[str, Exception]]) -> None:
        self.faults = tuple(faults)
        super().__init__(self.faults)


def _told(path: str, error: Exception) -> str:
    if isinstance(error, _WrongError):
        return error.located(path)
    text = str(error) if isinstance(error, AutopruneError) else f"{type(error).__name__}: {error}"
    return f"{path.removeprefix('.')}: {text}".removeprefix(": ").removesuffix(".")


def _below(step: str, error: Exception) -> list[tuple[str, Exception]]:
    """The faults of a part, as those of the whole."""
    faults = error.faults if isinstance(error, _MisfitError) else (("", error),)
    return [(f"{step}{path}", one) for path, one in faults]


def _integer(data: object, _: object) -> int:
    if type(data) is not int or abs(data) >= _LARGEST:
        raise _WrongError("be an integer", describe_value(data))
    return data


def _number(data: object, _: object) -> float:
    if not (type(data) is float and abs(data) < _HIGHEST) and not (type(data) is int and abs(data) < _LARGEST):
        too_high = type(data) is float and math.isfinite(data)
        raise _WrongError(f"be a number below {_HIGHEST:g}" if too_high else "be a finite number", describe_value(data))
    return data


def _any_number(data: object, kind: object) -> float:
    return data if isinstance(data, float) else _number(data, kind)


def _text(data: object, _: object) -> str:
    if not isinstance(data, str):
        raise _WrongError("be a text", describe_value(data))
    return data


def _boolean(data: object, _: object) -> bool:
    if not isinstance(data, bool):
        raise _WrongError("be true or false", describe_value(data))
    return data


def _list(converter: Converter, data: object, kind: object) -> tuple[object, ...]:
    """A tuple of any length, or of as many as its annotation has."""
    if not isinstance(data, list | tuple):
        raise _WrongError("be a list", describe_value(data))
    kinds = get_args(kind)
    if len(kinds) == 2 and kinds[1] is ...:
        if kinds[0] is int and _are_integers(data):
            return tuple(data)
        kinds = (kinds[0],) * len(data)
    if len(kinds) != len(data):
        raise _WrongError(f"be a list of {len(kinds)}", describe_value(data))
    return tuple(_each(converter, ((f"[{place}]", one, kinds[place]) for place, one in enumerate(data))))


def _are_integers(data: Collection[object]) -> bool:
    """Whether each would pass as one; at once, as lists of channels are long."""
    if not data or set(map(type, data)) != {int}:
        return False
    numbers = cast("Collection[int]", data)
    return min(numbers) > -_LARGEST and max(numbers) < _LARGEST


def _mapping(converter: Converter, data: object, kind: object) -> dict[str, object]:
    inside, given = get_args(kind)[1], _object(data)
    parts = [(f"[{_short(repr(name))}]", one, inside) for name, one in given.items()]
    return dict(zip(given, _each(converter, parts), strict=True))


def _object(data: object) -> Mapping[str, object]:
    if not isinstance(data, Mapping):
        raise _WrongError("be an object", describe_value(data))
    return data


def _each(converter: Converter, parts: Iterable[tuple[str, object, object]]) -> list[object]:
    """Every part structured: (step of the path, data, annotation). Raises all of their faults at once."""
    found, faults = [], []
    for step, data, kind in parts:
        try:
            found.append(converter.structure(data, cast("type[object]", kind)))
        except (_WrongError, _MisfitError) as error:
            faults += _below(step, error)
    if faults:
        raise _MisfitError(faults)
    return found


def _union(converter: Converter, data: object, kind: object) -> object:
    """The first of the annotations that takes the value; null is taken by None alone."""
    kinds = get_args(kind)
    if data is None and NoneType in kinds:
        return None
    kinds = tuple(one for one in kinds if one is not NoneType)
    errors: list[_WrongError | _MisfitError] = []
    for one in kinds:
        try:
            return converter.structure(data, one)
        except (_WrongError, _MisfitError) as error:
            errors.append(error)
    wrong = [error for error in errors if isinstance(error, _WrongError)]
    if len(wrong) < len(errors):  # of the right kind, and wrong inside
        raise next(error for error in errors if isinstance(error, _MisfitError))
    raise _WrongError(
        _either([error.expected for error in wrong] + ["be null"] * (len(kinds) < len(get_args(kind)))),
        describe_value(data),
    )


def _either(expected: list[str]) -> str:
    first, *others = expected
    return " or ".join((first, *(other.removeprefix("be ") for other in others)))


def _class(converter: Converter, kind: type) -> Callable[[object, object], object]:
    """The hook of a dataclass."""
    form = STORED_FORMATS.get(kind, Format(what=kind.__name__))
    here = [one for one in fields(kind) if one.name not in form.apart]
    with_default = {one.name for one in here if one.default is not MISSING or one.default_factory is not MISSING}
    optional = _chosen(form.optional, with_default)
    hooks = {
        name: override(struct_hook=_LOOSE.structure) for name in _chosen(form.any_number, (one.name for one in here))
    }
    # Names of fields are keywords beside the function's own options, which mypy cannot tell apart.
    make = cast("Callable[..., Callable[[object, object], object]]", make_dict_structure_fn)
    build = make(kind, converter, **hooks)

    def hook(data: object, _: object) -> object:
        given = _object(data)
        version = _version(given, form)
        known = [one.name for one in here]
        missing = [
            name for name in known if name not in given and name not in optional and version >= form.since.get(name, 0)
        ]
        if missing:
            raise _MisfitError([("", _WrongError(f"hold {', '.join(missing)}", "none"))])
        _refuse_unknown(given, form, known)
        try:
            return build({name: given[name] for name in known if name in given}, kind)
        except ClassValidationError as error:
            raise _MisfitError(_of_fields(error)) from None

    return hook


def _chosen(names: Collection[str] | None, whole: Iterable[str]) -> set[str]:
    return {*(whole if names is None else names)}


def _version(given: Mapping[str, object], form: Format) -> int:
    """The version of an object; 0 for a part of another."""
    if not form.version:
        return 0
    found = given.get("version")
    if type(found) is not int or not 1 <= found <= form.version:
        later = type(found) is int and found > form.version
        expected = f"be 1 to {form.version}" if form.version > 1 else "be 1"
        wrong = _VersionError(
            expected, f"{describe_value(found)}. Upgrade autoprune" if later else describe_value(found)
        )
        raise _MisfitError([("", wrong)])
    return found


def _refuse_unknown(given: Mapping[str, object], form: Format, known: Collection[str]) -> None:
    if not form.refuses_unknown:
        return
    known = (*(["version"] if form.version else []), *known)
    for name in given:
        if name not in known:
            raise _MisfitError([("", UnknownNameError(f"a field of {form.what}", _short(name), known))])


def _of_fields(error: ClassValidationError) -> list[tuple[str, Exception]]:
    """The faults of a class: those of its fields under their names, and what it says of itself."""
    faults: list[tuple[str, Exception]] = []
    noted, own = error.group_exceptions()
    for one, note in noted:
        faults += _below(f".{note.name}", one)
    return faults + [("", one) for one in own]


def _is_a(kind: object, container: object) -> bool:
    """Whether an annotation is of a container."""
    origin: object = get_origin(kind)
    return origin is container


def _converter(number: Callable[[object, object], float]) -> Converter:
    made = Converter(detailed_validation=True)
    for kind, hook in ((int, _integer), (float, number), (str, _text), (bool, _boolean)):
        made.register_structure_hook(kind, hook)
    made.register_structure_hook_func(lambda kind: kind is object, lambda data, _: data)
    made.register_structure_hook_func(lambda kind: _is_a(kind, tuple), partial(_list, made))
    made.register_structure_hook_func(lambda kind: _is_a(kind, Mapping), partial(_mapping, made))
    made.register_structure_hook_func(lambda kind: isinstance(kind, UnionType), partial(_union, made))
    made.register_structure_hook_factory(is_dataclass, partial(_class, made))
    return made


#: Takes NaN and infinities as numbers; for fields that Format.any_number names.
_LOOSE = _converter(_any_number)
_CONVERTER = _converter(_number)
