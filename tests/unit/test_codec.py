"""The codec takes JSON at its word and nothing else, and says which field is at fault."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from autoprune.codec import Format, from_plain, load_dataclass, parse, stored, to_plain
from autoprune.errors import ConfigurationError, StorageError, UnknownNameError


@stored(Format(what="a part", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    count: int
    share: float | tuple[float, float] = 1.0
    on: bool = False

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ConfigurationError("count must be >= 0")


@stored(Format(what="a whole", version=2, any_number=("quality", "pairs"), since={"name": 2}, apart=("path",)))
@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    parts: Mapping[str, Part]
    quality: float
    seconds: float
    pairs: tuple[tuple[float, float], ...]
    numbers: tuple[int, ...]
    one: Part | None
    name: str = "none"
    path: str = ""


GOOD: dict[str, object] = {
    "version": 2,
    "parts": {"a.b": {"count": 1, "share": [0, 0.5], "on": True}},
    "quality": math.nan,
    "seconds": 3,
    "pairs": [[0.5, math.inf]],
    "numbers": [1, 2],
    "one": None,
    "name": "x",
}


def test_there_and_back() -> None:
    found = from_plain(Whole, GOOD, "f")
    assert found.parts["a.b"] == Part(count=1, share=(0, 0.5), on=True)
    assert json.dumps(to_plain(found)) == json.dumps(GOOD)


def test_what_a_later_version_brought_is_not_missing_in_an_earlier_one() -> None:
    old = {name: value for name, value in GOOD.items() if name != "name"}
    assert from_plain(Whole, old | {"version": 1}, "f").name == "none"
    with pytest.raises(StorageError, match="must hold name, but got none"):
        from_plain(Whole, old, "f")


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@stored(Format(what="a painted part"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Painted:
    colour: Colour


def test_a_member_of_an_enumeration_is_stored_as_its_value() -> None:
    found = from_plain(Painted, {"colour": "blue"}, "f")
    assert found.colour is Colour.BLUE
    assert json.dumps(to_plain(found)) == '{"colour": "blue"}'
    for value in ("green", 3):
        with pytest.raises(StorageError, match=f"colour must be one of red, blue, but got {value!r}"):
            from_plain(Painted, {"colour": value}, "f")


@stored(Format(what="a renamed part", formerly={"count": "number"}, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed:
    count: int


def test_older_data_has_the_former_names_of_fields() -> None:
    assert from_plain(Renamed, {"number": 3}, "f") == from_plain(Renamed, {"count": 3}, "f") == Renamed(count=3)
    assert to_plain(Renamed(count=3)) == {"count": 3}
    with pytest.raises(StorageError, match="must be one of count, but got 'number'"):
        from_plain(Renamed, {"number": 2, "count": 3}, "f")
    with pytest.raises(StorageError, match="must hold count, but got none"):
        from_plain(Renamed, {}, "f")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, r"f: its version must be 1 to 2, but got 3\. Upgrade autoprune\."),
        ({"version": True}, r"its version must be 1 to 2, but got true\.$"),
        ({"version": "2"}, r"its version must be 1 to 2, but got '2'\.$"),
        ({"seconds": "3"}, "f must hold a whole, but got one in which seconds must be a finite number, but got '3'"),
        ({"seconds": math.nan}, "seconds must be a finite number, but got nan"),
        ({"seconds": 10**400}, "seconds must be a finite number, but got an integer of 1329 bits"),
        ({"seconds": 1e308}, r"seconds must be a number below 1e\+100, but got 1e\+308"),
        ({"quality": True}, "quality must be a finite number, but got true"),
        ({"numbers": [1, True]}, r"numbers\[1\] must be an integer, but got true"),
        ({"numbers": [1, 2**63]}, r"numbers\[1\] must be an integer, but got an integer of 64 bits"),
        ({"numbers": "12"}, "numbers must be a list, but got '12'"),
        ({"numbers": None}, "numbers must be a list, but got null"),
        ({"pairs": [[1, 2, 3]]}, r"pairs\[0\] must be a list of 2, but got a list of 3"),
        ({"parts": []}, "parts must be an object, but got a list of 0"),
        ({"parts": {"a.b": {"count": 1.0}}}, r"parts\['a\.b'\]\.count must be an integer, but got 1\.0"),
        ({"parts": {"a.b": {"count": 1, "on": 1}}}, r"on must be true or false, but got 1"),
        ({"parts": {"a.b": {"count": 1, "share": {}}}}, r"share must be a finite number or a list, but got an object"),
        ({"parts": {"a.b": {"count": -1}}}, r"parts\['a\.b'\]: count must be >= 0"),
        ({"parts": {"a.b": {"count": 1, "cuont": 1}}}, r"a field of a part must be one of count, on, share, but got"),
        ({"one": {}}, "one must hold count, but got none"),
        ({"one": 3}, "one must be an object or null, but got 3"),
        ({"name": None, "one": 3, "numbers": 1, "pairs": 1}, r"\(and 1 more\)"),
    ],
)
def test_each_fault_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(StorageError, match=message):
        from_plain(Whole, GOOD | change, "f")


def test_fields_of_a_later_version_are_left_out_but_where_they_are_refused() -> None:
    assert to_plain(from_plain(Whole, GOOD | {"of_the_future": 1}, "f")).keys() == GOOD.keys()  # type: ignore[attr-defined]
    with pytest.raises(UnknownNameError, match="Did you mean 'count'"):
        from_plain(Part, {"count": 1, "counts": 2}, "a part", ConfigurationError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (b" \n", "an empty file"),
        (b"{", "text that does not parse"),
        (b"\xff\xfe", "bytes that are not UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"a":' * 200_000, "nested too deep"),
        (b"1" * 5000, "text that does not parse"),
        ("é".encode("utf-16"), "bytes that are not UTF-8"),
    ],
    ids=range(9),
)
def test_what_is_no_json(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"f must be JSON, but got .*{message}"):
        parse(data, "f")
    path = tmp_path / "f"
    path.write_bytes(data)
    with pytest.raises(StorageError, match=message):
        load_dataclass(Whole, path)


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="must be a file that can be read"):
        load_dataclass(Whole, tmp_path)


def test_a_deep_value_in_the_place_of_a_field() -> None:
    deep: object = []
    for _ in range(50_000):
        deep = [deep]
    for name in GOOD:
        with pytest.raises(StorageError, match="must"):
            from_plain(Whole, GOOD | {name: deep}, "f")
