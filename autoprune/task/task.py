"""Task: everything the user brings, checked in one go before any work starts."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from autoprune.errors import ConfigurationError, TaskError, fault
from autoprune.task import checkpoint as checkpoints
from autoprune.task.data import Batch, Inputs, Split, as_split, call, carve, head
from autoprune.task.metrics import build_metric, direction_of, kind_of_prediction, probe_metric, update

Loss = Callable[..., Tensor]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A trained model, a way to score it and the data to do it on.

    model: the trained module, or a function without arguments that builds it. It is copied, never changed.
    example_inputs: one call's inputs as tensor, tuple or dict; latency and multiply-adds refer to them.
    train: pair of tensors, Dataset, DataLoader or any re-iterable of (inputs, targets) batches.
    loss: (outputs, targets) -> scalar Tensor.
    metrics: names of autoprune.task.metrics.METRICS, or name -> torchmetrics.Metric.
    quality: the metric among them that the search improves; its direction comes from the metric.
    search: split that drives the study; carved from train when None. Never pass the test split here.
    test: split for the final front only; None leaves test numbers out of the report.
    checkpoint: .safetensors or torch state dict that is loaded into the model.
    predict: outputs -> Tensor for metrics and distillation, where the model returns something richer.
    device: where the model and the batches go.
    batch_size: for data that comes as tensors or Dataset, >= 1.
    search_share: share of train that becomes the search split when none is given, in (0, 1).
    calibration_samples: training samples that criteria and the sensitivity scan look at, >= 1.
    require_trained: refuse a model that scores no better than chance.
    seed: carving and every other random choice, >= 0.

    Raises TaskError with every fault found.
    """

    model: nn.Module | Callable[[], nn.Module]
    example_inputs: Inputs
    train: object
    loss: Loss
    metrics: Sequence[str] | Mapping[str, Metric]
    quality: str
    search: object = None
    test: object = None
    checkpoint: str | Path | None = None
    predict: Callable[[object], Tensor] | None = None
    device: str = "cpu"
    batch_size: int = 128
    search_share: float = 0.15
    calibration_samples: int = 256
    require_trained: bool = True
    seed: int = 0
    dense: nn.Module = field(init=False, repr=False)
    train_split: Split = field(init=False, repr=False)
    search_split: Split = field(init=False, repr=False)
    test_split: Split | None = field(init=False, repr=False)
    calibration: tuple[Batch, ...] = field(init=False, repr=False)
    metric_set: Mapping[str, Metric] = field(init=False, repr=False)
    higher_is_better: bool = field(init=False)

    def __post_init__(self) -> None:
        faults = _numbers(self)
        put = _setter(self)
        dense = _collect(faults, lambda: _build(self))
        splits = {name: _collect(faults, partial(_split, self, name)) for name in ("train", "search", "test")}
        train, search = splits["train"], splits["search"]
        if train is not None and self.search is None and not faults:
            carved = _collect(faults, partial(carve, train, self.search_share, self.seed))
            train, search = carved if carved is not None else (train, None)
        if dense is not None and train is not None and not faults:
            put("example_inputs", _place(self.example_inputs, self.device))
            metrics = _collect(faults, lambda: _check_run(self, dense, [train, search, splits["test"]]))
            put("metric_set", metrics or {})
        if faults or dense is None or train is None or search is None:
            raise TaskError(faults)
        put("dense", dense)
        put("train_split", train)
        put("search_split", search)
        put("test_split", splits["test"])
        put(
            "calibration", tuple(batch.to(torch.device(self.device)) for batch in head(train, self.calibration_samples))
        )
        put("higher_is_better", direction_of(self.quality, self.metric_set[self.quality]))

    def predictions(self, outputs: object) -> Tensor:
        """The tensor that metrics and distillation look at."""
        tensor = self.predict(outputs) if self.predict is not None else outputs
        if not isinstance(tensor, Tensor):
            raise ConfigurationError(
                fault("the model's outputs", "be a tensor for the metrics", type(tensor).__name__, "Give predict=...")
            )
        return tensor

    def new_metrics(self) -> dict[str, Metric]:
        """Fresh copies of every metric on the task's device."""
        return {name: self.new_metric(name) for name in self.metric_set}

    def new_metric(self, name: str) -> Metric:
        """A fresh copy of one metric on the task's device."""
        metric = self.metric_set[name].clone().to(self.device)
        metric.reset()
        return metric


