"""Files that are written whole, or refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprune.errors import StorageError
from autoprune.records.atomic import write_atomically


@pytest.mark.parametrize("path", [".", "..", "/", "there"])
def test_a_folder_is_no_file_to_write(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=r"must be a file to write, but got a folder. Name a file in it\."):
        write_atomically(Path(path), b"x")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["there"]


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        write_atomically(tmp_path / "deep" / "file", content)
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["file"]
    assert (tmp_path / "deep" / "file").read_bytes() == b"new"
