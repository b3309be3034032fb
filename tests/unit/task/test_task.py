from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import autoprune
from autoprune.errors import ConfigurationError, TaskError
from autoprune.records.atomic import write_atomically
from autoprune.task import checkpoint as checkpoints
from autoprune.task.metrics import METRICS
from autoprune.task.trained import assert_trained
from tests.tasks import TWO, blobs, image_task, trained_resnet
from tests.zoo.convolutional import ResNet

X, Y = blobs(120)
cross_entropy = nn.functional.cross_entropy


def faults_of(**changes: object) -> tuple[str, ...]:
    with pytest.raises(TaskError) as error:
        image_task(**changes)
    return error.value.faults


def one_fault(**changes: object) -> str:
    faults = faults_of(**changes)
    assert len(faults) == 1, faults
    return faults[0]


class Counter(torchmetrics.Metric):
    """A metric of the user's: gives `value`, and its direction is an attribute."""

    higher_is_better: bool | None = None  # type: ignore[assignment]
    full_state_update = False

    def __init__(self, value: float, higher_is_better: bool | None) -> None:
        super().__init__()
        self.add_state("value", torch.tensor(value), dist_reduce_fx="sum")
        self.__dict__["higher_is_better"] = higher_is_better

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Look at nothing."""

    def compute(self) -> Tensor:
        return self.value


# ---- a task that is right


def test_a_complete_task_is_ready_to_use() -> None:
    task = image_task()
    assert task.train_split.samples == 510
    assert task.search_split.samples == 90
    assert task.test_split is not None
    assert task.test_split.samples == 200
    assert sum(batch.size for batch in task.calibration) == 100
    assert task.higher_is_better
    assert set(task.metric_set) == {"accuracy", "recall"}
    assert not task.dense.training


def test_the_search_split_is_carved_from_train_alone() -> None:
    """Every sample is known by its first pixel; test samples have others."""
    task = image_task()

    def pixels(split: object) -> list[float]:
        return [pixel for batch in split.ordered() for pixel in batch.inputs[:, 0, 0, 0].tolist()]  # type: ignore[attr-defined]

    train, search = pixels(task.train_split), pixels(task.search_split)
    assert not set(train) & set(search)
    assert sorted(train + search) == sorted(blobs()[0][:, 0, 0, 0].tolist())
    assert not set(search) & set(pixels(task.test_split))
    calibration = {pixel for batch in task.calibration for pixel in batch.inputs[:, 0, 0, 0].tolist()}
    assert calibration <= set(train), "what criteria look at must not be what decides"


def test_carving_follows_the_seed() -> None:
    def first(seed: int) -> Tensor:
        batch = next(image_task(seed=seed).search_split.ordered())
        assert isinstance(batch.inputs, Tensor)
        return batch.inputs

    assert torch.equal(first(3), first(3))
    assert not torch.equal(first(3), first(4))


def test_a_search_split_that_is_given_leaves_train_whole() -> None:
    task = image_task(search=blobs(80, seed=2))
    assert task.train_split.samples == 600
    assert task.search_split.samples == 80


def test_a_task_can_not_be_changed() -> None:
    with pytest.raises(AttributeError):
        image_task().seed = 3  # type: ignore[misc]


def test_metrics_are_fresh_each_time() -> None:
    task = image_task()
    used = task.new_metrics()["accuracy"]
    used.update(torch.eye(4), torch.arange(4))
    assert not task.new_metrics()["accuracy"].update_called
    assert not task.metric_set["accuracy"].update_called


def test_a_metric_object_of_the_users_is_copied() -> None:
    mine = torchmetrics.classification.MulticlassAccuracy(num_classes=4)
    task = image_task(metrics={"mine": mine}, quality="mine")
    assert task.higher_is_better
    task.metric_set["mine"].update(torch.eye(4), torch.arange(4))
    assert not mine.update_called


# ---- the user's model


@pytest.mark.parametrize("training", [True, False])
def test_the_users_model_is_never_changed(training: bool) -> None:
    model = copy.deepcopy(trained_resnet()).train(training)
    before = copy.deepcopy(model.state_dict())
    task = image_task(model=model)
    assert_trained(task)
    with torch.no_grad():
        for parameter in task.dense.parameters():
            parameter.zero_()
    assert model.training == training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_a_checkpoint_is_not_loaded_into_the_users_model(tmp_path: Path) -> None:
    write_atomically(tmp_path / "w.safetensors", checkpoints.serialize(trained_resnet().state_dict()))
    model = ResNet(widths=TWO, depth=1, classes=4)
    before = copy.deepcopy(model.state_dict())
    task = image_task(model=model, checkpoint=tmp_path / "w.safetensors")
    for name, tensor in trained_resnet().state_dict().items():
        assert torch.equal(task.dense.state_dict()[name], tensor), name
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_function_may_build_the_model(tmp_path: Path) -> None:
    torch.save({"state_dict": trained_resnet().state_dict(), "epoch": 3}, tmp_path / "w.pt")
    task = image_task(model=lambda: ResNet(widths=TWO, depth=1, classes=4), checkpoint=str(tmp_path / "w.pt"))
    assert torch.equal(task.dense.state_dict()["head.weight"], trained_resnet().state_dict()["head.weight"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear, "model must be an nn.Module or a function that builds one.*lambda: YourModel"),
        (3, "model must be an nn.Module or a function that builds one, but got 3"),
        (lambda: None, "the model function must return an nn.Module, but got NoneType"),
        (lambda: 1 / 0, "the model function must .*ZeroDivisionError"),
    ],
    ids=["class", "number", "nothing", "crash"],
)
def test_what_builds_no_model(model: object, message: str) -> None:
    assert re.search(message, one_fault(model=model))


def test_a_model_on_another_device_than_the_data() -> None:
    fault = one_fault(model=copy.deepcopy(trained_resnet()).to("meta"))
    assert "the model must lie on the task's device 'cpu', where the data goes, but got parameters on meta" in fault
    assert "model.to(device)" in fault


def test_a_model_with_one_part_on_another_device() -> None:
    model = copy.deepcopy(trained_resnet())
    model.head.to("meta")  # type: ignore[union-attr, operator]
    assert "parameters on cpu, meta" in one_fault(model=model)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", None])
def test_a_device_that_is_not_here_is_one_fault(device: object) -> None:
    assert "device must be available here, but got" in one_fault(device=device)


def test_a_checkpoint_that_does_not_fit_names_the_keys(tmp_path: Path) -> None:
    other = ResNet(widths=(8, 16), depth=1, classes=4)
    weights = other.state_dict()
    del weights["stem.0.weight"]
    weights["of.another"] = torch.zeros(1)
    torch.save(weights, tmp_path / "w.pt")
    fault = one_fault(checkpoint=tmp_path / "w.pt")
    assert "checkpoint must fit the model" in fault
    assert "missing: stem.0.weight" in fault
    assert "unknown: of.another" in fault
    assert "other shape: blocks.1.bn1.bias" in fault


def test_a_checkpoint_that_is_not_there() -> None:
    assert "checkpoint must be a file, but got nowhere.pt" in one_fault(checkpoint="nowhere.pt")


# ---- numbers and names


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch_size", 0, "batch_size must be an integer >= 1, but got 0"),
        ("batch_size", "8", "batch_size must be an integer >= 1, but got '8'"),
        ("search_share", 0.0, r"search_share must lie in \(0, 1\), but got 0.0"),
        ("search_share", 1.0, r"search_share must lie in \(0, 1\)"),
        ("search_share", float("nan"), r"search_share must lie in \(0, 1\)"),
        ("search_share", "0.1", r"search_share must lie in \(0, 1\), but got '0.1'"),
        ("search_share", None, r"search_share must lie in \(0, 1\), but got None"),
        ("calibration_samples", 0, "calibration_samples must be an integer >= 1"),
        ("calibration_samples", 1.5, "calibration_samples must be an integer >= 1"),
        ("seed", -1, "seed must be an integer >= 0"),
        ("seed", None, "seed must be an integer >= 0"),
        ("seed", True, "seed must be an integer >= 0"),
        ("loss", "cross_entropy", "loss must be a function .*but got 'str'"),
        ("example_inputs", [X], "example_inputs must be a tensor, a tuple or a dict, but got 'list'"),
        ("example_inputs", (), "example_inputs must be a tensor, a tuple or a dict"),
        ("metrics", (), "metrics must be a non-empty sequence"),
        ("metrics", "accuracy", "metrics must be a non-empty sequence of names and functions, or a dict .*'accuracy'"),
        ("metrics", {"": None}, "the name of a metric must be printable text of 1 to 100 characters, but got ''"),
        ("metrics", {1: None}, "the name of a metric must be printable .*, but got 1"),
        ("metrics", (["accuracy"],), r"the name of a metric must be printable .*, but got \['accuracy'\]"),
        ("metrics", ("a\x1b[2J",), r"the name of a metric must be printable .*, but got 'a\\x1b\[2J'"),
        ("metrics", ("a\nb",), r"the name of a metric must be printable .*, but got 'a\\nb'"),
        ("metrics", ("m" * 1_000,), "the name of a metric must be printable"),
        ("metrics", {"size_bytes": None}, "the name of a metric must be no cost, .*, but got 'size_bytes'"),
        ("quality", ["accuracy"], r"quality must be one of the metrics accuracy, recall, but got \['accuracy'\]"),
        ("quality", "f1", "quality must be one of the metrics accuracy, recall, but got 'f1'"),
    ],
)
def test_a_bad_argument_is_one_fault(field: str, value: object, message: str) -> None:
    assert re.search(message, one_fault(**{field: value}))


def named_once(names: tuple[str, ...], faults: tuple[str, ...]) -> None:
    assert len(faults) == len(names)
    for name in names:
        assert sum(bool(re.match(rf"(the )?{name}\b", line)) for line in faults) == 1, (name, faults)


def test_every_wrong_argument_is_in_one_error() -> None:
    expected = ("model", "train", "search", "test", "search_share", "checkpoint", "predict", "seed", "loss", "quality")
    wrong = {"search_share": 2, "checkpoint": 3, "predict": "first", "seed": -1, "loss": None, "quality": "f1"}
    named_once(expected, faults_of(model=nn.Linear, train=None, search=3, test=[], **wrong))


def test_every_fault_of_model_and_data_is_in_one_error() -> None:
    model = copy.deepcopy(trained_resnet()).to("meta")
    empty = DataLoader(TensorDataset(X[:0], Y[:0]))
    faults = faults_of(model=model, train=iter([(X, Y)]), search=[X], test=empty)
    named_once(("model", "train", "search", "test"), faults)


class Untouchable(Dataset[tuple[Tensor, Tensor]]):
    """Data, a model and a loss that must not be used."""

    def __len__(self) -> int:
        raise AssertionError("the length of the data was asked for")

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        raise AssertionError("the data was read")

    def __call__(self, *_: object) -> nn.Module:
        raise AssertionError("a function of the user's was called")


def test_declaring_a_task_runs_no_code_of_the_users() -> None:
    user = Untouchable()
    given = {"train": user, "search": user, "test": user, "model": user, "loss": user, "predict": user}
    numbers = {"example_inputs": X[:2], "metrics": ("accuracy",), "quality": "accuracy"}
    task = autoprune.Task(**given, **numbers)  # type: ignore[arg-type]
    with pytest.raises(TaskError) as error:
        autoprune.prepare(task)
    told = "\n".join(error.value.faults)
    assert "a function of the user's was called" in told
    assert "the length of the data was asked for" in told


def test_a_prepared_task_is_prepared_once() -> None:
    task = image_task()
    assert autoprune.prepare(task) is task
    assert isinstance(task, autoprune.PreparedTask)


def test_every_unknown_metric_is_named_beside_other_faults() -> None:
    """Names can be looked up without running anything, so nothing has to hide them."""
    faults = "\n".join(faults_of(metrics=("acuracy", "rocauc", "accuracy"), seed=-1))
    assert "'acuracy'" in faults
    assert "'rocauc'" in faults
    assert "seed must" in faults


def test_a_loss_and_a_metric_that_fail_are_both_named() -> None:
    faults = "\n".join(faults_of(loss=lambda outputs, targets: 1 / 0, metrics=("mse",), quality="mse"))
    assert "ZeroDivisionError" in faults
    assert "'mse'" in faults


# ---- metrics


def test_an_unknown_metric_lists_the_known() -> None:
    fault = one_fault(metrics=("acuracy", "accuracy"))
    assert all(name in fault for name in METRICS)
    assert "Did you mean 'accuracy'?" in fault


def test_a_metric_of_another_kind_lists_what_fits() -> None:
    fault = one_fault(metrics=("accuracy", "mse"))
    assert "metric 'mse' must suit multiclass outputs" in fault
    assert "balanced_accuracy" in fault


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (torchmetrics.classification.MulticlassAccuracy, "torchmetrics.Metric object.*Call the class"),
        (0.5, "torchmetrics.Metric object or a function"),
        (Counter(1.0, None), "metric 'q' must say whether higher is better"),
        (Counter(float("nan"), True), "metric 'q' must be finite after one batch, but got nan"),
        (Counter(float("inf"), True), "metric 'q' must be finite after one batch, but got inf"),
        (torchmetrics.classification.MulticlassAccuracy(4, average=None), r"must give one number, but got \(4,\)"),
        (torchmetrics.classification.MulticlassConfusionMatrix(4), r"must give one number, but got \(4, 4\)"),
        (torchmetrics.MeanSquaredError(), r"metric 'q' must accept outputs \(50, 4\) and targets \(50,\).*predict"),
    ],
    ids=["class", "function", "no direction", "nan", "inf", "vector", "matrix", "other shape"],
)
def test_a_metric_that_can_not_drive_a_search(metric: object, message: str) -> None:
    assert re.search(message, one_fault(metrics={"q": metric}, quality="q"))


def test_a_metric_beside_the_quality_needs_no_direction() -> None:
    accuracy = torchmetrics.classification.MulticlassAccuracy(num_classes=4)
    task = image_task(metrics={"accuracy": accuracy, "other": Counter(1.0, None)})
    assert set(task.metric_set) == {"accuracy", "other"}


# ---- splits


class Work(Dataset[tuple[Tensor, Tensor]]):
    """A dataset of the user's own."""

    def __len__(self) -> int:
        return len(Y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index], Y[index]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(X, Y, strict=True)


