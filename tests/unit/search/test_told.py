"""Numbers that a caller of the search alone tells: nothing is stored that could not be read again."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from filelock import FileLock

import autoprune
from autoprune.errors import ConfigurationError, LaterVersionError, StorageError
from autoprune.search.backend import SearchBackend
from autoprune.search.doctor import examine
from autoprune.search.told import Details
from autoprune.structure.written import Group, Layer, structure_of_layers
from tests.folders import files
from tests.unit.search.test_backend import settings, structure


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"details": {"seconds": {"train": float("nan")}}}, "seconds must have a finite number"),
        ({"details": {"kept": {"a": (0.5,)}}}, "kept must have one or more indices"),
        ({"details": {"kept": {"a": (0, 1)}}}, "kept channels of a must be 16, as in the plan, but got 2"),
        ({"details": {"rungs": (0.5, 0.7)}}, "rungs must be pairs"),
        ({"details": {"note": 5}}, "note must be a text"),
        ({"details": {"trained": 10**30}}, "trained must be an integer >= 0, but got an integer of 100 bits"),
        ({"quality": 1e308}, "the quality must be a finite number below"),
        ({"quality": 10**400}, "the quality must be a finite number below"),
        ({"costs": {"latency_ms": (0.001, 10.0)}}, "its standard error, which is no larger"),
        ({"costs": {"parameters": 1e50}}, "what was told must hold a candidate"),
    ],
)
def test_what_could_not_be_read_again_is_not_stored(tmp_path: Path, given: dict[str, object], message: str) -> None:
    with SearchBackend(structure(), settings(), tmp_path / "run") as backend:
        dense = backend.ask()
        assert dense is not None
        with pytest.raises(ConfigurationError, match=message):
            backend.tell(
                dense,
                **{"quality": 0.5, **given, "details": Details(**given.get("details", {}))},  # type: ignore[arg-type, dict-item]
            )
        assert not backend.run.records
        backend.tell(dense, quality=0.5)
    assert len(autoprune.Run.open(tmp_path / "run").records) == 1


@pytest.mark.parametrize("name", ["study.json", "annotations.json", "candidates/00001/candidate.json"])
def test_the_doctor_leaves_what_a_later_version_wrote(name: str, tmp_path: Path) -> None:
    with SearchBackend(structure(), settings(trials=2), tmp_path / "run") as backend:
        while (proposal := backend.ask()) is not None:
            backend.tell(proposal, quality=0.5)
    (tmp_path / "run" / name).write_text('{"version": 99}')
    before = files(tmp_path / "run")
    with pytest.raises(LaterVersionError, match=r"but got 99\. Upgrade autoprune\.$"):
        examine(tmp_path / "run")
    assert files(tmp_path / "run") == before
    with pytest.raises(LaterVersionError, match=r"Upgrade autoprune\.$"):  # and nothing leads to the doctor
        _ = autoprune.Run.open(tmp_path / "run").annotations


def test_the_doctor_looks_at_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SearchBackend(structure(), settings(trials=2), tmp_path / "run"):
        pass
    (tmp_path / "run" / "annotations.json").write_text("{")

    def acquire(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    assert [one.place for one in examine(tmp_path / "run", dry_run=True)] == ["annotations.json"]
    with pytest.raises(StorageError, match="cannot be written"):
        examine(tmp_path / "run")


def test_values_of_other_classes_are_told_apart() -> None:
    backend = SearchBackend(structure(), settings())
    dense = backend.ask()
    assert dense is not None
    with pytest.raises(ConfigurationError, match="a proposal must be of the class Proposal, but got 0"):
        backend.tell(0, quality=0.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"Tell str\(error\)"):
        backend.tell_failed(dense, ValueError("no"))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="a plan must be of the class PruningPlan"):
        backend.enqueue("plan")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="metrics must map each name to whether higher is better"):
        SearchBackend(structure(), settings(), metrics={"accuracy": "max"})  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match="the settings must be of the class StudySettings"):
        SearchBackend(structure(), None)  # type: ignore[arg-type]


def test_a_structure_without_bytes_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    free = structure_of_layers([Group(name="a", channels=8)], [Layer(name="a", groups=("a",), item_bytes=0)])
    with pytest.raises(ConfigurationError, match="the structure must hold size_bytes, but got none"):
        SearchBackend(free, settings(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