def assert_trained(task: Task, samples: int = 1024) -> None:
    """Raise ConfigurationError when the dense model is no better than chance on the search split.

    Its predictions are scored against the true targets and against the same targets in another order;
    a model that has learned what the metric measures tells the two apart.
    """
    true, permuted = task.new_metric(task.quality), task.new_metric(task.quality)
    with torch.no_grad():
        for batch in head(task.search_split, samples):
            batch = batch.to(torch.device(task.device))
            outputs = task.predictions(call(task.dense, batch.inputs))
            if not isinstance(batch.targets, Tensor) or batch.size < 2:
                return
            update(true, outputs, batch.targets)
            order = torch.randperm(batch.size, generator=torch.Generator().manual_seed(task.seed)).to(task.device)
            update(permuted, outputs, batch.targets[order])
    real, chance = float(true.compute()), float(permuted.compute())
    gain = real - chance if task.higher_is_better else chance - real
    if not gain > 0:
        raise ConfigurationError(
            fault(
                f"the dense model's {task.quality}",
                "be better than against shuffled targets",
                f"{real:.4g} (shuffled: {chance:.4g})",
                "Train the model first, load its checkpoint, or check the metric; require_trained=False skips this.",
            )
        )


def _numbers(task: Task) -> list[str]:
    checks = (
        (
            isinstance(task.batch_size, int) and task.batch_size >= 1,
            "batch_size",
            "be an integer >= 1",
            task.batch_size,
        ),
        (0 < task.search_share < 1, "search_share", "lie in (0, 1)", task.search_share),
        (
            isinstance(task.calibration_samples, int) and task.calibration_samples >= 1,
            "calibration_samples",
            "be an integer >= 1",
            task.calibration_samples,
        ),
        (isinstance(task.seed, int) and task.seed >= 0, "seed", "be an integer >= 0", task.seed),
        (callable(task.loss), "loss", "be a function (outputs, targets) -> Tensor", type(task.loss).__name__),
        (
            _is_inputs(task.example_inputs),
            "example_inputs",
            "be a tensor, a tuple or a dict",
            type(task.example_inputs).__name__,
        ),
    )
    faults = [fault(what, want, repr(got)) for ok, what, want, got in checks if not ok]
    names = list(task.metrics) if isinstance(task.metrics, Mapping | Sequence) else []
    if not names or isinstance(task.metrics, str):
        faults.append(fault("metrics", "be a non-empty sequence of names or a dict name -> Metric", repr(task.metrics)))
    elif task.quality not in names:
        faults.append(fault("quality", f"be one of the metrics {', '.join(names)}", repr(task.quality)))
    try:
        torch.empty(0, device=task.device)
    except (RuntimeError, AssertionError) as error:
        faults.append(fault("device", "be available here", f"{task.device!r} ({str(error).splitlines()[0]})"))
    return faults


def _build(task: Task) -> nn.Module:
    model = task.model
    if inspect.isclass(model) or not callable(model):
        raise ConfigurationError(
            fault("model", "be an nn.Module or a function that builds one", repr(model), "Pass lambda: YourModel(...).")
        )
    if not isinstance(model, nn.Module):
        model = model()
    if not isinstance(model, nn.Module):
        raise ConfigurationError(fault("the model function", "return an nn.Module", type(model).__name__))
    devices = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}
    wanted = torch.device(task.device).type
    if isinstance(task.model, nn.Module) and devices - {wanted}:
        raise ConfigurationError(
            fault(
                "the model",
                f"lie on the task's device {wanted!r}, where the data goes",
                f"parameters on {', '.join(sorted(devices))}",
                "Move it with model.to(device) or set device=...",
            )
        )
    if task.checkpoint is not None:
        checkpoints.load_into(model, Path(task.checkpoint))
    # A copy in eval mode: the user's model stays as it is, and no later step has to restore a mode.
    return copy.deepcopy(model).to(task.device).eval()


