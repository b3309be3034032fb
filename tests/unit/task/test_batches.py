"""Batches of every shape: what works, and what a task refuses before any work."""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

import autoprune
from autoprune.errors import ConfigurationError, TaskError
from autoprune.measure.quality import evaluate, quality_alone
from autoprune.plan.recovery import RecoveryPlan
from autoprune.recovery.batch_norm import recalibrate
from autoprune.recovery.fine_tune import fine_tune
from autoprune.task import first_run
from autoprune.task.batches import batch_samples
from autoprune.task.data import as_batch, endless_batches, first_batches, take_batches
from autoprune.task.splits import as_split
from autoprune.task.trained import assert_trained

generator = torch.Generator().manual_seed(0)
X = torch.randn(130, 6, generator=generator)
Y = X[:, :3].argmax(1)
cross_entropy = functional.cross_entropy


class Net(nn.Module):
    """Right about the largest of the first three inputs; `norm` is what it has before."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = norm if norm is not None else nn.Identity()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.norm(x)[:, :3] * self.scale
        return outputs


def pairs(size: int = 40, samples: int = 120) -> list[tuple[Tensor, Tensor]]:
    return [(X[start : start + size].clone(), Y[start : start + size]) for start in range(0, samples, size)]


def task_of(model: nn.Module | None = None, **changes: object) -> autoprune.PreparedTask:
    arguments: dict[str, object] = {
        "model": Net() if model is None else model,
        "example_inputs": X[:2],
        "train": (X, Y),
        "search": pairs(),
        "loss": cross_entropy,
        "metrics": ("accuracy",),
        "quality": "accuracy",
        "batch_size": 40,
        "calibration_samples": 60,
    }
    return autoprune.prepare(autoprune.Task(**{**arguments, **changes}))  # type: ignore[arg-type]


def fault_of(model: nn.Module | None = None, **changes: object) -> str:
    with pytest.raises(TaskError) as error:
        task_of(model, **changes)
    assert len(error.value.faults) == 1, error.value.faults
    return error.value.faults[0]


# ---- what can be read once


class Once:
    """Gives what is left of one iterator; each `iter` is an object of its own."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.left = iter(batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self.left


class Itself(Once):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.left


class OnceStream(IterableDataset[tuple[Tensor, Tensor]]):
    def __init__(self) -> None:
        self.left = zip(X, Y, strict=True)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.left


@pytest.mark.parametrize("name", ["train", "search", "test"])
@pytest.mark.parametrize(
    "data",
    [
        lambda: iter(pairs()),
        lambda: zip(X.split(10), Y.split(10), strict=True),
        lambda: map(tuple, pairs()),
        lambda: Itself(pairs()),
        lambda: DataLoader(OnceStream(), batch_size=10),
    ],
    ids=["iterator", "zip", "map", "iterable", "stream"],
)
def test_what_can_be_read_once_is_refused(name: str, data: object) -> None:
    assert callable(data)
    changes = {"search": pairs(), name: data()}
    assert fault_of(**changes).startswith(f"{name}: a split must be iterable more than once, but got a one-shot")


def test_a_generator_behind_an_iterable_is_refused_for_what_is_scored() -> None:
    assert re.match(r"search must hold at least one batch, but got none in a pass", fault_of(search=Once(pairs(5))))


class Emptied:
    """Batches for so many passes, then none."""

    def __init__(self, passes: int) -> None:
        self.passes = passes

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes -= 1
        yield from pairs() if self.passes >= 0 else []


def test_a_split_that_turns_empty_is_an_error_that_names_it() -> None:
    task = task_of(search=Emptied(100), test=Emptied(100), train=Emptied(100))
    for split in (task.search_split, task.test_split, task.train_split):
        split.batches.passes = 1  # type: ignore[union-attr]
    assert evaluate(task, task.dense, task.search_split).value == 1.0
    with pytest.raises(ConfigurationError, match="search must hold at least one batch, but got none in a pass"):
        evaluate(task, task.dense, task.search_split)
    with pytest.raises(ConfigurationError, match="search must hold"):
        quality_alone(task, task.dense, task.search_split)
    with pytest.raises(ConfigurationError, match="search must hold"):
        assert_trained(task)
    assert task.test_split is not None
    assert quality_alone(task, task.dense, task.test_split)[0] == 1.0
    with pytest.raises(ConfigurationError, match="test must hold"):
        quality_alone(task, task.dense, task.test_split)
    with pytest.raises(ConfigurationError, match="train must hold"):
        fine_tune(task.dense, task, RecoveryPlan(steps=10), seed=0)
    with pytest.raises(ConfigurationError, match="train must hold"):
        first_batches(task.train_split, 10)


