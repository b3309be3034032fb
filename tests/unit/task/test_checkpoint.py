from __future__ import annotations

import collections
import resource
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigurationError, NotFoundError, StorageError
from autoprune.records.atomic import write_atomically
from autoprune.task.checkpoint import load_into, read_weights, serialize
from tests.zoo.convolutional import mlp


class Passenger:
    """An object that a checkpoint must not bring in."""


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return {**mlp().state_dict(), "flags": torch.tensor([True, False]), "half": torch.ones(2, dtype=torch.bfloat16)}


def test_safetensors_are_read_back(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    write_atomically(tmp_path / "w.safetensors", serialize(weights))
    assert same(read_weights(tmp_path / "w.safetensors"), weights)


@pytest.mark.parametrize(
    "wrap",
    [dict, collections.OrderedDict, lambda w: {"state_dict": w, "epoch": 3}, lambda w: {"model": w, "optimizer": {}}],
    ids=["plain", "ordered", "state_dict", "model"],
)
def test_torch_checkpoints_are_read(tmp_path: Path, weights: dict[str, Tensor], wrap: type[dict[str, object]]) -> None:
    torch.save(wrap(weights), tmp_path / "w.pt")
    assert same(read_weights(tmp_path / "w.pt"), weights)


@pytest.mark.parametrize(
    "content", [{"state_dict": {}, "passenger": Passenger()}, mlp(), Passenger()], ids=["beside", "model", "object"]
)
def test_a_pickle_with_other_objects_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(StorageError, match="checkpoint must hold tensors"):
        read_weights(tmp_path / "w.pt")
    with pytest.raises(ConfigurationError, match="checkpoint must hold tensors"):
        load_into(mlp(), tmp_path / "w.pt")


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "was run",))

    torch.save({"w": Bomb()}, tmp_path / "w.pt")
    with pytest.raises(Exception):  # noqa: B017, PT011  # which error it is, the test above asks
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello, this is no checkpoint", b"\x80\x02", b"PK\x03\x04broken"], ids=repr)
def test_a_file_of_something_else_is_a_storage_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StorageError, match="checkpoint must hold"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_cut_short_is_a_storage_error(tmp_path: Path, weights: dict[str, Tensor], name: str) -> None:
    torch.save(weights, tmp_path / "whole.pt")
    whole = serialize(weights) if name.endswith("safetensors") else (tmp_path / "whole.pt").read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match="checkpoint must hold"):
        read_weights(tmp_path / name)


def test_a_list_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "w.pt")
    with pytest.raises(StorageError, match=r"must hold a state dict, but got .* with a list"):
        read_weights(tmp_path / "w.pt")


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "w.pt", tmp_path):
        with pytest.raises(NotFoundError, match="checkpoint must be a file"):
            read_weights(path)


def test_a_checkpoint_is_loaded_whole_or_not_at_all(tmp_path: Path) -> None:
    model, other = mlp(), mlp(classes=7)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save(other.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ConfigurationError, match=r"must fit the model.*other shape: 5\.bias, 5\.weight"):
        load_into(model, tmp_path / "w.pt")
    assert same(dict(model.state_dict()), before)
    torch.save(before, tmp_path / "w.pt")
    load_into(other := mlp(), tmp_path / "w.pt")
    assert same(dict(other.state_dict()), before)


def test_tensors_that_share_memory_are_written_for_each_name(tmp_path: Path) -> None:
    tied = nn.Linear(3, 3).weight
    base = torch.arange(6.0)
    tensors = {"a": tied, "b": tied, "front": base[:3], "back": base[3:], "turned": base.view(2, 3).t()}
    write_atomically(tmp_path / "w.safetensors", serialize(tensors))
    assert same(read_weights(tmp_path / "w.safetensors"), {name: tensor.detach() for name, tensor in tensors.items()})


# ---- atomic writes


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.bin"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


def break_off_a_write(path: Path) -> None:
    """No file may grow beyond 4 kB for a moment: the write fails in its middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot be written \(File too large\)"):
            write_atomically(path, b"new" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_breaks_off_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    write_atomically(path, b"old" * 1000)
    break_off_a_write(path)
    assert path.read_bytes() == b"old" * 1000


def test_a_write_that_breaks_off_makes_no_file_where_there_was_none(tmp_path: Path) -> None:
    break_off_a_write(tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()


def test_a_write_that_breaks_off_leaves_nothing_lying_about(tmp_path: Path) -> None:
    """A disk that is full does not get better by a half-written file of each attempt."""
    break_off_a_write(tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_does_not_disturb_the_next(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    write_atomically(path, b"old")
    (tmp_path / ".file.bin.1.tmp").write_bytes(b"half")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
