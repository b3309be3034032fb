"""Task: everything the user brings, checked in one go before any work starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from autoprune.errors import ConfigurationError, TaskError, error_message, plain_text
from autoprune.task import validation
from autoprune.task.carve import carve
from autoprune.task.data import Batch, Inputs, Split, call, head, take
from autoprune.task.first_run import first_run
from autoprune.task.metrics import direction_of, update
from autoprune.task.modes import LossMode, Objective, mode_on
from autoprune.task.prediction import Prediction, ignored_by
from autoprune.task.validation import collect_fault

Loss = Callable[..., Tensor]


#: What torch's losses of classes leave out by default: nothing to say of a task.
TORCHS_IGNORE_INDEX = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A trained model, a way to score it and the data to do it on.

    model: the trained module, or a function without arguments that builds it. It is copied, never changed.
    example_inputs: one call's inputs as tensor, tuple or dict; latency and multiply-adds refer to them.
    train: pair of tensors, Dataset, DataLoader or any re-iterable of (inputs, targets) batches.
    loss: (outputs, targets) -> scalar Tensor; it gets the targets as they are given.
    metrics: names of autoprune.task.metrics.METRICS, or name -> torchmetrics.Metric.
    quality: the metric among them that the search improves; its direction comes from the metric.
    search: split that drives the study; carved from train when None. Never pass the test split here.
    test: split for the final front only; None leaves test numbers out of the report.
    checkpoint: .safetensors or torch state dict that is loaded into the model.
    predict: outputs -> Tensor for metrics and distillation, where the model returns something richer.
    kind: what is predicted, "multiclass", "binary", "multilabel" or "regression"; None infers it from outputs, targets,
        metrics and loss, see `summary`.
    logits: whether labels are answered by logits, not probabilities; None infers it.
    ignore_index: label that metrics of a name leave out, such as 255 or -100; None takes that of the loss, if any.
    schedulers: learning-rate schedulers of your own, name -> function (optimizer, total steps) that builds one on this
        optimizer, for RecoveryPlan.scheduler. The optimizer has one group, whose rate is the plan's.
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
    kind: str | None = None
    logits: bool | None = None
    ignore_index: int | None = None
    schedulers: Mapping[str, Callable[[Optimizer, int], LRScheduler]] = field(default_factory=dict)
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
    loss_mode: LossMode = field(init=False, repr=False)
    metric_set: Mapping[str, Metric] = field(init=False, repr=False)
    higher_is_better: bool = field(init=False)
    prediction: Prediction = field(init=False, repr=False)
    least_batch: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        faults = validation.argument_faults(self)
        put = partial(object.__setattr__, self)
        dense = collect_fault(faults, "model", partial(validation.build_model, self))
        splits = {
            name: collect_fault(faults, name, partial(validation.read_split, self, name))
            for name in ("train", "search", "test")
        }
        faults += validation.overlap_faults(splits)
        train, search = splits["train"], splits["search"]
        if train is not None and validation.can_carve(self):
            carving = partial(carve, train, self.search_share, self.seed)
            train, search = collect_fault(faults, "carving search from train", carving) or (train, None)
        run = None
        if dense is not None:
            put("example_inputs", _place(self.example_inputs, self.device))
            put("loss_mode", mode_on(dense, train, self.device))
            run = first_run(self, dense, {"train": train, "search": search, "test": splits["test"]}, faults)
        calibration: tuple[Batch, ...] | None = None
        if run is not None and train is not None:
            device, least = torch.device(self.device), run.least_batch
            few = partial(head, train, self.calibration_samples, least)
            calibration = collect_fault(faults, "train", lambda: tuple(batch.to(device) for batch in few()))
        if faults or dense is None or train is None or search is None or run is None:
            raise TaskError(faults)
        put("schedulers", MappingProxyType(dict(self.schedulers)))
        put("dense", dense)
        put("train_split", train)
        put("search_split", search)
        put("test_split", splits["test"])
        put("calibration", calibration)
        put("metric_set", run.metrics)
        put("higher_is_better", direction_of(self.quality, run.metrics[self.quality]))
        put("prediction", run.prediction)
        put("least_batch", run.least_batch)

    def summary(self) -> str:
        """Say in one line what is predicted and how it is scored.

        Returns:
            A line such as "10 classes, logits; accuracy over labels 0 to 9".

        Example:
            >>> task.summary()  # doctest: +SKIP
            '10 classes, logits; accuracy, recall over labels 0 to 9'

        """
        found, names = self.prediction, plain_text(", ".join(self.metric_set), 200)
        if isinstance(self.metrics, Mapping):
            return f"{found}; {names} as your own metric objects count"
        if found.kind == "regression":
            return f"{found}; {names} over values"
        ignored = ""
        if found.ignore_index not in (None, TORCHS_IGNORE_INDEX) or self.ignore_index is not None:
            ignored = f", label {found.ignore_index} left out"
            ignored += " as in the loss" if found.ignore_index == ignored_by(self.loss) else ""
        return f"{found}; {names} over labels {found.labels[0]} to {found.labels[-1]}{ignored}"

    def update(self, metric: Metric, predictions: Tensor, targets: Tensor) -> None:
        """Feed one batch to one of the task's metrics, in the form that it takes.

        Args:
            metric: from `new_metric` or `new_metrics`.
            predictions: from `predictions`.
            targets: from `labels`.

        """
        update(metric, predictions, targets, self.prediction)

    def labels(self, batch: Batch, where: str = "a split") -> Tensor:
        """Give the targets of a batch that is to be scored.

        Args:
            batch: of the search or test split.
            where: what a message calls the split.

        Returns:
            The targets.

        Raises:
            ConfigurationError: When they are no tensor, or hold a label that no class has.

        """
        if not isinstance(batch.targets, Tensor):
            got = type(batch.targets).__name__
            raise ConfigurationError(error_message(f"the targets of {where}", "be a tensor for the metrics", got))
        if not isinstance(self.metrics, Mapping):
            self.prediction.check(batch.targets, where)
        return batch.targets

    def predictions(self, outputs: object) -> Tensor:
        """The tensor that metrics and distillation look at."""
        tensor = self.predict(outputs) if self.predict is not None else outputs
        if not isinstance(tensor, Tensor):
            what, remedy = ("the model's outputs", "Give predict=...")
            if self.predict is not None:
                what, remedy = ("what predict returns", "Pick the tensor that the metrics compare with the targets.")
            raise ConfigurationError(error_message(what, "be a tensor for the metrics", type(tensor).__name__, remedy))
        return tensor

    @property
    def objective(self) -> Objective:
        """The loss together with the mode in which it is defined."""
        return Objective(self.loss, self.loss_mode)

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
    deviations; luck is not. Where the targets tell nothing apart, nothing is said.
    """
    pairs = _answers(task, samples)
    seen = sum(len(targets) for _, targets in pairs)
    if not any(bool((targets != targets[0]).any()) for _, targets in pairs):
        return
    generator = torch.Generator().manual_seed(task.seed)
    real = _score(task, pairs)
    chance = torch.tensor([_score(task, _reordered(pairs, generator)) for _ in range(permutations)]).double()
    mean, deviation = float(chance.mean()), float(chance.std())
    gain = real - mean if task.higher_is_better else mean - real
    # Deviations grow as samples get fewer, until a perfect model is within three of them: below 81 samples, the
    # gain that suffices at 81 suffices. Sums in another order differ by rounding: that is no gain.
    enough = max(min(3.0, math.sqrt(seen) / 3) * deviation, 1e-6 * abs(mean))
    if not gain > enough:
        raise ConfigurationError(
            error_message(
                f"the dense model's {task.quality}",
                "be better than against shuffled targets",
                f"{real:.4g} (shuffled: {mean:.4g} ± {deviation:.4g})",
                "Train the model first, load its checkpoint, or check the metric; require_trained=False skips this.",
            )
        )


