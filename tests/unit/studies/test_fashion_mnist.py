from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import autoprune
from autoprune.errors import NotFoundError, StorageError
from autoprune.search.space.space import build_space
from autoprune.study.preflight import check_space
from autoprune.trial.context import TrialContext
from studies.fashion_mnist import data as reader
from studies.fashion_mnist import lineage
from studies.fashion_mnist import model as network
from studies.fashion_mnist.data import PACKAGED, VARIABLE, datasets, read_idx
from studies.fashion_mnist.model import ResNet14, base_model, train, trained
from studies.fashion_mnist.study import settings


def idx(values: Tensor) -> bytes:
    """The bytes of an idx file."""
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return head + values.to(torch.uint8).numpy().tobytes()


def published(folder: Path, train: int = 50, test: int = 20, pack: Callable[[bytes], bytes] = gzip.compress) -> Path:
    """The four files with few images: image i of train is filled with i, image i of test with 100 + i."""
    folder.mkdir(parents=True, exist_ok=True)
    end = ".gz" if pack is gzip.compress else ""
    for part, count, first in (("train", train, 0), ("t10k", test, 100)):
        images = torch.arange(first, first + count)[:, None, None].expand(count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte{end}").write_bytes(pack(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte{end}").write_bytes(pack(idx(torch.arange(count) % 10)))
    return folder


def numbers(images: Tensor, scale: float, mean: float) -> list[int]:
    """What each image was filled with, before it was scaled."""
    return [round(float(value)) for value in (images[:, 0, 0, 0] * scale + mean) * 255]


@pytest.mark.parametrize("name", ["a.gz", "a"])
def test_an_idx_file_is_read_in_the_order_of_its_axes(tmp_path: Path, name: str) -> None:
    values = torch.arange(24).reshape(2, 3, 4)
    content = idx(values)
    assert content[:16] == bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4])
    (tmp_path / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    found = read_idx(tmp_path / name)
    assert found.dtype == torch.uint8
    assert torch.equal(found, values.to(torch.uint8))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty", b""),
        ("short head", idx(torch.zeros(2, 3))[:9]),
        ("one byte short", idx(torch.zeros(2, 3))[:-1]),
        ("one byte more", idx(torch.zeros(2, 3)) + b"x"),
        ("floats", b"\0\0\x0d\1" + struct.pack(">If", 1, 1.0)),
        ("signed bytes", b"\0\0\x09\1" + struct.pack(">I", 2) + b"ab"),
        ("other start", b"\1" + idx(torch.zeros(2, 3))[1:]),
        ("not packed.gz", idx(torch.zeros(2, 3))),
        ("torn.gz", gzip.compress(idx(torch.zeros(20, 30)), mtime=0)[:-9]),
        ("damaged.gz", gzip.compress(idx(torch.zeros(2, 3)), mtime=0)[:12] + b"\xff" * 12),
    ],
)
def test_another_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StorageError, match=f"{name} must be an idx file"):
        read_idx(tmp_path / name)


@pytest.mark.parametrize("pack", [gzip.compress, bytes], ids=["packed", "plain"])
def test_the_splits_are_disjoint_and_keep_images_with_their_classes(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    found = datasets(published(tmp_path, pack=pack))
    assert {name: tuple(images.shape) for name, (images, _) in found.items()} == {
        "train": (45, 1, 28, 28),
        "search": (5, 1, 28, 28),
        "test": (20, 1, 28, 28),
    }
    images, targets = found["train"]
    assert images.dtype == torch.float32
    assert targets.dtype == torch.int64
    assert float(images.mean()) == pytest.approx(0.0, abs=1e-4)
    assert float(images.std()) == pytest.approx(1.0, abs=1e-2), "scaled by train alone"
    # Two images of test whose numbers are known tell the scale.
    first, last = float(found["test"][0][0].mean()), float(found["test"][0][-1].mean())
    scale = 19 / 255 / (last - first)
    mean = 100 / 255 - first * scale
    seen = {name: numbers(images, scale, mean) for name, (images, _) in found.items()}
    assert sorted(seen["train"] + seen["search"]) == list(range(50))
    assert seen["train"] != sorted(seen["train"]), "drawn at random"
    assert seen["test"] == list(range(100, 120))
    for name, start in (("train", 0), ("search", 0), ("test", 100)):
        assert found[name][1].tolist() == [(number - start) % 10 for number in seen[name]]


def test_the_splits_are_the_same_again_whatever_the_seed(tmp_path: Path) -> None:
    published(tmp_path)
    first = datasets(tmp_path)
    torch.manual_seed(5)
    again = datasets(tmp_path)
    assert all(torch.equal(first[name][0], again[name][0]) for name in first)


def test_the_folder_comes_from_the_argument_then_the_variable_then_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, packaged = published(tmp_path / "named", train=40), published(tmp_path / "packaged", train=30)
    monkeypatch.setattr(reader, "PACKAGED", packaged)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert len(datasets()["train"][0]) == 27
    monkeypatch.setenv(VARIABLE, str(named))
    assert len(datasets()["train"][0]) == 36
    assert len(datasets(published(tmp_path / "given", train=20))["train"][0]) == 18


def test_without_the_files_it_says_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(NotFoundError) as caught:
        datasets()
    for part in (str(tmp_path), "train-images-idx3-ubyte.gz", "apt-get install dataset-fashion-mnist", VARIABLE):
        assert part in str(caught.value)


def test_images_and_classes_of_another_number_are_refused(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(torch.zeros(19))))
    with pytest.raises(StorageError, match=r"t10k in .* \(20, 28, 28\) and \(19,\)"):
        datasets(tmp_path)


