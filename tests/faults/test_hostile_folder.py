"""Folders that are missing, empty, of a later version, half-written or hostile: one clear message, and no waiting."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoprune.cli.app import app
from autoprune.codec import LARGEST_JSON, load_dataclass, read_bytes
from autoprune.errors import AutopruneError, StorageError
from autoprune.front.live import RunWatcher
from autoprune.front.run import Run
from autoprune.records.annotations import Annotations
from autoprune.records.run_folder import RunFolder
from tests.unit.front.builders import dense, measurement, record, run_of

Harm = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder that can be read."""
    path = tmp_path / "run"
    run = run_of(path, [dense()])
    groups = [{"name": "a", "channels": 4}]
    settings = {"objectives": ["quality", "multiply_adds"]}
    run.folder.write_study(
        {"name": "x", "quality": "accuracy", "higher_is_better": True, "settings": settings, "groups": groups}
    )
    for one in (dense(), record(1, measurement(0.8, 500))):
        data = json.loads(one.to_json()) | {"kept": {"a": [0, 1]}, "parent": None if one.number == 0 else 0}
        place = path / "candidates" / f"{one.number:05d}"
        place.mkdir(parents=True)
        (place / "candidate.json").write_text(json.dumps(data))
    return path


def study(**changes: object) -> Harm:
    """study.json with other fields."""

    def harm(path: Path) -> None:
        data = json.loads((path / "study.json").read_text())
        (path / "study.json").write_text(json.dumps(data | changes))

    return harm


def candidate(text: str) -> Harm:
    return lambda path: (path / "candidates" / "00001" / "candidate.json").write_text(text)


def instead(name: str, make: Harm) -> Harm:
    """Something else in the place of a file or folder."""

    def harm(path: Path) -> None:
        place = path / name
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        make(place)

    return harm


def huge(path: Path) -> None:
    """A gigabyte that takes no space."""
    path.touch()
    os.truncate(path, 1 << 30)


def loop(path: Path) -> None:
    path.symlink_to(path)


def searched(quality: object) -> str:
    data = json.loads(record(1, measurement(0.8, 500)).to_json()) | {"kept": {"a": [0, 1]}, "parent": 0}
    return json.dumps({**data, "search": {**data["search"], "quality_error": quality}})


#: Harm to a folder, and what the one message says.
HARMS: dict[str, tuple[Harm, str]] = {
    "missing": (shutil.rmtree, "which does not exist"),
    "empty": (lambda path: [shutil.rmtree(path), path.mkdir()], "hold study.json, but got"),
    "a file": (lambda path: [shutil.rmtree(path), path.write_text("x")], "which is no folder"),
    "a pipe in its place": (lambda path: [shutil.rmtree(path), os.mkfifo(path)], "which is no folder"),
    "newer": (study(version=99), "its version must be 1, but got 99. Upgrade autoprune"),
    "a newer candidate": (candidate('{"version": 99}'), "its version must be 1 to 4, but got 99. Upgrade autoprune"),
    "an empty description": (lambda path: (path / "study.json").write_text(""), "must be JSON, but got an empty file"),
    "a half description": (lambda path: (path / "study.json").write_text('{"name": "x'), "must be JSON"),
    "a half candidate": (candidate('{"version": 4, "num'), "must be JSON"),
    "a candidate without a record": (
        lambda path: (path / "candidates" / "00002").mkdir(),
        "be a file that can be read",
    ),
    "a pipe for a description": (instead("study.json", os.mkfifo), "hold study.json"),
    "a pipe for a candidate": (instead("candidates/00001/candidate.json", os.mkfifo), "a pipe, a socket or a device"),
    "a device for a candidate": (
        instead("candidates/00001/candidate.json", lambda path: path.symlink_to("/dev/zero")),
        "a pipe, a socket or a device",
    ),
    "a pipe for annotations": (instead("annotations.json", os.mkfifo), "a pipe, a socket or a device"),
    "a pipe for candidates": (instead("candidates", os.mkfifo), "be a folder that can be read"),
    "a file for candidates": (instead("candidates", lambda path: path.write_text("x")), "be a folder that can be read"),
    "a gigabyte for candidates": (instead("candidates", huge), "be a folder that can be read"),
    "a gigabyte for a candidate": (instead("candidates/00001/candidate.json", huge), "at most 268,435,456 bytes"),
    "a gigabyte for a description": (instead("study.json", huge), "at most 268,435,456 bytes"),
    "a link to itself for a description": (instead("study.json", loop), "hold study.json"),
    "another candidate's number": (lambda path: (path / "candidates" / "1").mkdir(), "be named 00001"),
    "a number of 5,000 digits": (lambda path: (path / "candidates" / ("7" * 200)).mkdir(), "be named"),
    "deep JSON": (candidate("[" * 100_000), "nested too deep"),
    "deep settings": (study(settings=json.loads("[" * 500 + "]" * 500)), "must be an object"),
    "a quality that is a text": (candidate(searched("<b>\x1b[31m")), "quality_error must be a finite number"),
    "no objective": (
        study(settings={"objectives": ["\x1b[2J<script>alert(1)</script>"]}),
        "an objective must be one of",
    ),
    "a metric with escapes": (
        study(quality="\x00\x1b[2J", settings={"objectives": ["x"]}),
        "an objective must be one of",
    ),
}


