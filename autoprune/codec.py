"""Codec: frozen dataclasses to JSON and back, for run folders, plans and exports.

A class declares its format with `@stored(Format(...))`. The annotations of its fields are their types and are checked
strictly: no text for a number, no true for 1, and NaN only where the format allows it. An integer is a number, too.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import UnionType
from typing import BinaryIO, TypeVar, cast, get_args, get_origin, get_type_hints

from cattrs import Converter
from cattrs.errors import ClassValidationError
from cattrs.gen import make_dict_structure_fn, override

from autoprune._json_values import (
    MisfitError,
    VersionMisfitError,
    WrongValueError,
    any_number,
    below,
    boolean,
    integer,
    json_object,
    mapping_of,
    member,
    number,
    text,
    tuple_of,
    union_of,
)
from autoprune.display import describe_value, shorten
from autoprune.errors import AutopruneError, LaterVersionError, StorageError, UnknownNameError, error_message

T = TypeVar("T")
#: Most bytes of a JSON file: the largest that is ever written, the structure of a large model, has a tenth of them.
LARGEST_JSON = 1 << 28
#: Largest number of faults in one message.
_TOLD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Format in which a dataclass is stored.

    Attributes:
        what: Noun for messages.
        version: Latest version, written beside the fields; 0 for a part of a versioned object.
        optional: Fields that may be missing and then have their defaults; None for all fields with a default.
        since: Field -> version that added it; older data need not have it.
        formerly: Field -> its name in older data.
        apart: Fields that are stored elsewhere.
        any_number: Fields whose numbers may be NaN or infinite; None for all fields.
        refuses_unknown: Whether a field that the class does not have is a fault; else it is ignored.
        content: Name of the mapping that is stored in place of the object, whose entries are the class's arguments;
            "" for none.
        lift: Converts the fields that an earlier version wrote to those of today; None where nothing has moved. Data of
            today must pass unchanged.
    """

    what: str
    version: int = 0
    optional: Collection[str] | None = ()
    since: Mapping[str, int] = field(default_factory=dict)
    formerly: Mapping[str, str] = field(default_factory=dict)
    apart: Collection[str] = ()
    any_number: Collection[str] | None = ()
    refuses_unknown: bool = False
    content: str = ""
    lift: Callable[[Mapping[str, object]], Mapping[str, object]] | None = None


#: How each class is stored.
STORED_FORMATS: dict[type, Format] = {}


def stored(form: Format) -> Callable[[type[T]], type[T]]:
    """Register the format of a dataclass.

    Args:
        form: Format of the class.

    Returns:
        Decorator of the class.
    """

    def enter(kind: type[T]) -> type[T]:
        STORED_FORMATS[kind] = form
        return kind

    return enter


def from_plain(kind: type[T], data: object, where: str, raises: type[AutopruneError] = StorageError) -> T:
    """Make a dataclass from parsed JSON.

    Args:
        kind: A registered class.
        data: Result of `parse`.
        where: Name of the data's source, for the message, such as the path of a file.
        raises: Class of the error.

    Returns:
        An object of the class.

    Raises:
        AutopruneError: Of the class `raises`; names each field that does not fit, what it must be, and what it is.
    """
    try:
        return _CONVERTER.structure(data, kind)
    except (WrongValueError, MisfitError) as misfit:
        faults = below("", misfit)
    path, error = faults[0]
    if isinstance(error, VersionMisfitError):
        of_later = error.is_later and raises is StorageError
        raise (LaterVersionError if of_later else raises)(f"{where}: {error.located(path)}.")
    if len(faults) == 1 and not path and where == STORED_FORMATS[kind].what and isinstance(error, raises):
        raise error  # its message names the whole already
    told = "; ".join(_told(path, error) for path, error in faults[:_TOLD])
    more = f" (and {len(faults) - _TOLD} more)" if len(faults) > _TOLD else ""
    raise raises(error_message(where, f"hold {STORED_FORMATS[kind].what}", f"one in which {told}{more}"))


