"""Downloads of a dashboard: they load again, and nothing outside the run folder is ever read."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import autoprune
from autoprune.dashboard.downloads import CANDIDATE_FILES, Download, candidate_file, table_file
from autoprune.errors import NotFoundError, StorageError, UnknownNameError
from autoprune.front.compared import compare
from tests.tasks import flat_task, trained_mlp
from tests.unit.front.builders import dense, measurement, record, run_of
from tests.unit.study.small import settings


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    study = autoprune.Study.create(flat_task(), settings(trials=4), out=tmp_path_factory.mktemp("study") / "run")
    study.run()
    return study


def whole(found: Download) -> bytes:
    data = b"".join(found.parts)
    assert len(data) == found.length
    return data


def test_a_plan_that_was_downloaded_is_the_plan(study: autoprune.Study) -> None:
    for one in study.records:
        found = candidate_file(study.stored, "plan", str(one.number))
        assert found.name == f"candidate-{one.number:05d}-plan.json"
        assert autoprune.PruningPlan.from_json(whole(found)) == one.plan


def test_weights_that_were_downloaded_are_the_model(study: autoprune.Study, tmp_path: Path) -> None:
    """One file, under any name, is enough."""
    inputs = torch.randn(5, 64)
    for one in study.records:
        path = tmp_path / "any name.safetensors"
        found = candidate_file(study.stored, "weights", one.number)
        path.write_bytes(whole(found))
        model = autoprune.load_safetensors(trained_mlp(), torch.zeros(2, 64), path)
        with torch.no_grad():
            assert torch.equal(model(inputs), study.rebuild(one.number)(inputs))
        with safe_open(path, framework="pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            architecture = json.loads(file.metadata()["autoprune_architecture"])
        assert (architecture["candidate"], architecture["study"]) == (one.number, study.name)
        with safe_open(study.folder.weights(one.number), framework="pt") as file:
            assert all(torch.equal(stored[name], file.get_tensor(name)) for name in file.keys())  # noqa: SIM118


def test_layers_of_every_candidate_add_up_to_what_it_costs(study: autoprune.Study) -> None:
    """The table of layers lies in the run folder, and gives each cut model's multiply-adds exactly."""
    run = study.stored
    found = compare(run.front(), [1, 2, 3], run.manifest.groups, run.folder.read_layers())
    assert found.numbers == (0, 1, 2, 3)
    assert [layer.kind for layer in found.layers] == ["linear"] * len(found.layers)
    for place, one in enumerate(found.records):
        assert sum(layer.multiply_adds[place] for layer in found.layers) == one.search.multiply_adds
    assert not found.predicts_latency


@pytest.mark.parametrize(
    "number",
    ["../0", "0/../1", "-1", "00000000001", "٣", "1e0", "", " 1", "0x1", None, ["0"], 1.5, "7", "NaN", "study.json\0"],
)
def test_only_the_number_of_a_candidate_is_a_name(number: object, study: autoprune.Study) -> None:
    for kind in CANDIDATE_FILES:
        with pytest.raises(NotFoundError, match="a candidate must be"):
            candidate_file(study.stored, kind, number)


def test_kinds_are_a_list(study: autoprune.Study) -> None:
    with pytest.raises(UnknownNameError, match="the kind of a file must be one of plan, table, weights"):
        candidate_file(study.stored, "../../etc/passwd", "0")


def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes((2).to_bytes(8, "little") + b"{}secret")
    return path


def linked(path: Path, tmp_path: Path) -> None:
    path.unlink()
    path.symlink_to(secret(tmp_path))


def linked_folder(path: Path, tmp_path: Path) -> None:
    path.parent.rename(tmp_path / "elsewhere")
    path.parent.symlink_to(tmp_path / "elsewhere")


def piped(path: Path, _: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (linked, "be a file in the run folder, but got a link to another place"),
        (linked_folder, "be a file in the run folder, but got a link to another place"),
        (lambda path, _: path.write_bytes(b""), "one of 0 bytes without a header"),
        (lambda path, _: path.write_bytes(b"\xff" * 20), "one of 20 bytes without a header"),
        (lambda path, _: path.write_bytes((4).to_bytes(8, "little") + b"[[]]"), "one with another header"),
        (lambda path, _: path.write_bytes((2).to_bytes(8, "little") + b"\xff{"), "one with another header"),
        (piped, "weights of candidate 0 are missing"),
        (lambda path, _: path.unlink(), "weights of candidate 0 are missing"),
    ],
)
def test_what_is_no_weights_of_the_run_is_not_sent(harm: object, message: str, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [dense()])
    run.folder.write_candidate(dense(), (2).to_bytes(8, "little") + b"{}")
    assert whole(candidate_file(run, "weights", 0)).rstrip().endswith(b"}")
    outside = tmp_path / "outside"
    outside.mkdir()
    harm(run.folder.weights(0), outside)  # type: ignore[operator]
    with pytest.raises((StorageError, NotFoundError), match=message):
        candidate_file(run, "weights", 0)


def test_a_table_for_spreadsheets_holds_numbers_and_no_formulas(tmp_path: Path) -> None:
    """Negative numbers stay numbers; text that begins like a formula, also behind an escape, has an apostrophe."""
    lower = record(1, measurement(-0.25, 500))
    run = run_of(tmp_path, [dense(), lower], quality="=cmd|' /C calc'!A0")
    run.annotate("\x1b[31m=HYPERLINK(1)", 1)
    run.annotate("+1", 0)
    run.mark(1)
    data = whole(table_file(run))
    assert data.startswith(b"\xef\xbb\xbfcandidate,origin,chosen,")
    head, *rows = csv.reader(io.StringIO(data.decode("utf-8-sig")))
    assert not [cell for cell in (*head, *rows[0], *rows[1]) if cell[:1] in tuple("=+@\t\r")]
    of = [dict(zip(head, row, strict=True)) for row in rows]
    assert [one["note"] for one in of] == ["'+1", "'=HYPERLINK(1)"]
    assert [one["chosen"] for one in of] == ["False", "True"]
    assert float(of[1]["search_=cmd|' /C calc'!A0"]) == -0.25
    assert (of[1]["candidate"], of[1]["multiply_adds"], of[1]["latency_ms"]) == ("1", "500", "")
    assert whole(candidate_file(run, "table", "1")).count(b"\n") == 2
    assert whole(table_file(run_of(tmp_path / "none", []))) == b"\xef\xbb\xbf"


def test_a_file_that_becomes_shorter_is_not_taken_for_whole(tmp_path: Path) -> None:
    run = run_of(tmp_path, [dense()])
    run.folder.write_candidate(dense(), (2).to_bytes(8, "little") + b"{}" + bytes(100_000))
    found = candidate_file(run, "weights", 0)
    os.truncate(run.folder.weights(0), 90_000)
    with pytest.raises(StorageError, match="became shorter"):
        b"".join(found.parts)