def batches(size: int = 40) -> list[tuple[Tensor, Tensor]]:
    return [(X[start : start + size], Y[start : start + size]) for start in range(0, len(Y), size)]


@pytest.mark.parametrize(
    "train",
    [(X, Y), TensorDataset(X, Y), Work(), DataLoader(Work(), batch_size=30), batches()],
    ids=["tensors", "tensor dataset", "dataset", "loader", "batches"],
)
def test_train_may_come_in_any_common_form(train: object) -> None:
    task = image_task(train=train)
    assert task.train_split.samples is not None
    assert task.search_split.samples is not None
    assert task.train_split.samples + task.search_split.samples == 120
    task = image_task(test=train)
    assert task.test_split is not None
    assert task.test_split.samples == 120


def test_a_stream_needs_a_search_split() -> None:
    stream = DataLoader(Stream(), batch_size=20)
    assert "the search split must be given when train cannot be divided" in one_fault(train=stream)
    assert image_task(train=stream, search=(X, Y)).train_split.samples is None


@pytest.mark.parametrize("name", ["train", "search", "test"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X[:0], Y[:0]), "a split must hold at least one batch"),
        ([], "a split must hold at least one batch"),
        (TensorDataset(X[:0], Y[:0]), "a split must hold at least one"),
        (DataLoader(TensorDataset(X[:0], Y[:0])), "a split must hold at least one batch"),
        ((X, Y[:5]), "inputs and targets must have the same length, but got 120 and 5"),
        ([(X, Y, Y)], r"a batch must be a pair \(inputs, targets\), but got tuple of 3"),
        (3, "a split must be a pair of tensors, a Dataset"),
    ],
    ids=["tensors", "list", "dataset", "loader", "lengths", "triple", "number"],
)
def test_a_split_that_is_none_is_named(name: str, data: object, message: str) -> None:
    assert re.match(rf"{name}: {message}", one_fault(**{name: data}))


