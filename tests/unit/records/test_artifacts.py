"""Weights outside the run folder, on file systems of fsspec that need no server."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest
from fsspec.registry import _registry

from autoprune.errors import AutopruneWarning, ConfigurationError, NotFoundError, StorageError
from autoprune.records.artifacts import (
    Artifacts,
    check_writable,
    is_plain_url,
    new_artifacts,
    read_artifacts,
    write_artifacts,
)
from autoprune.records.run_folder import RunFolder
from autoprune.records.user_cache import CACHE_VARIABLE, cache_weights, read_cached_weights
from autoprune.study.artifacts import use_storage
from tests.folders import files
from tests.unit.front.builders import dense, run_of

DATA = b"weights" * 100


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    (tmp_path / "storage").mkdir()
    return new_artifacts({"file": f"file://{tmp_path}/storage/", "memory": "memory://x/y"}[request.param], "my study!")


def test_an_object_is_written_listed_read_and_deleted(storage: Artifacts) -> None:
    name = "candidates/00003/weights.safetensors"
    assert storage.study.startswith("my-study-")
    check_writable(storage.url)
    assert storage.names() == set()
    assert storage.read(name) is None
    storage.write(name, b"earlier")
    storage.write(name, DATA)
    assert storage.names() == {name}
    assert storage.read(name) == DATA
    storage.remove(name)
    storage.remove(name)
    assert storage.names() == set()


def test_the_place_is_stored_without_what_is_hidden(storage: Artifacts, tmp_path: Path) -> None:
    write_artifacts(tmp_path, storage)
    assert read_artifacts(tmp_path) == storage
    assert read_artifacts(tmp_path / "none") is None
    for url, study in (("s3://key:se/cret@bucket", "a"), ("s3://bucket", "../b"), ("bucket", "c")):
        with pytest.raises(ConfigurationError) as error:
            Artifacts(url=url, study=study)
        assert "cret" not in str(error.value)


def test_only_a_url_without_a_password_is_plain() -> None:
    assert all(map(is_plain_url, ("s3://bucket", "sftp://me@host/x", "gs://b/c", "file:///x")))
    assert not any(map(is_plain_url, ("", "x", "/x/y", "s3://a:b@c", "s3://", "s3://a b", None, "simplecache::s3://b")))


@pytest.fixture
def folder(storage: Artifacts, tmp_path: Path) -> RunFolder:
    """A run whose dense model lies in the storage."""
    folder = run_of(tmp_path / "run", []).folder
    write_artifacts(folder.path, storage)
    folder.write_candidate(dense(), DATA)
    return folder


def test_the_folder_tells_that_weights_are_stored_and_does_not_hold_them(folder: RunFolder, storage: Artifacts) -> None:
    one = folder.weights_file(0)
    assert not one.path.exists()
    assert folder.has_weights(0)
    assert not folder.has_weights(1)
    assert storage.read("candidates/00000/weights.safetensors") == DATA
    assert one.place == storage.place(one.name)
    assert [record.number for record in folder.read_candidates()] == [0]


def test_what_was_read_is_read_from_the_cache(folder: RunFolder, storage: Artifacts, tmp_path: Path) -> None:
    one, digest = folder.weights_file(0), hashlib.sha256(DATA).hexdigest()
    assert read_cached_weights(digest) is None
    assert one.read_uploaded() == DATA
    storage.remove(one.name)
    assert one.read_uploaded() == DATA
    (tmp_path / "cache" / "weights" / digest).write_bytes(b"spoiled")
    with pytest.raises(NotFoundError, match="weights of candidate 0 are missing"):
        one.read_uploaded()


def test_other_weights_are_refused(folder: RunFolder, storage: Artifacts) -> None:
    one = folder.weights_file(0)
    storage.write(one.name, DATA[:-1])
    with pytest.raises(StorageError, match=r"hold the weights that weights.sha256 tells, but got another file"):
        one.read_uploaded()


def test_deleted_weights_are_gone_in_the_storage(folder: RunFolder, storage: Artifacts) -> None:
    folder.remove_weights(0)
    assert storage.names() == set()
    assert not folder.has_weights(0)
    assert not folder.weights_file(0).is_uploaded
    assert folder.read_candidates()[0].removed
    with pytest.raises(NotFoundError, match="collect_garbage"):
        raise folder.weights_file(0).missing_error()


def test_a_file_in_the_folder_comes_first(folder: RunFolder) -> None:
    """Whoever copies the storage's folder over the run folder has a run without a storage."""
    one = folder.weights_file(0)
    one.path.write_bytes(DATA)
    assert one.read_uploaded() is None
    assert one.place == str(one.path)