def test_a_batch_without_samples_is_passed_over() -> None:
    """As of a collate function that drops what it cannot read."""
    data = [(X[:0], Y[:0]), *pairs(), (X[:0], Y[:0])]
    task = task_of(train=data, search=[(x.clone(), y) for x, y in data])
    assert evaluate(task, task.dense, task.search_split).samples == 120
    assert fine_tune(task.dense, task, RecoveryPlan(steps=6), seed=0).trained == 240
    assert "a split must hold at least one batch" in fault_of(search=[(X[:0], Y[:0])])


# ---- what has no end


class Endless:
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return itertools.cycle(pairs())


class EndlessStream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return itertools.cycle(zip(X, Y, strict=True))


class EndlessSampler(torch.utils.data.Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return itertools.cycle(range(120))


def endless_loaders() -> list[object]:
    return [
        Endless(),
        DataLoader(EndlessStream(), batch_size=40),
        DataLoader(TensorDataset(X, Y), batch_size=40, sampler=EndlessSampler()),
    ]


@pytest.mark.parametrize("kind", range(3), ids=["iterable", "stream", "sampler"])
def test_a_scored_split_without_end_is_refused(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_run, "ENDLESS", 30)
    for name in ("search", "test"):
        fault = fault_of(**{name: endless_loaders()[kind]})
        assert re.match(rf"{name} must end after 30 batches at most, but got more.", fault)


@pytest.mark.parametrize("kind", range(3), ids=["iterable", "stream", "sampler"])
def test_training_data_may_be_without_end(kind: int) -> None:
    task = task_of(train=endless_loaders()[kind])
    assert fine_tune(task.dense, task, RecoveryPlan(steps=5), seed=0).trained == 200


def test_a_long_loader_with_a_length_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_run, "ENDLESS", 3)
    assert task_of(search=DataLoader(TensorDataset(X.clone(), Y), batch_size=2))
    assert task_of(search=pairs(5))

    class Sized(Endless):
        def __len__(self) -> int:
            return 12

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return iter(pairs(10))

    assert task_of(search=Sized())
    assert "must end after 3 batches at most" in fault_of(search=DataLoader(Stream(), batch_size=2))


# ---- streams, pairs and what is none


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(X, Y, strict=True)


@pytest.mark.parametrize("name", ["train", "search", "test"])
def test_a_bare_stream_of_samples_is_refused(name: str) -> None:
    fault = fault_of(**{name: Stream()})
    assert fault.startswith(f"{name}: a split must yield batches, but got a bare IterableDataset. Wrap it: DataLoader(")


def test_a_stream_in_a_loader_works() -> None:
    task = task_of(train=DataLoader(Stream(), batch_size=40), search=DataLoader(Stream(), batch_size=40))
    assert evaluate(task, task.dense, task.search_split).samples == 130


def test_a_loader_of_whole_batches_works() -> None:
    loader = DataLoader(pairs(), batch_size=None)  # type: ignore[arg-type]
    task = task_of(search=loader)
    assert evaluate(task, task.dense, task.search_split).samples == 120


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            DataLoader(TensorDataset(X, X, Y), batch_size=40),
            r"but got list of 3.*\(\(first, second\), targets",
        ),
        ([{"x": X, "labels": Y}], r"pair \(inputs, targets\), but got dict of 2.*\(batch, batch\['labels'\]\)"),
        ((X.numpy(), Y.numpy()), r"data must be tensors, but got numpy arrays. Convert them with torch.from_numpy."),
        ([(X, Y.numpy())], r"data must be tensors, but got numpy arrays"),
        ([X, Y], r"a batch must be a pair \(inputs, targets\), but got Tensor of 130"),
    ],
    ids=["three tensors", "dicts", "arrays", "array of targets", "list of two"],
)
def test_what_is_no_pair_is_refused_with_the_remedy(data: object, message: str) -> None:
    assert re.search(message, fault_of(search=data))