def to_plain(value: object) -> object:
    """Convert a dataclass, mapping or sequence to JSON-ready data, which `from_plain` reads.

    Args:
        value: Any object; other types stay unchanged.

    Returns:
        Dictionaries, lists and plain values.
    """
    if is_dataclass(value) and not isinstance(value, type):
        form = STORED_FORMATS.get(type(value), Format(what=""))
        if form.content:
            return to_plain(getattr(value, form.content))
        names = [one.name for one in fields(value) if one.name not in form.apart]
        version = {"version": form.version} if form.version else {}
        return {**version, **{name: to_plain(getattr(value, name)) for name in names}}
    if isinstance(value, Mapping):
        return {str(name): to_plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(one) for one in value]
    return value


def to_plain_object(value: object) -> dict[str, object]:
    """Convert a dataclass to a JSON object.

    Args:
        value: A dataclass.

    Returns:
        Field -> value.
    """
    return cast("dict[str, object]", to_plain(value))


def parse(data: bytes | str, where: str, raises: type[AutopruneError] = StorageError) -> object:
    """Parse JSON in UTF-8.

    Args:
        data: Text or bytes.
        where: Name of the data's source, for the message.
        raises: Class of the error.

    Returns:
        Parsed JSON.

    Raises:
        AutopruneError: Of the class `raises`; says where and why the data does not parse.
    """
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
        problem = f"text that does not parse ({shorten(str(error))})"
    raise raises(error_message(where, "be JSON", problem))


def load_dataclass(kind: type[T], path: Path, where: str = "") -> T:
    """Read a dataclass from a JSON file.

    Args:
        kind: A registered class.
        path: File to read.
        where: Name of the file in messages; its path by default.

    Returns:
        An object of the class.

    Raises:
        StorageError: When the file cannot be read or does not fit; names the fields at fault.
    """
    where = where or str(path)
    return from_plain(kind, parse(read_bytes(path, LARGEST_JSON), where), where)


def read_bytes(path: Path, largest: int | None = None) -> bytes:
    """Read a whole file.

    Args:
        path: File to read.
        largest: Most bytes to read; None for no limit.

    Returns:
        Its content.

    Raises:
        StorageError: When the path cannot be read, is no file, or is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if largest is not None and size > largest:
            raise StorageError(error_message(str(path), f"have at most {largest:,} bytes", f"{size:,}"))
        try:
            return file.read()
        except OSError as error:
            raise StorageError(_cannot_read(path, error)) from error


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; never wait, as for a pipe that nobody writes to.

    Args:
        path: File to open.

    Returns:
        The open file.

    Raises:
        StorageError: When the path cannot be read or is no file, such as a folder, a pipe or a device.
    """
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115  # returned
    except (OSError, ValueError) as error:  # a ValueError for a name with a null character
        raise StorageError(_cannot_read(path, error)) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise StorageError(error_message(str(path), "be a file that can be read", "a pipe, a socket or a device"))
    return file


def _cannot_read(path: Path, error: OSError | ValueError) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return error_message(str(path), "be a file that can be read", reason or repr(error))


def _told(path: str, error: Exception) -> str:
    if isinstance(error, WrongValueError):
        return error.located(path)
    text = str(error) if isinstance(error, AutopruneError) else f"{type(error).__name__}: {error}"
    path = path.removeprefix(".")
    named = not path or text.startswith(f"{path}.")  # an error of settings names its field in full
    return (text if named else f"{path}: {text}").removesuffix(".")


def _class(converter: Converter, kind: type) -> Callable[[object, object], object]:
    """Make the hook that structures a dataclass."""
    form = STORED_FORMATS.get(kind, Format(what=kind.__name__))
    if form.content:
        return _content(converter, kind, form)
    here = [one for one in fields(kind) if one.name not in form.apart]
    with_default = {one.name for one in here if one.default is not MISSING or one.default_factory is not MISSING}
    optional = _chosen(form.optional, with_default)
    hooks = {
        name: override(struct_hook=_LOOSE.structure) for name in _chosen(form.any_number, (one.name for one in here))
    }
    # mypy cannot tell names of fields from the function's options: both are keywords.
    make = cast("Callable[..., Callable[[object, object], object]]", make_dict_structure_fn)
    build = make(kind, converter, **hooks)

    known = [one.name for one in here]
    whole, needed = {"version", *known} if form.version else {*known}, {*known} - optional
    is_plain = not (form.formerly or form.lift or form.since)

    def hook(data: object, _: object) -> object:
        given = json_object(data)
        if is_plain and needed <= given.keys() <= whole:  # nothing is missing, odd, or of an earlier version
            _version(given, form)
            return made(given)
        given = _renamed(given, form)
        version = _version(given, form)
        given = given if form.lift is None else form.lift(given)
        missing = [
            name for name in known if name not in given and name not in optional and version >= form.since.get(name, 0)
        ]
        if missing:
            raise MisfitError([("", WrongValueError(f"hold {', '.join(missing)}", "none"))])
        _refuse_unknown(given, form, known)
        return made({name: given[name] for name in known if name in given})

    def made(given: Mapping[str, object]) -> object:
        try:
            return build(given, kind)
        except ClassValidationError as error:
            raise MisfitError(_of_fields(error)) from None

    return hook