@pytest.mark.parametrize("name", HARMS)
def test_one_clear_message(name: str, folder: Path) -> None:
    harm, message = HARMS[name]
    harm(folder)
    for command in (["front", str(folder)], ["choose", str(folder)]):
        found = CliRunner().invoke(app, command)
        assert (found.exit_code, found.stdout) == (2, ""), found.output
        assert message in found.stderr.replace("\n", " ")
        assert "Traceback" not in found.output
        assert "\x1b[2J" not in found.output
        assert len(found.stderr) < 3_000


@pytest.mark.parametrize("name", HARMS)
def test_the_same_for_a_folder_that_is_watched(name: str, folder: Path) -> None:
    watcher = RunWatcher(folder)
    before = watcher.run
    HARMS[name][0](folder)
    watcher.refresh()
    if name in ("no objective", "a metric with escapes"):
        with pytest.raises(AutopruneError):
            watcher.run.front()
        return
    assert HARMS[name][1] in watcher.trouble
    assert watcher.run is before


#: A number that is none, in the place of a field.
NONE = [("quality", number) for number in (math.nan, math.inf, -math.inf, 1e308)] + [
    ("quality_error", number) for number in (math.nan, math.inf, 1e308)
]


@pytest.mark.parametrize(("field", "number"), NONE)
def test_numbers_that_are_none_are_read_and_do_no_harm(field: str, number: float, folder: Path) -> None:
    data = json.loads(searched(0.0))
    data["search"] = {**data["search"], "quality_error": 0.0, field: number}
    (folder / "candidates" / "00001" / "candidate.json").write_text(json.dumps(data))
    front = Run.open(folder).front()
    assert front.choice().record.number in (0, 1)
    assert front.weighted({"quality": 1, "multiply_adds": 1}).choice.record.number in (0, 1)
    assert front.knee_choice().remarks is not None
    for command in (["front"], ["front", "--json"], ["front", "--csv"], ["choose"], ["choose", "--knee"]):
        found = CliRunner().invoke(app, [command[0], str(folder), *command[1:]])
        assert found.exit_code == 0, found.output


@pytest.mark.parametrize("path", ["x" * 300, "a\0b", "/dev/null", "/dev/zero"])
def test_paths_that_are_no_folders(path: str) -> None:
    with pytest.raises(
        AutopruneError, match=r"a run folder must hold study\.json, but got .*x, which|hold study\.json"
    ):
        Run.open(path)
    assert not RunFolder(Path(path)).holds_study


def test_a_file_of_any_size_is_read_where_it_must_be(tmp_path: Path) -> None:
    """Weights have no limit; JSON has."""
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with path.open("rb") as file:
        lowest = file.fileno()
    assert read_bytes(path) == b"12345"
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(StorageError, match="at most 4 bytes, but got 5"):
        read_bytes(path, 4)
    with pytest.raises(StorageError, match="Is a directory"):
        read_bytes(tmp_path)
    with path.open("rb") as after:
        assert after.fileno() == lowest, "nothing stays open"
    os.truncate(path, LARGEST_JSON + 1)
    with pytest.raises(StorageError, match=r"at most 268,435,456 bytes, but got 268,435,457"):
        load_dataclass(Annotations, path)
