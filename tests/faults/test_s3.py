"""Studies whose weights lie in S3: moto's server, spoken to over HTTP by s3fs. Kills, outages, spoiled objects."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
import torch

import autoprune
from autoprune.dashboard.downloads import candidate_file
from autoprune.errors import AutopruneWarning, ConfigurationError, StorageError
from autoprune.records.artifacts import read_artifacts
from autoprune.records.user_cache import CACHE_VARIABLE
from autoprune.search.doctor import examine
from autoprune.study import checkpoints
from autoprune.study.progress import Progress
from autoprune.study.store import load_weights
from tests.end_to_end.script import command, write
from tests.processes import start
from tests.s3_server import BUCKET, S3Server, serving
from tests.tasks import flat_task, trained_mlp
from tests.unit.study.small import comparable, quality_by_size, settings

URL = f"s3://{BUCKET}/runs"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving() as found:
        yield found


@pytest.fixture(autouse=True, scope="module")
def _some_are_dominated() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        quality_by_size(patch)
        yield


@pytest.fixture(autouse=True)
def _nothing_is_cached(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> Iterator[None]:
    """No cache of the user, and a server that does as it is told."""
    monkeypatch.setenv(CACHE_VARIABLE, "")
    yield
    server.before = server.after = lambda method, path: None
    server.start()


def brief(url: str | None, **changes: object) -> autoprune.StudySettings:
    return settings(artifacts=url, trials=8, uniform_points=1, solved_points=2, collect_garbage=True, **changes)


def created(out: Path, url: str | None = URL) -> autoprune.Study:
    return autoprune.Study.create(flat_task(), brief(url), out=out)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    """The study with its weights in the run folder."""
    study = created(tmp_path_factory.mktemp("local") / "run", None)
    study.run()
    return study


@pytest.fixture(scope="module")
def remote(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    """The same study with its weights in S3."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, "")
        study = created(tmp_path_factory.mktemp("remote") / "run")
        study.run()
    return study


def check_equal(study: autoprune.Study, local: autoprune.Study) -> None:
    """Records and weights are those of the local study, and no weights lie in the folder."""
    assert comparable(study.records, renumber=True) == comparable(local.records, renumber=True)
    assert not [*study.folder.path.rglob("weights.safetensors")]
    assert any(record.removed for record in local.records)
    for mine, other in zip(study.records, local.records, strict=True):
        assert study.folder.has_weights(mine.number) == local.folder.has_weights(other.number)
        if study.folder.has_weights(mine.number):
            found = load_weights(study.folder, mine.number)
            expected = load_weights(local.folder, other.number)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_study_in_s3_is_the_study_in_the_folder(remote: autoprune.Study, local: autoprune.Study) -> None:
    check_equal(remote, local)
    storage = read_artifacts(remote.folder.path)
    assert storage is not None
    kept = {f"candidates/{one.number:05d}/weights.safetensors" for one in remote.records if not one.removed}
    assert storage.names() == kept
    assert "s3" not in (remote.folder.path / "study.json").read_text()


def test_a_study_asks_for_nothing_but_objects(server: S3Server, tmp_path: Path) -> None:
    """No request says whether weights are there: the run folder knows."""
    study = created(tmp_path / "run")
    server.requests.clear()
    study.run(trials=5)
    root = f"/{BUCKET}/runs/"
    about = {(method, path.removeprefix(root).split("/")[-1][:15]) for method, path in server.requests}
    assert about == {
        *(("PUT", "weights.safeten"), ("DELETE", "weights.safeten")),
        *(("HEAD", "weights.safeten"), ("GET", "weights.safeten")),  # s3fs reads with both
        *(("PUT", "autoprune-check"), ("DELETE", "autoprune-check")),
    }
    methods = [method for method, _ in server.requests]
    assert methods.count("HEAD") == methods.count("GET")
    uploads = [path for method, path in server.requests if method == "PUT" and path.endswith(".safetensors")]
    assert len(uploads) == len({*uploads}) == 5


def test_the_command_line_takes_a_url_and_hides_a_password(server: S3Server, tmp_path: Path) -> None:
    script, out = write(tmp_path), tmp_path / "run"
    wrong = command("run", script, "--out", out, "--artifacts", "s3://key:secret@bucket")
    assert wrong.code == 2
    assert "without a password, such as s3://bucket/folder" in wrong.sentence
    assert "secret" not in wrong.text
    assert command("run", script, "--out", out, "--trials", 2, "--artifacts", URL).code == 0
    server.stop()
    away = command("run", script, "--out", out, "--trials", 3)
    assert away.code == 2
    assert "The storage of the weights cannot be used: writing" in away.sentence
    assert command("front", out).code == 0
    server.start()
    assert command("run", script, "--out", out, "--trials", 3).code == 0
    assert not [*out.rglob("weights.safetensors")]
    assert [*out.rglob("weights.uploaded")]