def _content(converter: Converter, kind: type, form: Format) -> Callable[[object, object], object]:
    """Make the hook that structures a class from the entries of its one mapping; an entry may be null."""
    entry = get_args(get_type_hints(kind)[form.content])[1] | None
    inside = _LOOSE if form.any_number is None else converter

    def hook(data: object, _: object) -> object:
        found, faults = {}, []
        for name, one in json_object(data).items():
            try:
                found[name] = inside.structure(one, entry)
            except (WrongValueError, MisfitError) as error:
                faults += below(f".{name}", error)
        if faults:
            raise MisfitError(faults)
        try:
            return kind(**found)
        except AutopruneError as error:
            raise MisfitError([("", error)]) from None

    return hook


def _chosen(names: Collection[str] | None, whole: Iterable[str]) -> set[str]:
    return {*(whole if names is None else names)}


def _version(given: Mapping[str, object], form: Format) -> int:
    """Read the version of an object; 0 for a part of another object."""
    if not form.version:
        return 0
    found = given.get("version")
    if type(found) is not int or not 1 <= found <= form.version:
        later = type(found) is int and found > form.version
        expected = f"be 1 to {form.version}" if form.version > 1 else "be 1"
        wrong = VersionMisfitError(expected, f"{describe_value(found)}{'. Upgrade autoprune' if later else ''}")
        wrong.is_later = later
        raise MisfitError([("", wrong)])
    return found


def _renamed(given: Mapping[str, object], form: Format) -> Mapping[str, object]:
    """Give the fields of older data their present names."""
    names = {old: new for new, old in form.formerly.items() if new not in given}
    return {names.get(name, name): value for name, value in given.items()}


def _refuse_unknown(given: Mapping[str, object], form: Format, known: Collection[str]) -> None:
    if not form.refuses_unknown:
        return
    known = (*(["version"] if form.version else []), *known)
    for name in given:
        if name not in known:
            raise MisfitError([("", UnknownNameError(f"a field of {form.what}", shorten(name), known))])


def _of_fields(error: ClassValidationError) -> list[tuple[str, Exception]]:
    """List the faults of a class: of its fields under their names, and of the class itself."""
    faults: list[tuple[str, Exception]] = []
    noted, own = error.group_exceptions()
    for one, note in noted:
        faults += below(f".{note.name}", one)
    return faults + [("", one) for one in own]


def _is_a(kind: object, container: object) -> bool:
    """Tell whether an annotation is of a container."""
    origin: object = get_origin(kind)
    return origin is container


def _converter(number: Callable[[object, object], float]) -> Converter:
    made = Converter(detailed_validation=True)
    for kind, hook in ((int, integer), (float, number), (str, text), (StrEnum, member), (bool, boolean)):
        made.register_structure_hook(kind, hook)
    made.register_structure_hook_func(lambda kind: kind is object, lambda data, _: data)
    made.register_structure_hook_func(lambda kind: _is_a(kind, tuple), partial(tuple_of, made))
    made.register_structure_hook_func(lambda kind: _is_a(kind, Mapping), partial(mapping_of, made))
    made.register_structure_hook_func(lambda kind: isinstance(kind, UnionType), partial(union_of, made))
    made.register_structure_hook_factory(is_dataclass, partial(_class, made))
    return made


#: Accepts NaN and infinities as numbers, for the fields in Format.any_number.
_LOOSE = _converter(any_number)
_CONVERTER = _converter(number)