def test_a_generator_can_be_read_only_once() -> None:
    assert "train: a split must be iterable more than once" in one_fault(train=(pair for pair in batches()))


def test_train_that_is_too_small_to_carve_from() -> None:
    assert "train must hold enough samples to carve a search split from, but got 1" in one_fault(train=(X[:1], Y[:1]))
    assert "train must hold enough batches" in one_fault(train=batches()[:1])


def test_a_train_loader_that_is_empty_after_carving_says_so() -> None:
    """36 of 40 samples stay for train: none fills a batch of 38, and the loader drops short ones."""
    fault = one_fault(train=DataLoader(TensorDataset(X[:40], Y[:40]), batch_size=38, drop_last=True))
    assert "train" in fault
    assert "batch" in fault
    assert "StopIteration" not in fault


@pytest.mark.parametrize(
    "search",
    [lambda test: test, lambda test: (test[0], test[1]), lambda test: TensorDataset(*test)],
    ids=["same object", "same tensors", "same tensors as a dataset"],
)
def test_the_search_split_must_not_be_test(search: Callable[[tuple[Tensor, Tensor]], object]) -> None:
    test = blobs(100, seed=5)
    assert "search must share no samples with test" in one_fault(test=test, search=search(test))


# ---- schedulers


def test_schedulers_of_the_users_are_kept_and_can_not_be_changed() -> None:
    given = {"mine": torch.optim.lr_scheduler.CosineAnnealingLR}
    task = image_task(schedulers=given)
    given["other"] = torch.optim.lr_scheduler.CosineAnnealingLR
    assert dict(task.schedulers) == {"mine": torch.optim.lr_scheduler.CosineAnnealingLR}
    with pytest.raises(TypeError):
        task.schedulers["other"] = task.schedulers["mine"]  # type: ignore[index]
    assert dict(image_task().schedulers) == {}