def test_a_dataset_of_arrays_works() -> None:
    """The loader makes tensors of them."""
    data = [(x.numpy(), np.int64(y)) for x, y in zip(X, Y, strict=True)]
    task = task_of(search=DataLoader(data, batch_size=40))  # type: ignore[arg-type]
    assert evaluate(task, task.dense, task.search_split).value == 1.0


def test_targets_that_are_a_tuple_or_a_dict_are_refused_with_the_remedy() -> None:
    def loss(outputs: Tensor, targets: object) -> Tensor:
        label = targets["a"] if isinstance(targets, dict) else targets[0] if isinstance(targets, tuple) else targets
        return cross_entropy(outputs, label)

    for form in (lambda y: {"a": y}, lambda y: (y, y)):
        data = [(x, form(y)) for x, y in pairs()]
        assert re.search(r"the targets of search must be a tensor .*Stack", fault_of(search=data, loss=loss))
        # Only what is scored needs a tensor.
        assert task_of(train=data, loss=loss)


class Broken(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 120

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        raise FileNotFoundError("images/17.png")


def test_a_dataset_that_fails_is_named() -> None:
    assert re.search(r"search must run, but got FileNotFoundError.*17.png", fault_of(search=Broken()))


def test_named_tuples_stay_what_they_are() -> None:
    pair = collections.namedtuple("pair", "a b")
    batch = as_batch((pair(X, X), Y)).to(torch.device("cpu"))
    assert isinstance(batch.inputs, pair)
    assert take_batches(iter([batch]), 5)[0].inputs.a.shape == (5, 6)


# ---- only the axis of samples is cut


class Recurrent(nn.Module):
    """Time first: [L, N, 6] -> [N, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(0)[:, :3] * self.scale


def time_first(size: int, steps: int) -> list[tuple[Tensor, Tensor]]:
    return [(x.expand(steps, *x.shape).clone(), y) for x, y in pairs(size)]


@pytest.mark.parametrize("steps", [12, 40], ids=["short", "as long as the batch"])
def test_batches_with_time_first_are_never_cut(steps: int) -> None:
    """60 calibration samples are asked for: half of the second batch would be half of its time."""
    loader = DataLoader(time_first(40, steps), batch_size=None)  # type: ignore[arg-type]
    task = task_of(Recurrent(), example_inputs=torch.zeros(12, 2, 6), train=loader, search=time_first(40, steps))
    assert [tuple(batch.inputs.shape) for batch in task.calibration] == [(steps, 40, 6)]  # type: ignore[union-attr]
    assert [batch.size for batch in take_batches(task.search_split.ordered(), 5)] == [40], (
        "the first one is taken whole"
    )
    assert evaluate(task, task.dense, task.search_split).value == 1.0
    assert_trained(task, samples=50)
    assert fine_tune(task.dense, task, RecoveryPlan(steps=4), seed=0).trained == 160


def test_tensors_with_time_first_are_refused() -> None:
    data = (X[:120].expand(12, 120, 6), Y[:120])
    assert fault_of(Recurrent(), example_inputs=data[0][:, :2], train=data, search=time_first(40, 12)).startswith(
        "train: inputs and targets must have the same length, but got 12 and 120"
    )


def test_sequences_of_different_lengths() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1)[:, :3] * self.scale

    data = [(x[:, None].expand(len(x), 3 + number, 6).clone(), y) for number, (x, y) in enumerate(pairs(25))]
    task = task_of(Mean(), example_inputs=data[0][0][:2], train=data, search=[(x.clone(), y) for x, y in data])
    assert [tuple(batch.inputs.shape) for batch in task.calibration] == [(25, 3, 6), (25, 4, 6), (10, 5, 6)]  # type: ignore[union-attr]
    assert evaluate(task, task.dense, task.search_split).value == 1.0
    assert_trained(task)


class Detector(nn.Module):
    """Takes a list of images [3, H, W] of any size, gives one number for each."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: list[Tensor]) -> Tensor:
        return torch.stack([image.mean() for image in images])[:, None] * self.scale


def images(count: int) -> list[Tensor]:
    return [torch.rand(3, 4 + number % 3, 5, generator=generator) for number in range(count)]


def detection_task(batches: list[object], **changes: object) -> autoprune.PreparedTask:
    arguments: dict[str, object] = {
        "example_inputs": ([torch.rand(3, 4, 5), torch.rand(3, 5, 5)],),
        "train": batches,
        "search": [(([image.clone() for image in x[0]],), y) for x, y in batches],  # type: ignore[index, misc]
        "loss": functional.mse_loss,
        "metrics": ("mse",),
        "quality": "mse",
        "calibration_samples": 10,
        "require_trained": False,
    }
    return task_of(Detector(), **{**arguments, **changes})


def test_lists_of_images_are_never_cut() -> None:
    """The last batch has three images of three channels: the axis of channels is as long as that of samples."""
    made = [images(8), images(3)]
    data: list[object] = [((x,), torch.stack([image.mean() for image in x])[:, None]) for x in made]
    task = detection_task(data)
    assert [batch.size for batch in task.calibration] == [8], "three more would be too many, and cannot be cut"
    assert evaluate(task, task.dense, task.search_split).samples == 11
    assert evaluate(task, task.dense, task.search_split).value == pytest.approx(0.0, abs=1e-6)


def test_lists_of_three_images_of_three_channels_are_not_cut_either() -> None:
    data: list[object] = [((x,), torch.stack([image.mean() for image in x])[:, None]) for x in (images(3), images(3))]
    task = detection_task(data, calibration_samples=2)
    assert [[tuple(image.shape) for image in batch.inputs[0]] for batch in task.calibration] == [  # type: ignore[union-attr, index]
        [(3, 4, 5), (3, 5, 5), (3, 6, 5)]
    ]


def test_a_list_spread_over_the_arguments_is_told() -> None:
    """As of a collate function `lambda samples: tuple(zip(*samples))`."""
    data = [(tuple(images(5)), tuple({"boxes": torch.rand(2, 4)} for _ in range(5)))]
    with pytest.raises(
        TaskError, match=r"The 5 parts of a tuple or list are passed as arguments one by one.*\(\[...\],\)"
    ):
        detection_task([((images(5),), torch.rand(5, 1))], train=data)


def test_targets_of_each_image_count_as_samples() -> None:
    targets = tuple({"boxes": torch.rand(number, 4)} for number in (0, 2, 3))
    assert as_batch(((images(3),), targets)).size == 3


# ---- batches of one sample


class OwnNorm(nn.Module):
    """Refuses one sample in training mode, as torch's norms do."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) < 2:
            raise ValueError("expected more than one sample")
        return x * self.scale


class Deviation(OwnNorm):
    """Gives NaN for one sample in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + 0 * x.std(0).mean() if self.training else x * self.scale


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(6), OwnNorm(), Deviation()], ids=["torch", "own", "nan"])
@pytest.mark.parametrize("form", ["list", "loader"])
def test_a_batch_of_one_is_left_out_where_it_cannot_be_trained_on(norm: nn.Module, form: str) -> None:
    rest = [(X[:40], Y[:40]), (X[40:41], Y[40:41])]
    train = rest if form == "list" else DataLoader(TensorDataset(X[:41], Y[:41]), batch_size=40)
    task = task_of(Net(norm), train=train, search=pairs(samples=120)[1:])
    assert task.least_batch == 2
    assert fine_tune(task.dense, task, RecoveryPlan(steps=6), seed=0).trained == 240


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(6), OwnNorm(), Deviation()], ids=["torch", "own", "nan"])
@pytest.mark.parametrize("form", ["list", "loader", "tensors"])
def test_nothing_but_batches_of_one_is_refused_where_they_cannot_be_trained_on(norm: nn.Module, form: str) -> None:
    train: object = {"list": pairs(1, 20), "loader": DataLoader(TensorDataset(X, Y)), "tensors": (X, Y)}[form]
    fault = fault_of(Net(norm), train=train, batch_size=1)
    assert "one sample: make them larger" in fault