def test_weights_that_cannot_be_stored_stay_in_the_folder(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", []).folder
    away = Artifacts(url=f"file://{tmp_path}/none", study="mine")
    write_artifacts(folder.path, away)
    with pytest.raises(StorageError, match=r"writing file://.*/none/autoprune-check-\w+ ended with FileNotFoundError"):
        check_writable(away.url)
    with pytest.warns(AutopruneWarning, match="candidate 0 stay in the run folder until the next run uploads them"):
        folder.write_candidate(dense(), DATA)
    one = folder.weights_file(0)
    assert one.path.read_bytes() == DATA
    assert not one.is_uploaded
    (tmp_path / "none").mkdir()
    one.upload()
    assert not one.path.exists()
    assert one.read_uploaded() == DATA
    (tmp_path / "none" / "mine").rename(tmp_path / "moved")
    with pytest.raises(NotFoundError, match="autoprune did not delete them"):
        _read_uncached(folder)


def test_what_cannot_be_deleted_now_is_deleted_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, storage = run_of(tmp_path / "run", []).folder, new_artifacts("memory://z", "mine")
    write_artifacts(folder.path, storage)
    folder.write_candidate(dense(), DATA)
    with monkeypatch.context() as patch:
        patch.setattr("fsspec.implementations.memory.MemoryFileSystem.rm_file", _refuse)
        with pytest.warns(AutopruneWarning, match="The next run deletes them"):
            folder.remove_weights(0)
    one = folder.weights_file(0)
    assert not one.is_stored
    assert one.is_uploaded
    use_storage(folder, None)
    assert storage.names() == set()
    assert not one.is_uploaded


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, module, advice in (("s3://b", "s3fs", r"\[s3\]'\."), ("gs://b", "gcsfs", r"\[artifacts\]', and")):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(_registry, "s3", raising=False)  # what was imported before
        with pytest.raises(ConfigurationError, match=f"have its library installed.*pip install 'autoprune{advice}"):
            check_writable(url)
    with pytest.raises(StorageError, match="Protocol not known"):
        check_writable("nothing://b")


def test_the_cache_is_bounded_and_a_failure_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [bytes([number]) * 100 for number in range(4)]
    digests = [hashlib.sha256(part).hexdigest() for part in parts]
    for digest, part in zip(digests[:3], parts[:3], strict=True):
        cache_weights(digest, part, 250)
    assert [read_cached_weights(digest) for digest in digests[:3]] == [None, *parts[1:3]]
    os.utime(tmp_path / "cache" / "weights" / digests[2], (0, 0))
    assert read_cached_weights(digests[1]) == parts[1]
    cache_weights(digests[3], parts[3], 250)
    assert [read_cached_weights(digest) is None for digest in digests] == [True, False, True, False]
    cache_weights("0" * 64, bytes(300), 250)
    assert len(files(tmp_path / "cache")) == 2
    (tmp_path / "file").write_bytes(b"")
    for value in (str(tmp_path / "file"), ""):
        monkeypatch.setenv(CACHE_VARIABLE, value)
        cache_weights(digests[0], parts[0])
        assert read_cached_weights(digests[0]) is None


def _refuse(*_: object) -> None:
    raise PermissionError("no")


def _read_uncached(folder: RunFolder) -> bytes | None:
    """Read with an empty cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, "")
        return folder.weights_file(0).read_uploaded()
