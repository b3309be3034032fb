"""Prepare a task: everything that is checked once, before any work starts, by running the model and reading data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from autoprune.errors import ConfigurationError, TaskError, describe_exception, error_message, plain_text
from autoprune.task.carve import carve
from autoprune.task.checkpoint import load_into
from autoprune.task.clone import clone_with
from autoprune.task.data import Batch, IterableSplit, Split, first_batches
from autoprune.task.evaluation import Evaluation, Scorable
from autoprune.task.first_run import first_run
from autoprune.task.functions import FunctionMetric
from autoprune.task.metrics import are_built_in, check_direction, update_metric
from autoprune.task.models import check_independent, check_kind, module_of
from autoprune.task.modes import LossMode, Objective
from autoprune.task.overlap import overlap
from autoprune.task.prediction import Prediction, ignore_index_of
from autoprune.task.splits import as_split
from autoprune.task.task import Task
from autoprune.task.validation import collect_fault

#: Default of torch's classification losses: not worth a word in the summary.
TORCHS_IGNORE_INDEX = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTask(Task):
    """A task that has been checked, with its splits, metrics and a copy of its model. Made by `prepare`.

    The fields of `Task` are as the user declared them, but for the device of the example inputs and the directions.

    Attributes:
        dense: Copy of the model on the device, in eval mode.
        train_split: The train split, without the carved search split.
        search_split: The search split, or the evaluation that replaces it.
        test_split: The same for test, or None.
        calibration: Batches of the calibration samples, on the device.
        loss_mode: Mode in which the loss is defined.
        directions: Name of a metric -> whether higher is better; None if unknown.
        metric_set: The metrics by name.
        higher_is_better: Direction of the quality.
        prediction: What the model predicts.
        least_batch: Samples of the smallest batch that the model can be trained on, 1 or 2.

    Example:
        >>> import torch
        >>> from autoprune import Task, prepare
        >>> inputs = torch.linspace(-1, 1, 64).reshape(64, 1)
        >>> task = Task(
        ...     model=torch.nn.Linear(1, 1),
        ...     example_inputs=inputs[:1],
        ...     train=(inputs, 2 * inputs),
        ...     loss=torch.nn.functional.mse_loss,
        ...     metrics=("r2", "mse"),
        ...     quality="mse",
        ... )
        >>> prepared = prepare(task)
        >>> prepared.summary(), prepared.higher_is_better, len(prepared.new_metrics())
        ('numbers; r2, mse over values', False, 2)
    """

    dense: nn.Module = field(repr=False)
    train_split: Split = field(repr=False)
    search_split: Scorable = field(repr=False)
    test_split: Scorable | None = field(repr=False)
    calibration: tuple[Batch, ...] = field(repr=False)
    loss_mode: LossMode = field(repr=False)
    metric_set: Mapping[str, Metric] = field(repr=False)
    higher_is_better: bool
    prediction: Prediction = field(repr=False)
    least_batch: int = field(repr=False)

    def __post_init__(self) -> None:
        """Check nothing: `prepare` has."""

    def summary(self) -> str:
        """Describe the prediction and the metrics in one line.

        Returns:
            A line such as "10 classes, logits; accuracy over labels 0 to 9".
        """
        found, names = self.prediction, plain_text(", ".join(self.directions), 200)
        direction = f"{'higher' if self.higher_is_better else 'lower'} {plain_text(self.quality, 100)} is better"
        if isinstance(self.search_split, Evaluation):
            test = "" if self.test_split is not None else "; no test numbers without evaluate_test"
            return f"{found}; {names} ({direction}) by evaluate(model){test}"
        if isinstance(self.metric_set[self.quality], FunctionMetric):
            names += f" ({direction})"
        if not are_built_in(self.metrics):
            return f"{found}; {names} as your own metrics count"
        if found.kind == "regression":
            return f"{found}; {names} over values"
        ignored = ""
        if found.ignore_index not in (None, TORCHS_IGNORE_INDEX) or self.ignore_index is not None:
            ignored = f", label {found.ignore_index} left out"
            ignored += " as in the loss" if found.ignore_index == ignore_index_of(self.loss) else ""
        return f"{found}; {names} over labels {found.labels[0]} to {found.labels[-1]}{ignored}"

    def update(self, metric: Metric, predictions: Tensor, targets: Tensor) -> None:
        """Feed one batch to one of the task's metrics, in the form that it takes.

        Args:
            metric: A metric from `new_metric` or `new_metrics`.
            predictions: Predictions from `predictions`.
            targets: Targets from `labels`.
        """
        update_metric(metric, predictions, targets, self.prediction)

    def labels(self, batch: Batch, where: str = "a split") -> Tensor:
        """Check the targets of a batch before it is scored.

        Args:
            batch: Batch of the search or test split.
            where: Name of the split in messages.

        Returns:
            The targets.

        Raises:
            ConfigurationError: The targets are no tensor, or hold a label without a class.
        """
        if not isinstance(batch.targets, Tensor):
            got = type(batch.targets).__name__
            raise ConfigurationError(error_message(f"the targets of {where}", "be a tensor for the metrics", got))
        if are_built_in(self.metrics):
            self.prediction.check(batch.targets, where)
        return batch.targets

    @property
    def objective(self) -> Objective:
        """The loss together with the mode in which it is defined."""
        return Objective(self.loss, self.loss_mode)

    def new_metrics(self) -> dict[str, Metric]:
        """Copy every metric to the task's device, without counts.

        Returns:
            The metrics by name.
        """
        return {name: self.new_metric(name) for name in self.metric_set}

    def new_metric(self, name: str) -> Metric:
        """Copy one metric to the task's device, without counts.

        Args:
            name: Name of the metric.

        Returns:
            The copy.
        """
        metric = self.metric_set[name].clone().to(self.device)
        metric.reset()
        return metric


def prepare(task: Task) -> PreparedTask:
    """Check a task by running its model, loss and metrics once and reading a little of its data.

    This is done before any work starts. The user's model, data and metrics are not changed.

    Args:
        task: The task; a prepared one is returned unchanged.

    Returns:
        The task with its splits, its metrics, its kind of prediction and a copy of its model.

    Raises:
        TaskError: The task has faults; the message lists all of them.

    Example:
        >>> import torch
        >>> from autoprune import Task, prepare
        >>> inputs = torch.linspace(-1, 1, 64).reshape(64, 1)
        >>> task = Task(
        ...     model=torch.nn.Linear(1, 2),
        ...     example_inputs=inputs[:1],
        ...     train=(inputs, (inputs > 0).long().flatten()),
        ...     loss=torch.nn.functional.cross_entropy,
        ...     metrics=("accuracy",),
        ...     quality="accuracy",
        ... )
        >>> prepared = prepare(task)
        >>> prepared.prediction.kind, prepared.search_split.samples, prepare(prepared) is prepared
        ('multiclass', 10, True)
    """
    if isinstance(task, PreparedTask):
        return task
    example = Batch(inputs=task.example_inputs, targets=(), size=1).to(torch.device(task.device))
    task = replace(task, example_inputs=example.inputs)
    faults: list[str] = []
    dense = collect_fault(faults, "model", partial(_build_model, task))
    splits = _read_splits(task, faults)
    run = None if dense is None else first_run(task, dense, splits, faults)
    train = splits["train"]
    calibration: tuple[Batch, ...] | None = None
    if run is not None and train is not None:
        calibration = collect_fault(faults, "train", partial(_calibration, task, train, run.least_batch))
    scored = None if run is None else run.evaluation or splits["search"]
    if faults or dense is None or train is None or scored is None or run is None or calibration is None:
        raise TaskError(faults)
    return PreparedTask(
        **{
            **{one.name: getattr(task, one.name) for one in fields(Task)},
            "directions": MappingProxyType(dict(run.directions)),
        },
        dense=dense,
        train_split=train,
        search_split=scored,
        test_split=splits["test"] if run.evaluation is None else _test_evaluation(task, run.evaluation),
        calibration=calibration,
        loss_mode=run.loss_mode,
        metric_set=run.metrics,
        higher_is_better=check_direction(task.quality, run.directions[task.quality]),
        prediction=run.prediction,
        least_batch=run.least_batch,
    )


def _test_evaluation(task: Task, evaluation: Evaluation) -> Evaluation | None:
    if task.evaluate_test is None:
        return None
    return replace(evaluation, function=task.evaluate_test, argument="evaluate_test")


def _build_model(task: Task) -> nn.Module:
    """Copy the user's model to the task's device, in eval mode."""
    model = module_of(task.model)
    devices = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}
    wanted = torch.device(task.device).type
    if isinstance(task.model, nn.Module) and devices - {wanted}:
        raise ConfigurationError(
            error_message(
                "the model",
                f"lie on the task's device {wanted!r}, where the data goes",
                f"parameters on {', '.join(sorted(devices))}",
                "Move it with model.to(device) or set device=...",
            )
        )
    check_kind(model)
    # A copy, as neither a checkpoint nor a later step may change the user's model, which a function may return, too.
    copied = _copied(model)
    if task.checkpoint is not None:
        load_into(copied, Path(task.checkpoint))
    copied = copied.to(task.device).eval()
    check_independent(copied, model, task.example_inputs)
    return copied


def _copied(model: nn.Module) -> nn.Module:
    try:
        return clone_with(model)
    except Exception as error:  # modules may hold objects that cannot be copied
        remedy = "Leave locks, files and the like out in __getstate__ of the module that holds them."
        got = describe_exception(error)
        raise ConfigurationError(error_message("the model", "be copyable with copy.deepcopy", got, remedy)) from error


def _read_splits(task: Task, faults: list[str]) -> dict[str, Split | None]:
    """Read the splits, check that they share no samples, and carve search from train if it is not given."""
    splits = {
        name: collect_fault(faults, name, partial(_read_split, task, name)) for name in ("train", "search", "test")
    }
    faults += _overlap_faults(splits)
    train = splits["train"]
    if train is not None and task.search is None and task.evaluate is None:
        carving = partial(carve, train, task.search_share, task.seed)
        splits["train"], splits["search"] = collect_fault(faults, "carving search from train", carving) or (train, None)
    return splits


def _read_split(task: Task, name: str) -> Split | None:
    """Read one of the user's splits; None if there is none."""
    data = getattr(task, name)
    if data is None:
        return None
    try:
        found = as_split(data, task.batch_size)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    return IterableSplit(found.batches, name) if isinstance(found, IterableSplit) else found


def _overlap_faults(splits: Mapping[str, Split | None]) -> list[str]:
    """Check that no two splits share samples, whatever they are wrapped in; one sentence per pair that does."""
    faults: list[str] = []
    for name, other, remedy in (
        ("search", "test", "Leave search out: it is carved from train."),
        ("test", "train", "Hold samples back that the model is not trained on, or leave test out."),
        ("search", "train", "Leave search out: it is carved from train."),
    ):
        one, two = splits[name], splits[other]
        if one is None or two is None:
            continue
        shared = collect_fault(faults, f"{name} beside {other}", partial(overlap, one, two))
        if shared:
            faults.append(error_message(name, f"share no samples with {other}", shared, remedy))
    return faults


def _calibration(task: Task, train: Split, least_batch: int) -> tuple[Batch, ...]:
    """Read the calibration samples."""
    device = torch.device(task.device)
    return tuple(batch.to(device) for batch in first_batches(train, task.calibration_samples, least_batch))