class Pixels(nn.Module):
    """A BatchNorm over pixels: one sample is enough for its variance."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.net = Net()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.net(self.norm(x[:, None, None])[:, 0, 0])
        return output


@pytest.mark.parametrize("form", ["list", "loader", "tensors"])
def test_batches_of_one_train_what_they_can_train(form: str) -> None:
    train: object = {"list": pairs(1, 20), "loader": DataLoader(TensorDataset(X, Y)), "tensors": (X, Y)}[form]
    task = task_of(Pixels(), train=train, batch_size=1, calibration_samples=8)
    assert task.least_batch == 1
    assert fine_tune(task.dense, task, RecoveryPlan(steps=5), seed=0).trained == 5
    assert recalibrate(task.dense, task.calibration, task.least_batch) == 8
    assert task.dense.norm.running_mean.abs().sum() > 0  # type: ignore[union-attr, operator]


def test_a_loss_that_refuses_one_sample_gets_none_for_calibration() -> None:
    """As of loss = bce(outputs.squeeze(), targets)."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        assert len(targets) > 1
        return cross_entropy(outputs, targets)

    task = task_of(train=DataLoader(TensorDataset(X[:41], Y[:41]), batch_size=40), loss=loss)
    assert [batch.size for batch in task.calibration] == [40]
    assert [batch.size for batch in task_of(loss=loss, calibration_samples=81).calibration] == [40, 40]
    assert [batch.size for batch in task_of(calibration_samples=1).calibration] == [1]