@pytest.mark.parametrize(
    ("schedulers", "message"),
    [
        (
            [lambda optimizer, steps: None],
            r"schedulers must be a dict name -> function \(optimizer, steps\), but got \[",
        ),
        (None, "schedulers must be a dict name -> function .*, but got None"),
        (
            {"mine": "cosine"},
            r"scheduler 'mine' must be a function \(optimizer, steps\), but got str. It is called for each fine-tune",
        ),
        (
            {3: lambda optimizer, steps: None},
            "the name of a scheduler must be printable text of 1 to 100 .*, but got 3",
        ),
        (
            {"": lambda optimizer, steps: None},
            "the name of a scheduler must be printable text of 1 to 100 .*, but got ''",
        ),
        (
            {"one_cycle": lambda optimizer, steps: None},
            "a scheduler of the task must have another name than the built-in ones, but got the built-in 'one_cycle'",
        ),
    ],
    ids=["list", "none", "name", "number", "empty", "built in"],
)
def test_schedulers_that_can_not_be_used(schedulers: object, message: str) -> None:
    assert re.match(message, one_fault(schedulers=schedulers))


def test_every_scheduler_at_fault_is_named() -> None:
    faults = faults_of(schedulers={"cosine": lambda optimizer, steps: None, "mine": 3, "fine": lambda o, steps: None})
    assert len(faults) == 2
    assert "'cosine'" in faults[0]
    assert "'mine'" in faults[1]