def _split(task: Task, name: str) -> Split | None:
    data = getattr(task, name)
    if data is None and name != "train":
        return None
    try:
        split = as_split(data, task.batch_size)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    if name == "search" and data is task.test:
        raise ConfigurationError(
            fault("search", "be other data than test", "the same object", "Leave search out: it is carved from train.")
        )
    return split


def _check_run(task: Task, dense: nn.Module, splits: Sequence[Split | None]) -> dict[str, Metric]:
    """One forward on the example inputs, one on a batch of each split, one loss, one update of each metric."""
    metrics: dict[str, Metric] = {}
    with torch.no_grad():
        _forward(dense, task.example_inputs, "example_inputs")
        for name, split in zip(("train", "search", "test"), splits, strict=True):
            if split is not None:
                metrics = _check_batch(task, dense, name, next(split.ordered()))
    return metrics


def _check_batch(task: Task, dense: nn.Module, name: str, batch: Batch) -> dict[str, Metric]:
    batch = batch.to(torch.device(task.device))
    outputs = _forward(dense, batch.inputs, f"a batch of {name}")
    loss = _attempt(f"loss on {name}", lambda: task.loss(outputs, batch.targets))
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ConfigurationError(fault("loss", "return a scalar tensor", type(loss).__name__))
    if not math.isfinite(float(loss)):
        raise ConfigurationError(fault(f"loss on {name}", "be finite", float(loss), "Is the model trained?"))
    predictions = task.predictions(outputs)
    if not isinstance(batch.targets, Tensor):
        raise ConfigurationError(fault("targets", "be a tensor for the metrics", type(batch.targets).__name__))
    metrics = _metrics(task, predictions, batch.targets)
    for metric_name, metric in metrics.items():
        probe_metric(metric_name, metric, predictions, batch.targets)
    direction_of(task.quality, metrics[task.quality])
    return metrics


def _metrics(task: Task, predictions: Tensor, targets: Tensor) -> dict[str, Metric]:
    if not isinstance(task.metrics, Mapping):
        prediction = kind_of_prediction(predictions, targets)
        return {name: build_metric(name, prediction) for name in task.metrics}
    for name, metric in task.metrics.items():
        if not isinstance(metric, Metric):
            raise ConfigurationError(
                fault(
                    f"metric {name!r}", "be a torchmetrics.Metric object", repr(metric), "Call the class to build one."
                )
            )
    return {name: metric.clone() for name, metric in task.metrics.items()}


def _forward(model: nn.Module, inputs: Inputs, what: str) -> object:
    return _attempt(f"the model on {what}", lambda: call(model, inputs))


def _attempt(what: str, action: Callable[[], object]) -> object:
    try:
        return action()
    except Exception as error:  # whatever user code raises is reported as a fault of the task
        raise ConfigurationError(fault(what, "run", f"{type(error).__name__}: {error}")) from error


def _collect(faults: list[str], action: Callable[[], T]) -> T | None:
    try:
        return action()
    except ConfigurationError as error:
        faults.append(str(error))
    except Exception as error:  # a factory, loader or dataset of the user's that raises is a fault too
        faults.append(f"the task could not be read: {type(error).__name__}: {error}")
    return None


def _is_inputs(value: object) -> bool:
    return isinstance(value, Tensor | Mapping) or (isinstance(value, tuple) and len(value) > 0)


def _place(inputs: Inputs, device: str) -> Inputs:
    return Batch(inputs=inputs, targets=(), size=1).to(torch.device(device)).inputs


def _setter(task: Task) -> Callable[[str, object], None]:
    return lambda name, value: object.__setattr__(task, name, value)