def test_a_pass_without_a_batch_that_can_be_trained_on_ends() -> None:
    task = task_of(Net(nn.BatchNorm1d(6)), train=pairs())
    task.train_split.batches = pairs(1, 20)  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="batches of 2 samples or more at every pass"):
        next(endless_batches(task.train_split, 0, task.least_batch))
    with pytest.raises(ConfigurationError, match="batches of 2 samples or more"):
        fine_tune(task.dense, task, RecoveryPlan(steps=3), seed=0)


# ---- one sample at a time, and other loaders


def test_a_metric_of_many_samples_is_tried_on_more_than_one_batch() -> None:
    targets = X[:, :3]
    search = DataLoader(TensorDataset(X.clone(), targets), batch_size=1)
    task = task_of(train=(X, targets), search=search, loss=functional.mse_loss, metrics=("r2",), quality="r2")
    assert evaluate(task, task.dense, task.search_split).samples == 130


def test_a_loader_with_a_batch_sampler_and_a_collate_function() -> None:
    sampler = torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(range(120)), 40, drop_last=True)
    loader = DataLoader(
        TensorDataset(X.clone(), Y), batch_sampler=sampler, collate_fn=lambda items: tuple(default_collate(items))
    )
    task = task_of(search=loader)
    assert evaluate(task, task.dense, task.search_split).samples == 120
    assert [batch.size for batch in take_batches(task.search_split.ordered(), 50)] == [40, 10]


def test_an_own_metric_object_gets_what_the_loader_gives() -> None:
    metric = torchmetrics.classification.MulticlassAccuracy(num_classes=3)
    task = task_of(metrics={"mine": metric}, quality="mine")
    assert evaluate(task, task.dense, task.search_split).value == 1.0


class Silent:
    """Batches that say nothing of themselves."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(pairs())


@pytest.mark.parametrize(
    ("data", "samples"),
    [
        ((X, Y), 64),
        ((X[:20], Y[:20]), 20),
        (TensorDataset(X, Y), 64),
        (DataLoader(TensorDataset(X, Y), batch_size=16), 16),
        (DataLoader(TensorDataset(X, Y), batch_sampler=BatchSampler(SequentialSampler(X), 24, drop_last=False)), 24),
        (DataLoader(TensorDataset(X, Y), batch_size=None), None),
        (pairs(), 40),
        (pairs(40, 120) + pairs(30, 30), None),
        (Silent(), None),
    ],
)
def test_a_batch_has_the_size_of_the_data_that_were_given(data: object, samples: int | None) -> None:
    assert batch_samples(as_split(data, 64)) == samples