# ---- one run of the model


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda outputs, targets: 1 / 0, "loss on train must run, but got ZeroDivisionError: division by zero"),
        (nn.CrossEntropyLoss(reduction="none"), "loss must return a scalar"),
        (lambda outputs, targets: 1.0, "loss must return a scalar tensor, but got float"),
        (lambda outputs, targets: outputs.sum() * float("nan"), "loss on train must be finite, but got nan"),
    ],
    ids=["crash", "vector", "float", "nan"],
)
def test_a_loss_that_can_not_train(loss: object, message: str) -> None:
    assert message in one_fault(loss=loss)


def test_a_vector_loss_is_told_by_its_shape() -> None:
    assert "(50,)" in one_fault(loss=nn.CrossEntropyLoss(reduction="none"))


def test_example_inputs_that_do_not_fit() -> None:
    assert "the model on example_inputs must run, but got RuntimeError" in one_fault(
        example_inputs=torch.zeros(2, 3, 8, 8)
    )


def test_a_split_that_does_not_fit_the_model_is_named() -> None:
    assert "the model on a batch of test must run" in one_fault(test=(torch.zeros(5, 3, 8, 8), Y[:5]))


class Sum(nn.Module):
    """Two inputs; the output is a tensor or sits in a dict."""

    def __init__(self, rich: bool = False) -> None:
        super().__init__()
        self.net, self.rich = copy.deepcopy(trained_resnet()), rich

    def forward(self, a: Tensor, b: Tensor) -> Tensor | dict[str, Tensor]:
        logits: Tensor = self.net(a + b)
        return {"logits": logits} if self.rich else logits