@pytest.mark.skipif(
    not PACKAGED.is_dir() and not os.environ.get("AUTOPRUNE_REQUIRE_DATASETS"),
    reason="Debian's dataset-fashion-mnist is not installed",
)
def test_the_real_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    found = datasets()
    assert {name: len(images) for name, (images, _) in found.items()} == {
        "train": 54_000,
        "search": 6_000,
        "test": 10_000,
    }
    assert found["test"][1].bincount().tolist() == [1_000] * 10
    assert (found["train"][1].bincount() + found["search"][1].bincount()).tolist() == [6_000] * 10


def test_the_dense_model_is_trained_once_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = datasets(published(tmp_path / "data", train=300))
    checkpoint = tmp_path / "dense.safetensors"
    first = trained(ResNet14, checkpoint, data, 1)
    assert "training" in capsys.readouterr().out
    stored = load_file(checkpoint)
    assert not first.training
    assert all(torch.equal(value, stored[name]) for name, value in first.state_dict().items())
    monkeypatch.setattr(network, "CHECKPOINT", checkpoint)
    again = base_model()
    assert capsys.readouterr().out == ""
    assert all(torch.equal(value, stored[name]) for name, value in again.state_dict().items())
    assert int(stored["stem.1.num_batches_tracked"]) == 2, "270 images are two whole steps"


def test_training_is_the_same_whatever_the_seed_and_leaves_the_callers_alone(tmp_path: Path) -> None:
    images, targets = datasets(published(tmp_path, train=150))["train"]
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = torch.rand(3)
        torch.manual_seed(seed)
        found.append(train(ResNet14, images, targets, 1).state_dict())
        assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    untrained = ResNet14().state_dict()
    assert not torch.equal(found[0]["head.weight"], untrained["head.weight"])


def test_training_learns(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(10, (512,), generator=generator)
    images = torch.zeros(512, 1, 28, 28)
    for image, target in zip(images, targets.tolist(), strict=True):
        image[0, 2 * target : 2 * target + 3] = 1.0  # a bar, which stays where it is when mirrored
    model = train(ResNet14, images, targets, 4).eval()
    with torch.no_grad():
        assert float((model(images).argmax(1) == targets).float().mean()) > 0.9


def random_task() -> autoprune.PreparedTask:
    """An untrained model on noise."""
    torch.manual_seed(0)
    images, targets = torch.randn(40, 1, 28, 28), torch.arange(40) % 10
    return autoprune.prepare(
        autoprune.Task(
            model=ResNet14(),
            example_inputs=images[:4],
            train=(images, targets),
            loss=torch.nn.functional.cross_entropy,
            metrics=("accuracy",),
            quality="accuracy",
            batch_size=8,
            require_trained=False,
        )
    )


def test_the_settings_fit_the_model_and_sample_what_the_study_is_about() -> None:
    context = TrialContext.of(random_task(), kinds=settings.structure.kinds)
    check_space(settings, context, scanned=(settings.search.scan_criterion,))
    assert len(context.topology.groups) == 9
    assert len(context.topology.blocks) == 4
    names = set(build_space(settings, context.topology, None).distributions)
    assert {"budget", "pattern", "sparsity", "schedule", "scheduler", "learning_rate"} <= names
    assert {"distillation", "max_norm", "reconstruction"} <= names
    for kind, count in (("criterion/", 9), ("drop/", 4), ("residual/", 9)):
        assert sum(name.startswith(kind) for name in names) == count


def test_the_lineage_goes_from_wide_to_narrow_and_trains_the_narrow_ones_for_longer(tmp_path: Path) -> None:
    brief = lineage.settings.changed({"recovery.steps": 2, "search.scan_samples": 200})
    study = autoprune.Study.create(random_task(), brief, out=tmp_path / "run")
    study.run()
    dense, *solved = study.records
    assert [record.origin for record in solved] == ["solved"] * lineage.POINTS
    # What noise says of the groups need not be nested; most is.
    assert sum(record.parent == record.number - 1 for record in solved) > lineage.POINTS / 2
    shares = [record.search.multiply_adds / dense.search.multiply_adds for record in solved]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.7
    assert shares[-1] < 0.02
    assert [record.plan.recovery.steps for record in solved] == [
        round(2 * max(share, brief.search.min_budget) ** -0.5) for share in shares
    ]


def test_the_checkpoint_is_not_committed() -> None:
    root = Path(network.__file__).parents[2]
    assert network.CHECKPOINT.relative_to(root).match("studies/*/*.safetensors")
    assert "/studies/*/*.safetensors" in (root / ".gitignore").read_text().splitlines()
