"""Exported files give back the model that was measured, from its definition alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import autoprune
from autoprune.errors import ConfigurationError, NotFoundError, StorageError
from autoprune.export.architecture import ARCHITECTURE_VERSION
from autoprune.export.exportable import Exportable
from autoprune.export.formats import EXPORT_FORMATS
from autoprune.export.safetensors import export_safetensors, export_sparse
from autoprune.front.run import Run
from autoprune.measure.latency.onnx_file import onnx_outputs
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.maskable import maskable
from autoprune.plan.recovery import RecalibrationPlan, RecoveryPlan
from autoprune.plan.weights import WeightPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.task.checkpoint import read_weights, serialize
from autoprune.trial.candidate import evaluate_plan
from autoprune.trial.context import TrialContext
from tests.tasks import TWO, blobs, image_task
from tests.unit.study.small import settings, space
from tests.zoo.convolutional import ResNet, mlp

EXAMPLE = blobs()[0][:4]


def untrained() -> nn.Module:
    """The definition that was pruned, with other weights."""
    torch.manual_seed(123)
    return ResNet(widths=TWO, depth=1, classes=4)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    study = autoprune.Study.create(image_task(), settings(), out=tmp_path_factory.mktemp("study") / "run")
    study.run()
    return study


def exported(study: autoprune.Study, number: int, folder: Path) -> Path:
    found = Exportable.of_run(Run.open(study.folder.path), number)
    to, architecture = export_safetensors(found, folder / "deep" / "m.safetensors")
    assert architecture == folder / "deep" / "m.json"
    return to


def test_a_fresh_definition_gives_bit_identical_outputs(study: autoprune.Study, tmp_path: Path) -> None:
    inputs = blobs(60, seed=9)[0]
    for record in study.records:
        path = exported(study, record.number, tmp_path / str(record.number))
        model = autoprune.load_safetensors(untrained(), EXAMPLE, path)
        assert not model.training
        with torch.no_grad():
            assert torch.equal(model(inputs), study.rebuild(record.number)(inputs))
        assert sum(parameter.numel() for parameter in model.parameters()) == record.search.parameters


def test_the_definition_that_is_passed_stays_as_it_was(study: autoprune.Study, tmp_path: Path) -> None:
    dense = untrained().train()
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    autoprune.load_safetensors(dense, EXAMPLE, exported(study, 3, tmp_path))
    assert dense.training
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())


def test_the_architecture_says_what_it_is(study: autoprune.Study, tmp_path: Path) -> None:
    data = json.loads(exported(study, 3, tmp_path).with_suffix(".json").read_text())
    record = study.front().get(3)
    assert (data["version"], data["candidate"], data["study"]) == (ARCHITECTURE_VERSION, 3, study.name)
    assert {name: tuple(indices) for name, indices in data["kept"].items()} == record.kept
    assert autoprune.PruningPlan.from_dict(data["plan"]) == record.plan
    assert data["search"]["quality"] == record.search.quality


@pytest.mark.parametrize(
    "build",
    [lambda: ResNet(widths=(8, 24), depth=1, classes=4), lambda: ResNet(widths=TWO, depth=2, classes=4)],
    ids=["wider", "deeper"],
)
def test_another_definition_is_refused(build: type[nn.Module], study: autoprune.Study, tmp_path: Path) -> None:
    path = exported(study, 3, tmp_path)
    with pytest.raises(ConfigurationError, match="the dense model must be the definition that was pruned"):
        autoprune.load_safetensors(build(), EXAMPLE, path)


def test_a_definition_of_another_kind_is_refused(study: autoprune.Study, tmp_path: Path) -> None:
    path = exported(study, 3, tmp_path)
    flat = nn.Sequential(nn.Flatten(), mlp(64, 4))
    with pytest.raises(ConfigurationError, match="the dense model must be the definition that was pruned"):
        autoprune.load_safetensors(flat, EXAMPLE, path)


def test_both_files_are_needed(study: autoprune.Study, tmp_path: Path) -> None:
    path = exported(study, 3, tmp_path)
    path.with_suffix(".json").unlink()
    with pytest.raises(NotFoundError, match=r"a \.json beside it, but got no .*m\.json"):
        autoprune.load_safetensors(untrained(), EXAMPLE, path)
    with pytest.raises(NotFoundError, match=r"no .*nothing\.safetensors"):
        autoprune.load_safetensors(untrained(), EXAMPLE, tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"kept": 3, "structure": "x"}', '{"version": 3, "structure": "x", "kept": {"a": [0.5]}}']
)
def test_an_architecture_that_is_none(text: str, study: autoprune.Study, tmp_path: Path) -> None:
    path = exported(study, 3, tmp_path)
    path.with_suffix(".json").write_text(text)
    with pytest.raises(StorageError, match=r"must hold an architecture|must be JSON|its version must be 1 to 3"):
        autoprune.load_safetensors(untrained(), EXAMPLE, path)


def test_an_architecture_of_a_later_version_is_refused(study: autoprune.Study, tmp_path: Path) -> None:
    path = exported(study, 3, tmp_path)
    architecture = path.with_suffix(".json")
    architecture.write_text(json.dumps(json.loads(architecture.read_text()) | {"version": 99}))
    with pytest.raises(StorageError, match="version"):
        autoprune.load_safetensors(untrained(), EXAMPLE, path)


def test_weights_that_are_torn(study: autoprune.Study, tmp_path: Path) -> None:
    """A copy that was cut off is said to be one, not answered by an error of another library."""
    path = exported(study, 3, tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StorageError, match=r"m\.safetensors"):
        autoprune.load_safetensors(untrained(), EXAMPLE, path)


def test_another_ending_is_refused(study: autoprune.Study, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--to must end in \.safetensors, but got"):
        export_safetensors(Exportable.of_run(study.stored, 3), tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_gone(study: autoprune.Study, tmp_path: Path) -> None:
    other = autoprune.Study.create(image_task(), settings(trials=2), out=tmp_path / "run")
    other.run()
    other.folder.weights(1).unlink()
    with pytest.raises(NotFoundError, match="autoprune did not delete them"):
        export_safetensors(Exportable.of_run(other.stored, 1), tmp_path / "model.safetensors")
    other.folder.remove_weights(1)
    with pytest.raises(NotFoundError, match=r"Weights of dominated candidates.*collect_garbage is False"):
        export_safetensors(Exportable.of_run(other.stored, 1), tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


# ---- masked candidates

MASKS = {
    "unstructured": WeightPlan(sparsity=0.9),
    "global": WeightPlan(sparsity=0.9, spread="global"),
    "erk": WeightPlan(sparsity=0.8, spread="erk", layers={"head.weight": 0.5}),
    "2:4": WeightPlan(pattern="2:4"),
    "block": WeightPlan(pattern="block-4x4", sparsity=0.7),
}


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    """One candidate for each of MASKS, the first of them cut as well, and the dense model."""
    out, points = tmp_path_factory.mktemp("masked") / "run", {"uniform_points": 0, "solved_points": 0}
    given = settings(
        trials=1 + len(MASKS), latency_rounds=3, latency_backend="eager", space=space(scan=False), **points
    )
    study = autoprune.Study.create(image_task(), given, out=out)
    for number, weights in enumerate(MASKS.values()):
        groups = {} if number else {"stem.0": GroupPlan(ratio=0.5)}
        recovery = RecoveryPlan(steps=2, recalibration=RecalibrationPlan(samples=50))
        study.enqueue(autoprune.PruningPlan(groups=groups, weights=weights, recovery=recovery))
    study.run()
    assert [record.plan.weights for record in study.records] == [*MASKS.values(), None]
    return study


def numbered(study: autoprune.Study) -> list[CandidateRecord]:
    return [record for record in study.records if record.plan.weights is not None]


def test_a_masked_candidate_has_as_many_zeros_as_its_plan(masked: autoprune.Study) -> None:
    """After the fine-tune, too, and none of them is a minus zero."""
    names = maskable(masked.context.topology)
    for record in numbered(masked):
        weights, plan = dict(masked.rebuild(record.number).named_parameters()), record.plan.weights
        assert plan is not None
        zeros = {name: int((weights[name] == 0).sum()) for name in names}
        if plan.pattern == "unstructured":
            total = sum(weights[name].numel() for name in names if name not in plan.layers)
            others = sum(count for name, count in zeros.items() if name not in plan.layers)
            assert others == pytest.approx(plan.target * total, abs=len(names) / 2), plan
            assert all(zeros[name] == round(share * weights[name].numel()) for name, share in plan.layers.items())
        assert not any(torch.signbit(weights[name][weights[name] == 0]).any() for name in names)
        assert record.search.nonzero_parameters == sum(int((weight != 0).sum()) for weight in weights.values())
        assert record.search.parameters == sum(weight.numel() for weight in weights.values())


def test_the_bytes_of_a_masked_candidate_are_those_of_its_file(masked: autoprune.Study) -> None:
    for record in masked.records:
        stored = masked.folder.weights(record.number)
        assert stored.stat().st_size == record.search.size_bytes
        if record.plan.weights is not None:
            assert record.search.size_bytes < 0.85 * len(serialize(read_weights(stored)))
            assert record.search.mask_latency is not None
            assert record.search.mask_latency.bursts == 3
        else:
            assert record.search.mask_latency is None


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_a_masked_candidate_is_exported_in_every_format(name: str, masked: autoprune.Study, tmp_path: Path) -> None:
    inputs = blobs(60, seed=9)[0][: len(EXAMPLE)]
    chosen = EXPORT_FORMATS[name]
    for record in masked.records[:1] if chosen.needs_model else masked.records:
        to = tmp_path / f"{record.number}{chosen.ending}"
        found = Exportable.of_run(masked.stored, record.number, image_task() if chosen.needs_model else None)
        written = chosen.write(found, to)
        assert written[0] == to
        assert all(path.is_file() for path in written)
        with torch.no_grad():
            assert same(name, read_back(name, to)(inputs), masked.rebuild(record.number)(inputs))


def same(name: str, read: torch.Tensor, own: torch.Tensor) -> bool:
    """Bit by bit, but for a format whose runtime has operators of its own."""
    return torch.allclose(read, own, atol=1e-4) if name == "onnx" else torch.equal(read, own)


def read_back(name: str, path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """The model as one who has the file reads it."""
    if name == "torch_export":
        return torch.export.load(path).module()  # type: ignore[no-any-return]
    if name == "onnx":
        return lambda inputs: torch.from_numpy(onnx_outputs(path, [inputs.numpy()])[0])
    return autoprune.load_safetensors(untrained(), EXAMPLE, path)


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_a_candidate_of_no_study_is_exported_too(name: str, tmp_path: Path) -> None:
    context = TrialContext.of(image_task())
    plan = autoprune.PruningPlan(groups={"stem.0": GroupPlan(ratio=0.5)}, recovery=RecoveryPlan(steps=0))
    candidate = evaluate_plan(context, plan)
    to = tmp_path / f"m{EXPORT_FORMATS[name].ending}"
    EXPORT_FORMATS[name].write(Exportable.of_candidate(candidate, context), to)
    with torch.no_grad():
        inputs = context.task.example_inputs
        assert same(name, read_back(name, to)(inputs), candidate.model(inputs))


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_every_format_refuses_another_ending_and_says_what_it_is(
    name: str, study: autoprune.Study, tmp_path: Path
) -> None:
    chosen = EXPORT_FORMATS[name]
    with pytest.raises(ConfigurationError, match=rf"--to must end in \{chosen.ending}, but got"):
        chosen.write(Exportable.of_run(study.stored, 3), tmp_path / "model.bin")
    assert not list(tmp_path.iterdir())
    assert chosen.title
    assert chosen.write.__doc__
    if chosen.needs_model:
        with pytest.raises(ConfigurationError, match=r"must be given the study script, but got none\. Add --script"):
            chosen.write(Exportable.of_run(study.stored, 3), tmp_path / f"model{chosen.ending}")


def test_a_plain_file_is_for_any_tool_and_a_sparse_one_is_short(masked: autoprune.Study, tmp_path: Path) -> None:
    for record in masked.records:
        plain, _ = export_safetensors(Exportable.of_run(masked.stored, record.number), tmp_path / "plain.safetensors")
        sparse, _ = export_sparse(Exportable.of_run(masked.stored, record.number), tmp_path / "sparse.safetensors")
        read, own = load_file(plain), read_weights(sparse)
        assert read.keys() == own.keys()
        assert all(torch.equal(read[name], own[name]) for name in read)
        assert sparse.stat().st_size == record.search.size_bytes <= plain.stat().st_size


def test_a_run_from_before_there_were_masks(study: autoprune.Study, tmp_path: Path) -> None:
    """Plain files of weights, and records without the fields of masks."""
    out, inputs = tmp_path / "run", blobs(60, seed=9)[0]
    shutil.copytree(study.folder.path, out)
    for record in study.records:
        weights = out / study.folder.weights(record.number).relative_to(study.folder.path)
        weights.write_bytes(serialize(read_weights(weights)))
        for path in (weights.with_name("candidate.json"), weights.with_name("test.json")):
            if path.is_file():
                data = json.loads(path.read_text())
                for measured in (data, data.get("search", {})):
                    for field in ("nonzero_parameters", "mask_latency"):
                        measured.pop(field, None)
                path.write_text(json.dumps(data))
    old = autoprune.Study.open(out, image_task())
    assert [record.number for record in old.records] == [record.number for record in study.records]
    for before, record in zip(study.records, old.records, strict=True):
        assert record.search.nonzero_parameters == record.search.parameters == before.search.parameters
        with torch.no_grad():
            assert torch.equal(old.rebuild(record.number)(inputs), study.rebuild(before.number)(inputs))
    assert len(old.front().table()) == len(study.front().table())


# ---- loading proves nothing


def unproved(*_: object) -> None:
    raise AssertionError("nothing is to be traced or proved")


@pytest.mark.parametrize("dense", [untrained, untrained()], ids=["a function", "a module"])
def test_loading_looks_at_names_and_shapes_alone(
    dense: nn.Module, study: autoprune.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported(study, 3, tmp_path)
    monkeypatch.setattr("autoprune.export.safetensors.discover_structure", unproved)
    model, inputs = autoprune.load_safetensors(dense, EXAMPLE, path), blobs(60, seed=9)[0]
    with torch.no_grad():
        assert torch.equal(model(inputs), study.rebuild(3)(inputs))
    with pytest.raises(ConfigurationError, match="the definition that was pruned, but got one with other tensors"):
        autoprune.load_safetensors(ResNet(widths=TWO, depth=2, classes=4), EXAMPLE, path)
    with pytest.raises(ConfigurationError, match="Pass the module inside"):
        autoprune.load_safetensors(nn.DataParallel(untrained()), EXAMPLE, path)
    with pytest.raises(ConfigurationError, match="a function that builds one"):
        autoprune.load_safetensors("resnet", EXAMPLE, path)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [2, 3])
def test_a_file_without_a_topology_is_proved_once_more(version: int, study: autoprune.Study, tmp_path: Path) -> None:
    """That of an earlier version, and that of a run of one."""
    path, inputs = exported(study, 3, tmp_path), blobs(60, seed=9)[0]
    data = json.loads(path.with_suffix(".json").read_text())
    del data["topology"]
    path.with_suffix(".json").write_text(json.dumps(data | {"version": version}))
    with torch.no_grad():
        assert torch.equal(autoprune.load_safetensors(untrained(), EXAMPLE, path)(inputs), study.rebuild(3)(inputs))
    with pytest.raises(ConfigurationError, match="the definition that was pruned, but got one of another structure"):
        autoprune.load_safetensors(ResNet(widths=(8, 24), depth=1, classes=4), EXAMPLE, path)


def test_a_run_from_before_topologies_were_stored(study: autoprune.Study, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(study.folder.path, out)
    (out / "topology.json").unlink()
    path, _ = export_safetensors(Exportable.of_run(Run.open(out), 3), tmp_path / "old.safetensors")
    assert json.loads(path.with_suffix(".json").read_text())["topology"] is None
    autoprune.Study.create(image_task(), settings(), out=out)
    assert (out / "topology.json").read_bytes() == (study.folder.path / "topology.json").read_bytes()


DAMAGE = {
    "a position outside": lambda group: group["members"][0]["index"].update(start=1000),
    "many positions": lambda group: group["members"][0]["index"].update(shape=[2**40, 2**40]),
    "other channels": lambda group: group.update(channels=group["channels"] + 1),
    "another axis": lambda group: group["members"][0].update(axis=7),
    "another tensor": lambda group: group["members"][0].update(tensor="nothing"),
    "no members": lambda group: group.pop("members"),
    "a text": lambda group: group["members"][0]["index"].update(start="0"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_topology_is_said_to_be_one(
    damage: Callable[[dict[str, object]], object], study: autoprune.Study, tmp_path: Path
) -> None:
    path = exported(study, 3, tmp_path)
    data = json.loads(path.with_suffix(".json").read_text())
    damage(data["topology"]["groups"][0])
    path.with_suffix(".json").write_text(json.dumps(data))
    with pytest.raises(StorageError, match=r"m\.json must hold"):
        autoprune.load_safetensors(untrained(), EXAMPLE, path)