def halves(form: Callable[[Tensor, Tensor], object]) -> list[tuple[object, Tensor]]:
    return [(form(0.5 * images, 0.5 * images), targets) for images, targets in batches()]


@pytest.mark.parametrize(
    "form", [lambda a, b: (a, b), lambda a, b: [a, b], lambda a, b: {"b": b, "a": a}], ids=["tuple", "list", "dict"]
)
def test_a_model_of_several_inputs(form: Callable[[Tensor, Tensor], object]) -> None:
    inputs = form(X[:2], X[:2])
    task = image_task(
        model=Sum(),
        example_inputs=tuple(inputs) if isinstance(inputs, list) else inputs,
        train=halves(form),
        test=halves(form),
    )
    assert task.search_split.samples == 40
    assert sum(batch.size for batch in task.calibration) == 80
    assert_trained(task)


def test_a_dataset_of_dicts() -> None:
    class Dicts(Work):
        def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:  # type: ignore[override]
            return {"a": X[index], "b": torch.zeros(1, 8, 8)}, Y[index]

    task = image_task(model=Sum(), example_inputs={"a": X[:2], "b": X[:2]}, train=Dicts(), test=None)
    assert task.search_split.samples == 18


def rich(**changes: object) -> dict[str, object]:
    return {
        "model": Sum(rich=True),
        "example_inputs": (X[:2], X[:2]),
        "train": halves(lambda a, b: (a, b)),
        "test": None,
        "loss": lambda outputs, targets: cross_entropy(outputs["logits"], targets),
        **changes,
    }


def test_rich_outputs_need_predict() -> None:
    assert "outputs must be a tensor for the metrics, but got dict. Give predict=" in one_fault(**rich())
    task = image_task(**rich(predict=lambda outputs: outputs["logits"]))
    assert task.predictions({"logits": X}) is X


def test_a_predict_that_crashes_or_gives_no_tensor_is_named() -> None:
    assert "predict" in one_fault(**rich(predict=lambda outputs: outputs["scores"]))
    assert "predict" in one_fault(**rich(predict=lambda outputs: outputs))


def test_targets_that_are_no_tensor() -> None:
    train = [(images, {"class": targets}) for images, targets in batches()]
    fault = one_fault(train=train, test=None, loss=lambda outputs, targets: cross_entropy(outputs, targets["class"]))
    assert "the targets of search must be a tensor for the metrics, but got dict" in fault


# ---- has it learned anything


def test_a_trained_model_passes() -> None:
    assert_trained(image_task())
    assert_trained(image_task(metrics=("error",), quality="error"))


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_a_handful_of_samples_tells_no_trained_model(samples: int) -> None:
    images, targets = blobs(200, seed=1)
    few = image_task(search=(images[:samples], targets[:samples]))
    wants = f"the search split must hold 5 samples or more, .*, but got {samples}.*require_trained=False"
    with pytest.raises(ConfigurationError, match=wants):
        assert_trained(few)


@pytest.mark.parametrize("quality", ["accuracy", "error"])
def test_a_model_that_answers_the_same_to_everything_is_refused(quality: str) -> None:
    model = copy.deepcopy(trained_resnet())
    nn.init.zeros_(model.head.weight)  # type: ignore[union-attr, arg-type]
    with pytest.raises(ConfigurationError, match=f"dense model's {quality} must be better than.*require_trained=False"):
        assert_trained(image_task(model=model, metrics=(quality,), quality=quality))


@pytest.mark.parametrize("seed", range(6))
def test_an_untrained_model_is_refused_whatever_its_luck(seed: int) -> None:
    torch.manual_seed(seed)
    task = image_task(model=ResNet(widths=TWO, depth=1, classes=4))
    with pytest.raises(ConfigurationError, match="Train the model first"):
        assert_trained(task)


def test_task_is_where_the_package_says() -> None:
    assert autoprune.PreparedTask is type(image_task())
    assert isinstance(image_task(), autoprune.Task)
