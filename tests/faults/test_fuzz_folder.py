"""A run folder with something else in the place of any field: an answer or an error of ours, nothing else."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import autoprune
from autoprune.errors import AutopruneError, StorageError
from autoprune.export.exportable import Exportable
from autoprune.export.safetensors import export_safetensors
from autoprune.front.run import Run
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.records.limits import Limits
from autoprune.recovery.callbacks import Snapshot
from autoprune.report.html import write_report
from autoprune.search.solve import solve_stored
from autoprune.study import checkpoints
from autoprune.task.checkpoint import read_weights, serialize
from tests.tasks import flat_task, trained_mlp
from tests.unit.study.small import settings

Path_ = tuple[str | int, ...]

EXAMPLE = torch.zeros(2, 1, 8, 8)
MISSING = object()
DEEP: object = "deep"
#: What takes the place of a field.
WRONG = ("x", 3, -1, 1.5, None, [], {}, True, math.nan, -math.inf, 1e308, 10**30, [[1]], {"a": {}}, DEEP, MISSING)
#: Files of a run folder, beside those of the export and the plan.
FILES = (
    "study.json",
    "sensitivity.json",
    "candidates/00000/candidate.json",
    "candidates/00003/candidate.json",
    "candidates/00000/test.json",
    "checkpoints/00003/00001/checkpoint.json",
    "m.json",
    "plan.json",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    """A finished study, with an export, a plan and a checkpoint in its folder."""
    path = tmp_path_factory.mktemp("fuzz") / "run"
    chosen = settings(
        trials=5, latency_rounds=2, latency_backend="eager", objectives=("quality", "multiply_adds", "latency_ms")
    )
    study = autoprune.Study.create(flat_task(), chosen, out=path)
    study.run()
    record = study.records[3]
    export_safetensors(Exportable.of_run(study.stored, 3), path / "m.safetensors")
    (path / "plan.json").write_text(record.plan.to_json())
    kept = KeptChannels(groups=record.kept)
    checkpoints.write(study.folder, 3, Snapshot(epoch=1, step=2, rate=0.1, model=study.rebuild(3), kept=kept, masks={}))
    return study


def places(data: object, here: Path_ = ()) -> Iterator[Path_]:
    """Every field of a document, of lists the first and the last entry alone."""
    yield here
    if isinstance(data, dict):
        for name, value in data.items():
            yield from places(value, (*here, name))
    if isinstance(data, list) and data:
        for place in sorted({0, len(data) - 1}):
            yield from places(data[place], (*here, place))


def changed(data: object, place: Path_, value: object) -> str:
    """The document with another value in a place, as JSON."""
    if not place:
        return "" if value is MISSING else text_of(value)
    data = copy.deepcopy(data)
    inside: object = data
    for step in place[:-1]:
        inside = inside[step]  # type: ignore[index]
    if value is MISSING:
        del inside[place[-1]]  # type: ignore[attr-defined]
    else:
        inside[place[-1]] = value  # type: ignore[index]
    return text_of(data)


def text_of(data: object) -> str:
    return json.dumps(data).replace('"deep"', "[" * 200_000)


def look(study: autoprune.Study, work: Path, *, slower: bool) -> None:
    """Everything that only looks at a run folder; any error but ours is raised."""
    folder = study.folder

    def opened() -> autoprune.Study:
        return autoprune.Study.open(folder.path)

    def load() -> object:
        found = checkpoints.read(folder, 3)
        return checkpoints.load_model(study.context, folder, 3, found[0].epoch) if study.context else None

    looks = [
        lambda: Run.open(folder.path).front().table().to_csv(),
        lambda: opened().front().table().to_csv(),
        lambda: opened().front().choose(Limits(max_drop=0.5, max_size_share=0.9)),
        lambda: opened().front().knee(),
        lambda: opened().importances(),
        lambda: solve_stored(opened().stored, opened().settings, 0.4),
        lambda: export_safetensors(Exportable.of_run(Run.open(folder.path), 3), work / "again.safetensors"),
        load,
        lambda: PruningPlan.from_json((folder.path / "plan.json").read_bytes()),
    ]
    if slower:
        looks += [
            lambda: write_report(Run.open(folder.path), work / "report.html"),
            lambda: autoprune.load_safetensors(trained_mlp(), torch.zeros(2, 64), folder.path / "m.safetensors"),
        ]
    for one in looks:
        with contextlib.suppress(AutopruneError):
            one()


def cases(run: autoprune.Study) -> list[tuple[str, Path_, object]]:
    found = []
    for name in FILES:
        data = json.loads((run.folder.path / name).read_text())
        found += [(name, place, value) for place in places(data) for value in WRONG]
    return found


def sweep(run: autoprune.Study, chosen: list[tuple[str, Path_, object]], work: Path, *, seldom: int) -> None:
    """Try each case. seldom: one of so many is looked at in the slower ways too."""
    for number, (name, place, value) in enumerate(chosen):
        path = run.folder.path / name
        whole = path.read_text()
        try:
            path.write_text(changed(json.loads(whole), place, value))
            look(run, work, slower=number % seldom == 0)
        except Exception as error:
            raise AssertionError(f"{name} with {value!r} at {place}") from error
        finally:
            path.write_text(whole)


def test_some_fields_of_every_file(run: autoprune.Study, tmp_path: Path) -> None:
    sweep(run, random.Random(0).sample(cases(run), 30), tmp_path, seldom=15)


@pytest.mark.slow
def test_every_field_of_every_file(run: autoprune.Study, tmp_path: Path) -> None:
    sweep(run, cases(run), tmp_path, seldom=4)


# ---- what contradicts the rest, although each field has its type


def spoil(run: autoprune.Study, name: str, change: Callable[[dict[str, Any]], object]) -> AbstractContextManager[None]:
    """The run folder while a file of it is changed."""

    @contextlib.contextmanager
    def during() -> Iterator[None]:
        path = run.folder.path / name
        whole = path.read_text()
        data = json.loads(whole)
        change(data)
        try:
            path.write_text(json.dumps(data))
            yield
        finally:
            path.write_text(whole)

    return during()


THIRD = "candidates/00003/candidate.json"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            THIRD,
            lambda d: d.update(number=2),
            r"number of .*json must be 3, as its folder says, but got 2",
        ),
        (THIRD, lambda d: d.update(parent=3), "descends from itself"),
        (THIRD, lambda d: d.update(parent=99), "descends from 99, which is not there"),
        (THIRD, lambda d: d.update(samples_trained=-1), "samples_trained must be >= 0, but got -1"),
        (THIRD, lambda d: d.update(origin="there"), "origin must be one of dense, uniform"),
        (THIRD, lambda d: d["kept"].popitem(), "with other groups"),
        (THIRD, lambda d: d["kept"].update(more=[0]), "with other groups"),
        (THIRD, lambda d: d["kept"].update({next(iter(d["kept"])): [0, 999]}), "keeps channel 999 of"),
        (THIRD, lambda d: d["kept"].update({next(iter(d["kept"])): [1, 0]}), "rising indices"),
        (THIRD, lambda d: d.update(dropped=["nothing"]), "without a block 'nothing'"),
        (THIRD, lambda d: d["search"].update(parameters=-5), "parameters must be >= 0"),
        ("study.json", lambda d: d["groups"].append(d["groups"][0]), "two groups have the same name"),
        ("study.json", lambda d: d["groups"][0].update(channels=77), "costs are of other groups"),
        ("study.json", lambda d: d["ties"].__setitem__(0, 5), r"ties\[0\]"),
        ("study.json", lambda d: d["costs"]["terms"][0].update(lengths=[9999]), "terms refer to lengths beyond"),
        ("study.json", lambda d: d["costs"]["terms"].clear(), "the dense model has no multiply_adds"),
        ("study.json", lambda d: [one.update(size_bytes=0) for one in d["costs"]["terms"]], "has no size_bytes"),
        ("study.json", lambda d: [one.update(whole=0) for one in d["costs"]["lengths"]], "has no multiply_adds"),
    ],
)
def test_what_contradicts_itself_is_told(
    name: str, change: Callable[[dict[str, Any]], object], message: str, run: autoprune.Study
) -> None:
    with spoil(run, name, change), pytest.raises(StorageError, match=message) as caught:
        autoprune.Study.open(run.folder.path)
    assert str(run.folder.path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["keep_shares"].reverse(), "keep_shares of .* must fall"),
        (lambda d: d["added_loss"].popitem(), "hold the groups of study.json"),
        (lambda d: next(iter(d["added_loss"].values())).pop(), "must hold 4, but got a list of 3"),
    ],
)
def test_a_scan_that_contradicts_itself(
    change: Callable[[dict[str, Any]], object], message: str, run: autoprune.Study
) -> None:
    with spoil(run, "sensitivity.json", change), pytest.raises(StorageError, match=message):
        solve_stored(Run.open(run.folder.path), run.settings, 0.4)


def test_two_folders_of_one_number_and_a_folder_without_a_record(run: autoprune.Study) -> None:
    root = run.folder.path / "candidates"
    for name, message in (("3", "must be named 00003"), ("00077", "must be a file that can be read")):
        (root / name).mkdir()
        with pytest.raises(StorageError, match=message):
            autoprune.Study.open(run.folder.path)
        (root / name).rmdir()


# ---- weights


def broken(value: float) -> Callable[[dict[str, Tensor]], object]:
    """A parameter with a value in it."""
    return lambda weights: weights["5.weight"].view(-1)[:1].fill_(value)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (broken(torch.nan), r"5\.weight holds values that are not finite"),
        (broken(torch.inf), r"5\.weight holds values that are not finite"),
        (lambda w: w[next(n for n in w if n.endswith("running_var"))].fill_(-1), "running_var holds variances below 0"),
        (broken(3.0), "hold the weights that weights.sha256 tells"),
        (lambda w: w.pop("5.weight"), "hold the weights that weights.sha256 tells"),
        (lambda w: w.update({"5.weight": w["5.weight"].t().contiguous()}), "weights.sha256 tells"),
        (lambda w: w.update({"5.weight": w["5.weight"].half()}), "weights.sha256 tells"),
    ],
)
def test_weights_that_were_changed(
    harm: Callable[[dict[str, Tensor]], object], message: str, run: autoprune.Study, tmp_path: Path
) -> None:
    path = run.folder.weights(3)
    whole, weights = path.read_bytes(), read_weights(path)
    harm(weights)
    try:
        path.write_bytes(serialize(weights))
        with pytest.raises(StorageError, match=rf"00003.weights\.safetensors must .*{message}"):
            export_safetensors(Exportable.of_run(run.stored, 3), tmp_path / "m.safetensors")
        with pytest.raises(StorageError, match=message):
            run.rebuild(3)
    finally:
        path.write_bytes(whole)
    assert not [*tmp_path.iterdir()]


def test_weights_of_an_earlier_version_have_no_digest(run: autoprune.Study, tmp_path: Path) -> None:
    digest = run.folder.weights(3).with_name("weights.sha256")
    told = digest.read_bytes()
    digest.unlink()
    try:
        export_safetensors(Exportable.of_run(run.stored, 3), tmp_path / "m.safetensors")
    finally:
        digest.write_bytes(told)
