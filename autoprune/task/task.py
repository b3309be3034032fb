"""Task: everything the user brings, checked in one go before any work starts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from autoprune.errors import ConfigurationError, TaskError, fault
from autoprune.task import checks
from autoprune.task.carve import carve
from autoprune.task.checks import collect
from autoprune.task.data import Batch, Inputs, Split, call, head
from autoprune.task.metrics import direction_of, update

Loss = Callable[..., Tensor]


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
        faults = checks.arguments(self)
        put = partial(object.__setattr__, self)
        dense = collect(faults, partial(checks.build, self))
        splits = {name: collect(faults, partial(checks.split, self, name)) for name in ("train", "search", "test")}
        faults += checks.overlap(splits["search"], splits["test"])
        train, search = splits["train"], splits["search"]
        if train is not None and self.search is None and not faults:
            train, search = collect(faults, partial(carve, train, self.search_share, self.seed)) or (train, None)
        if dense is not None and not faults:
            put("example_inputs", _place(self.example_inputs, self.device))
            put("metric_set", checks.run(self, dense, {**splits, "train": train, "search": search}, faults))
        if faults or dense is None or train is None or search is None:
            raise TaskError(faults)
        put("dense", dense)
        put("train_split", train)
        put("search_split", search)
        put("test_split", splits["test"])
        device = torch.device(self.device)
        put("calibration", tuple(batch.to(device) for batch in head(train, self.calibration_samples)))
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


def assert_trained(task: Task, samples: int = 1024, permutations: int = 20) -> None:
    """Raise ConfigurationError when the dense model is no better than chance on the search split.

    Its predictions are scored against the true targets and against the same targets in other orders. A model
    that has learned what the metric measures is ahead of the mean of those by three of their standard
    deviations; luck is not.
    """
    device = torch.device(task.device)
    predictions, targets = [], []
    with torch.no_grad():
        for raw in head(task.search_split, samples):
            batch = raw.to(device)
            if not isinstance(batch.targets, Tensor) or batch.targets.ndim == 0:
                return
            predictions.append(task.predictions(call(task.dense, batch.inputs)))
            targets.append(batch.targets)
    outputs, truth = torch.cat(predictions), torch.cat(targets)
    if len(truth) < 2 or len(truth) != len(outputs):
        return
    generator = torch.Generator().manual_seed(task.seed)
    real = _score(task, outputs, truth)
    orders = [torch.randperm(len(truth), generator=generator).to(truth.device) for _ in range(permutations)]
    chance = [_score(task, outputs, truth[order]) for order in orders]
    mean, deviation = statistics.fmean(chance), statistics.stdev(chance)
    gain = real - mean if task.higher_is_better else mean - real
    if not gain > 3 * deviation:
        raise ConfigurationError(
            fault(
                f"the dense model's {task.quality}",
                "be better than against shuffled targets",
                f"{real:.4g} (shuffled: {mean:.4g} ± {deviation:.4g})",
                "Train the model first, load its checkpoint, or check the metric; require_trained=False skips this.",
            )
        )


def _score(task: Task, outputs: Tensor, targets: Tensor) -> float:
    metric = task.new_metric(task.quality)
    update(metric, outputs, targets)
    return float(metric.compute())


def _place(inputs: Inputs, device: str) -> Inputs:
    return Batch(inputs=inputs, targets=(), size=1).to(torch.device(device)).inputs