#: Predictions and the targets that belong to them.
Answers = list[tuple[Tensor, Tensor]]
#: Numbers that are held at most, about 128 MiB: dense predictions of 1024 images would not fit.
HELD = 2**25


def _answers(task: Task, samples: int) -> Answers:
    """The dense model's answers on part of the search split, in one piece where their shapes allow it."""
    split, answers = task.search_split, Answers()
    # Data is often sorted by class: when not all of it is looked at, at random where it can be.
    passing = split.shuffled(task.seed) if (split.samples or 0) > samples else split.ordered()
    with torch.no_grad():
        for raw in take(passing, samples):
            batch = raw.to(torch.device(task.device))
            outputs, targets = task.predictions(call(task.dense, batch.inputs)), task.labels(batch, "search")
            if bool(outputs.isnan().any()):
                raise ConfigurationError(error_message("the dense model's outputs on search", "be finite", "NaN"))
            if min(outputs.ndim, targets.ndim) == 0:
                return []
            answers.append((outputs, targets))
            if sum(outputs.numel() for outputs, _ in answers) > HELD:
                break
    if len({(outputs.shape[1:], targets.shape[1:]) for outputs, targets in answers}) == 1:
        answers = [(torch.cat([outputs for outputs, _ in answers]), torch.cat([targets for _, targets in answers]))]
    return answers


def _reordered(answers: Answers, generator: torch.Generator) -> Answers:
    orders = [torch.randperm(len(targets), generator=generator).to(targets.device) for _, targets in answers]
    return [(outputs, targets[order]) for (outputs, targets), order in zip(answers, orders, strict=True)]


def _score(task: Task, answers: Answers) -> float:
    metric = task.new_metric(task.quality)
    for outputs, targets in answers:
        task.update(metric, outputs, targets)
    return float(metric.compute())


def _place(inputs: Inputs, device: str) -> Inputs:
    return Batch(inputs=inputs, targets=(), size=1).to(torch.device(device)).inputs
