"""The state in a checkpoint: whole or of no use, of its own trial alone, and only as long as it is needed."""

from __future__ import annotations

import hashlib
import json
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from autoprune.errors import AutopruneWarning, StorageError
from autoprune.records.artifacts import Artifacts, write_artifacts
from autoprune.records.run_folder import RunFolder
from autoprune.study import checkpoints
from autoprune.study.checkpoint_state import remove_state
from tests.unit.recovery.watching import plan
from tests.unit.trial.resuming import TRIAL, DiedError, Trial, context_of, dying

FILES = ("checkpoint.json", "state.json", "state.safetensors", "weights.safetensors")


def trial(seed: int = 0) -> Trial:
    return Trial(kind="perceptron", plan=plan(0.5, context=context_of("perceptron"), seed=seed))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a trial leaves that dies after its second pass."""
    folder = tmp_path_factory.mktemp("stored")
    with pytest.raises(DiedError):
        trial().run(dying(folder, 2))
    return folder


@pytest.fixture
def folder(stored: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(stored, tmp_path / "run")


def epoch(folder: Path, number: int = 2) -> Path:
    return folder / "checkpoints" / f"{TRIAL:05d}" / f"{number:05d}"


def sign(path: Path) -> None:
    """Make the digests right again."""
    lines = [f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES]
    (path / "state.sha256").write_text("".join(lines))


def change(path: Path, **changes: object) -> None:
    """Change fields of the state; its digest is right."""
    data = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**data, **changes}))
    sign(path)


def test_the_latest_checkpoint_alone_holds_a_state(stored: Path) -> None:
    assert [path.name for path in sorted(epoch(stored, 1).iterdir())] == ["checkpoint.json", "weights.safetensors"]
    names = [path.name for path in sorted(epoch(stored).iterdir())]
    assert names == sorted([*FILES, "state.sha256"])
    digests = (epoch(stored) / "state.sha256").read_text()
    sign(epoch(stored))
    assert (epoch(stored) / "state.sha256").read_text() == digests, "as sha256sum writes them"
    assert trial().left(stored) is not None
    assert [checkpoint.epoch for checkpoint in checkpoints.read(RunFolder(stored), TRIAL)] == [1, 2], "none is lost"


def test_its_files_are_plain(stored: Path) -> None:
    data = json.loads((epoch(stored) / "state.json").read_text())
    assert (data["version"], data["training"]["epoch"], data["training"]["step"]) == (1, 2, 6)
    kinds = {name.split("/")[0] for name in load_file(epoch(stored) / "state.safetensors")}
    assert kinds == {"losses", "optimizer.momentum_buffer", "random"}


def test_once_it_is_of_no_use_it_is_deleted_and_the_weights_stay(folder: Path) -> None:
    checkpoints.remove_states(RunFolder(folder), TRIAL)
    assert not list(folder.rglob("state.*"))
    assert len(checkpoints.read(RunFolder(folder), TRIAL)) == 2
    checkpoints.remove_states(RunFolder(folder), 99)


def test_weights_of_an_earlier_pass_are_uploaded_once_while_the_trial_runs(tmp_path: Path) -> None:
    """A storage that is away is not asked again for each of them after each pass."""
    write_artifacts(tmp_path, Artifacts(url=f"file://{tmp_path}/none", study="mine"))
    with pytest.warns(AutopruneWarning, match="stay in the run folder") as told:
        trial().run(dying(tmp_path, -1))
    owners = [re.findall(r"checkpoint \d+", str(one.message)) for one in told]
    assert owners == [["checkpoint 1"], ["checkpoint 2"], ["checkpoint 3"]]
    with pytest.warns(AutopruneWarning) as told:
        checkpoints.remove_states(RunFolder(tmp_path), TRIAL)
    assert len(told) == 4, "all of them once more, when it has ended"


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a state of an earlier version": remove_state,
    "half a state": lambda path: (path / "state.safetensors").unlink(),
    "another epoch": lambda path: path.rename(path.with_name("00003")),
    "a later version": lambda path: change(path, version=2),
    "a field too many": lambda path: change(path, extra=1),
    "a field of another type": lambda path: change(path, progress="much"),
    "a negative channel": lambda path: change(path, kept={"groups": {"0": [-1]}, "dropped": []}),
    "no state": lambda path: change(path, training=None),
}


def flipped(name: str) -> Callable[[Path], object]:
    def flip(path: Path) -> None:
        data = bytearray((path / name).read_bytes())
        data[len(data) // 2] ^= 1
        (path / name).write_bytes(data)

    return flip


def emptied(name: str) -> Callable[[Path], object]:
    return lambda path: (path / name).write_bytes(b"")


for _name in (*FILES, "state.sha256"):
    DAMAGES[f"a flipped bit in {_name}"] = flipped(_name)
    DAMAGES[f"an empty {_name}"] = emptied(_name)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_ignored_and_all_are_cleared(damage: str, folder: Path) -> None:
    DAMAGES[damage](epoch(folder))
    assert trial().left(folder) is None
    assert not epoch(folder).parent.exists()


def test_not_tensors_under_the_right_digest_are_ignored(folder: Path) -> None:
    for name in ("state.safetensors", "weights.safetensors"):
        copy = shutil.copytree(folder, folder.with_name(name))
        (epoch(copy) / name).write_bytes(b"\x80\x04N.")
        sign(epoch(copy))
        assert trial().left(copy) is None


def test_one_of_another_trial_is_cleared(folder: Path) -> None:
    assert trial(seed=1).left(folder) is None
    assert not epoch(folder).parent.exists()


def test_the_one_before_is_taken_where_it_still_has_its_state(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DiedError):
        trial().run(dying(tmp_path / "earlier", 1))
    shutil.rmtree(epoch(folder, 1))
    shutil.copytree(epoch(tmp_path / "earlier", 1), epoch(folder, 1))
    found = trial().left(folder)
    assert found is not None
    assert found.training.epoch == 2
    flipped("state.safetensors")(epoch(folder))
    found = trial().left(folder)
    assert found is not None
    assert found.training.epoch == 1
    assert not epoch(folder).exists(), "the trial comes to that epoch again"


def test_a_full_disk_leaves_the_state_before(folder: Path) -> None:
    """No file may grow beyond the size of the weights: the write of the third state fails in its middle."""
    state = trial().left(folder)
    assert state is not None
    size = (epoch(folder) / "weights.safetensors").stat().st_size + 100
    assert (epoch(folder) / "state.safetensors").stat().st_size > size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot be written \(File too large\)"):
            trial().run(dying(folder, -1), state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in sorted(epoch(folder).parent.iterdir())] == ["00001", "00002"]
    again = trial().left(folder)
    assert again is not None
    assert again.training.epoch == 2