@pytest.mark.slow  # others of its kind are in test_workers.py; `make test-workers` runs it
def test_workers_upload_their_results(server: S3Server, tmp_path: Path) -> None:
    script, out = write(tmp_path), tmp_path / "run"
    answer = command("run", script, "--out", out, "--trials", 5, "--workers", 2, "--artifacts", URL)
    assert answer.code == 0, answer.text
    assert not [*out.rglob("weights.safetensors")]
    run = autoprune.Run.open(out)
    assert [record.number for record in run.records if run.folder.weights_file(record.number).is_uploaded] == [
        record.number for record in run.records if not record.removed
    ]
    assert all(load_weights(run.folder, record.number) for record in run.records if not record.removed)
    assert not examine(out)


def test_commands_and_downloads_read_them(remote: autoprune.Study, tmp_path: Path, server: S3Server) -> None:
    out, number = str(remote.folder.path), remote.front().members[-1].number
    server.requests.clear()
    for words in (["front", out], ["choose", out, "--knee"], ["report", out, "--to", tmp_path / "r.html"]):
        assert command(*words).code == 0
    assert remote.folder.has_weights(number)
    assert not server.requests, "who only looks asks no server"
    inputs, expected = torch.randn(5, 64), remote.rebuild(number)
    to = tmp_path / "small.safetensors"
    result = command("export", out, "--candidate", number, "--to", to)
    assert result.code == 0, result.text
    download = tmp_path / "download.safetensors"
    download.write_bytes(b"".join(candidate_file(remote.stored, "weights", number).parts))
    for path in (to, download):
        model = autoprune.load_safetensors(trained_mlp(), torch.zeros(2, 64), path)
        with torch.no_grad():
            assert torch.equal(model(inputs), expected(inputs))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_it_uploads(moment: str, server: S3Server, local: autoprune.Study, tmp_path: Path) -> None:
    """kill -9 before the third candidate's object is there, and after it; the same command goes on."""
    children: list[int] = []

    def kill(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("candidates/00002/weights.safetensors"):
            os.kill(children[0], signal.SIGKILL)
            raise ConnectionAbortedError

    setattr(server, moment, kill)
    children.append(start(lambda: created(tmp_path / "run").run()))
    assert os.WTERMSIG(os.waitpid(children[0], 0)[1]) == signal.SIGKILL
    setattr(server, moment, lambda method, path: None)
    assert [record.number for record in autoprune.Run.open(tmp_path / "run").records] == [0, 1]
    study = created(tmp_path / "run")
    study.run()
    check_equal(study, local)
    orphans = [one.place for one in examine(study.folder.path)]
    assert all(one.startswith(URL) and one.endswith("00002/weights.safetensors") for one in orphans)


def test_an_outage_loses_nothing(server: S3Server, local: autoprune.Study, tmp_path: Path) -> None:
    """The server goes while the study runs: what is finished is kept, and the same command goes on when it is back."""

    def leave(progress: Progress) -> None:
        if progress.done == 2:
            server.stop()

    study = created(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AutopruneWarning)
        with pytest.raises(StorageError, match=r"reading s3://.* ended with .*127\.0\.0\.1.*the same command goes on"):
            study.run(on_progress=leave)
    finished = [record.number for record in study.records]
    assert finished[:2] == [0, 1]
    with pytest.raises(StorageError, match=r"cannot be used: writing s3://weights/runs/autoprune-check"):
        created(tmp_path / "run")
    assert [*examine(study.folder.path, dry_run=True)][-1].place == "artifacts.json"
    server.start()
    again = created(tmp_path / "run")
    again.run()
    assert [record.number for record in again.records][: len(finished)] == finished
    check_equal(again, local)


def test_a_spoiled_object_is_refused_and_a_lost_one_told(remote: autoprune.Study) -> None:
    storage, one = read_artifacts(remote.folder.path), remote.folder.weights_file(1)
    assert storage is not None
    data = storage.read(one.name)
    assert data is not None
    try:
        storage.write(one.name, data[:-4] + b"\0\1\2\3")
        with pytest.raises(StorageError, match=r"s3://.*must hold the weights that weights.sha256 tells"):
            remote.rebuild(1)
        storage.write("candidates/00099/weights.safetensors", data)
        storage.remove(one.name)
        faults = {finding.place: finding.fault for finding in examine(remote.folder.path, dry_run=True)}
        assert faults == {
            "candidates/00001/weights.uploaded": "marks weights that the storage does not hold",
            storage.place("candidates/00099/weights.safetensors"): "is an object that nothing here names",
        }
    finally:
        storage.write(one.name, data)
        storage.remove("candidates/00099/weights.safetensors")
    assert not examine(remote.folder.path)


def test_another_url_has_to_hold_what_is_stored(server: S3Server, tmp_path: Path) -> None:
    """A run without a storage gets one, and then another one; a URL without the objects is refused."""
    study = created(tmp_path / "run", None)
    study.run(trials=2)
    created(tmp_path / "run").run(trials=2)
    assert not [*(tmp_path / "run").rglob("weights.safetensors")]
    other = f"s3://{BUCKET}/elsewhere"
    with pytest.raises(ConfigurationError, match=f"got {other}/.* without those of candidate 0.*Copy {URL}/"):
        created(tmp_path / "run", other).run(trials=2)
    storage = read_artifacts(tmp_path / "run")
    assert storage is not None
    assert storage.url == URL
    system = s3fs.S3FileSystem()
    for name in storage.names():
        system.mv(storage.place(name), f"{other}/{storage.study}/{name}")
    created(tmp_path / "run", other).run(trials=3)
    later = autoprune.Study.open(tmp_path / "run", flat_task())
    later.rebuild(1)
    assert later.folder.weights_file(2).place.startswith(other)


def test_checkpoints_lie_there_too(server: S3Server, tmp_path: Path) -> None:
    """Those of finished trials; they load as from a run folder, and go where an attempt begins anew."""
    chosen = settings(trials=3, uniform_points=0, solved_points=2, checkpoint_epochs=1, steps=25)
    whole = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "local")
    whole.run()
    study = autoprune.Study.create(flat_task(), chosen.changed({"storage.artifacts": URL}), out=tmp_path / "run")
    study.run()
    assert not [*(tmp_path / "run").rglob("weights.safetensors")]
    epochs = [(one.trial, one.epoch) for number in (1, 2) for one in study.checkpoints(number)]
    assert epochs == [(1, 1), (1, 2), (2, 1), (2, 2)]
    for trial, epoch in epochs:
        found, expected = (one.rebuild(trial, epoch=epoch).state_dict() for one in (study, whole))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not examine(study.folder.path)
    storage = read_artifacts(study.folder.path)
    assert storage is not None
    checkpoints.clear(study.folder, 2)
    kept = {name for name in storage.names() if name.startswith("checkpoints")}
    assert kept == {f"checkpoints/00001/0000{epoch}/weights.safetensors" for epoch in (1, 2)}


def test_checkpoints_that_an_outage_kept_here_are_uploaded_later(server: S3Server, tmp_path: Path) -> None:
    chosen = settings(trials=2, uniform_points=0, solved_points=1, checkpoint_epochs=1, steps=25, artifacts=URL)
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")

    def leave(progress: Progress) -> None:
        if progress.done == 1:
            server.stop()

    with pytest.warns(AutopruneWarning, match=r"weights of (the checkpoint [12] of trial|candidate) 1 stay in the run"):
        study.run(on_progress=leave)
    left = [*(tmp_path / "run").rglob("weights.safetensors")]
    assert [path.parent.name for path in sorted(left)] == ["00001", "00001", "00002"]
    server.start()
    study.run()
    assert not [*(tmp_path / "run").rglob("weights.safetensors")]
    study.rebuild(1, epoch=1)


@pytest.mark.parametrize(
    ("url", "told"), [("s3://key:se/cret@bucket", r"s3://key:\*\*\*@bucket"), ("folder", "folder"), (3, "3")]
)
def test_a_wrong_url_is_told_without_its_password(url: object, told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"storage.artifacts must be a URL without a password.*got '?{told}"):
        brief(url)  # type: ignore[arg-type]


def test_a_bucket_that_is_not_there_is_told_and_not_made(server: S3Server, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"writing s3://nowhere/x.*bucket does not exist"):
        created(tmp_path / "run", "s3://nowhere/x")
    assert not s3fs.S3FileSystem().exists("nowhere")
    assert not (tmp_path / "run").exists()
