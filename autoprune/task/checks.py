"""What is wrong with a task: every check gives sentences, so that all of them end up in one error."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from autoprune.errors import ConfigurationError, UnknownNameError, describe_exception, fault
from autoprune.task import checkpoint as checkpoints
from autoprune.task.clone import clone_with
from autoprune.task.data import Batch, Inputs, Split, as_split, call
from autoprune.task.metrics import METRICS, Prediction, build_metric, direction_of, kind_of_prediction, probe_metric
from autoprune.task.models import check_independent, check_kind
from autoprune.task.overlap import overlap

if TYPE_CHECKING:
    from autoprune.task.task import Task

T = TypeVar("T")
#: Names of autoprune.recovery.learning_rate.SCHEDULERS, which lies above and can not be asked here.
BUILT_IN_SCHEDULERS = (
    "one_cycle",
    "cosine",
    "linear",
    "step",
    "exponential",
    "constant",
    "plateau",
    "warm_restarts",
)


def collect(faults: list[str], what: str, action: Callable[[], T]) -> T | None:
    """The result of an action, or None and its error, as a sentence about `what`, among the faults."""
    try:
        return action()
    except ConfigurationError as error:
        faults.append(str(error))
    except (Exception, SystemExit) as error:  # a factory, loader or dataset of the user's that raises is a fault too
        faults.append(fault(what, "run", describe_exception(error)))
    return None


def arguments(task: Task) -> list[str]:
    """Faults that show without running anything."""
    checks = (
        (_is_count(task.batch_size, 1), "batch_size", "be an integer >= 1", task.batch_size),
        (_is_share(task.search_share), "search_share", "lie in (0, 1)", task.search_share),
        (_is_count(task.calibration_samples, 1), "calibration_samples", "be an integer >= 1", task.calibration_samples),
        (_is_count(task.seed, 0), "seed", "be an integer >= 0", task.seed),
        (callable(task.loss), "loss", "be a function (outputs, targets) -> Tensor", type(task.loss).__name__),
        (
            _is_inputs(task.example_inputs),
            "example_inputs",
            "be a tensor, a tuple or a dict",
            type(task.example_inputs).__name__,
        ),
        (_is_device(task.device), "device", "be available here", task.device),
    )
    faults = [fault(what, want, repr(got)) for ok, what, want, got in checks if not ok]
    return faults + _metric_names(task) + _schedulers(task)


def can_carve(task: Task) -> bool:
    """Whether a search split is to be carved, by a share and a seed that are not at fault themselves."""
    return task.search is None and _is_share(task.search_share) and _is_count(task.seed, 0)


def build(task: Task) -> nn.Module | None:
    """A copy of the user's model on the task's device, in eval mode; None when the device itself is at fault."""
    model = task.model
    if inspect.isclass(model) or not callable(model):
        raise ConfigurationError(
            fault("model", "be an nn.Module or a function that builds one", repr(model), "Pass lambda: YourModel(...).")
        )
    if not isinstance(model, nn.Module):
        built = attempt("the model function", model)
        if not isinstance(built, nn.Module):
            raise ConfigurationError(fault("the model function", "return an nn.Module", type(built).__name__))
        model = built
    if not _is_device(task.device):
        return None
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
    check_kind(model)
    # A copy, so that neither a checkpoint nor a later step touches the user's model; a function may return it, too.
    copied = _copied(model)
    if task.checkpoint is not None:
        checkpoints.load_into(copied, Path(task.checkpoint))
    copied = copied.to(task.device).eval()
    if _is_inputs(task.example_inputs):
        example = Batch(inputs=task.example_inputs, targets=(), size=1).to(torch.device(task.device))
        check_independent(copied, model, example.inputs)
    return copied


def _copied(model: nn.Module) -> nn.Module:
    try:
        return clone_with(model)
    except Exception as error:  # modules that hold what cannot be copied
        remedy = "Leave locks, files and the like out in __getstate__ of the module that holds them."
        got = describe_exception(error)
        raise ConfigurationError(fault("the model", "be copyable with copy.deepcopy", got, remedy)) from error


def split(task: Task, name: str) -> Split | None:
    """One of the user's splits; None when there is none."""
    data = getattr(task, name)
    if data is None and name != "train":
        return None
    try:
        # A batch size that is at fault has been told; the data can still be looked at.
        return as_split(data, task.batch_size if _is_count(task.batch_size, 1) else 1)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def disjoint(splits: Mapping[str, Split | None]) -> list[str]:
    """One sentence for each pair of splits that share samples, under whatever wrapping."""
    faults: list[str] = []
    for name, other, remedy in (
        ("search", "test", "Leave search out: it is carved from train."),
        ("test", "train", "Hold samples back that the model is not trained on, or leave test out."),
        ("search", "train", "Leave search out: it is carved from train."),
    ):
        one, two = splits[name], splits[other]
        if one is None or two is None:
            continue
        shared = collect(faults, f"{name} beside {other}", partial(overlap, one, two))
        if shared:
            faults.append(fault(name, f"be other data than {other}", shared, remedy))
    return faults


def run(task: Task, dense: nn.Module, splits: Mapping[str, Split | None], faults: list[str]) -> dict[str, Metric]:
    """One forward on the example inputs and on a batch of each split, one loss, one update of each metric.

    What is an argument's own fault, such as a loss that is no function, is not run.
    """
    metrics: dict[str, Metric] = {}
    # A loss that fails on train would fail on test as well: splits are looked at up to the first that has faults.
    found: list[str] = []
    with torch.no_grad():
        if _is_inputs(task.example_inputs):
            collect(faults, "example_inputs", lambda: _forward(dense, task.example_inputs, "example_inputs"))
        for name in ("train", "search", "test"):
            part = splits[name]
            batch = collect(found, name, partial(_first_batch, task, part)) if part is not None else None
            if batch is not None and not found:
                metrics = _batch(task, dense, name, batch, found)
    train = splits["train"]
    if train is not None and not found and not faults:
        collect(found, "train", lambda: _train_step(task, dense, _first_batch(task, train)))
    faults += found
    return metrics


def _train_step(task: Task, dense: nn.Module, batch: Batch) -> None:
    """One forward in training mode and one backward, on a copy: what a BatchNorm, say, refuses shows only there."""
    scratch = clone_with(dense).train()
    if not any(parameter.requires_grad for parameter in scratch.parameters()):
        return
    outputs = attempt("the model in training mode on a batch of train", lambda: call(scratch, batch.inputs))
    loss = attempt("loss on train", lambda: task.loss(outputs, batch.targets))
    if isinstance(loss, Tensor) and loss.requires_grad:
        attempt("the backward pass of the loss on train", loss.backward)


def kind_of(task: Task, batches: Sequence[Batch]) -> tuple[Prediction, bool]:
    """What is predicted, and whether yes/no questions are answered by logits, told of the dense model's outputs."""
    prediction, logits = Prediction(kind="regression", classes=0), False
    with torch.no_grad():
        for number, batch in enumerate(batches):
            outputs = task.predictions(call(task.dense, batch.inputs))
            if number == 0 and isinstance(batch.targets, Tensor):
                prediction = kind_of_prediction(outputs, batch.targets)
            if prediction.kind not in ("binary", "multilabel"):
                break
            logits = logits or bool(((outputs < 0) | (outputs > 1)).any())
    return prediction, logits


def attempt(what: str, action: Callable[[], object]) -> object:
    """Run code of the user's; whatever it raises becomes a fault that names it."""
    try:
        return action()
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise ConfigurationError(fault(what, "run", describe_exception(error))) from error


def _first_batch(task: Task, part: Split) -> Batch:
    return next(part.ordered()).to(torch.device(task.device))


def _batch(task: Task, dense: nn.Module, name: str, batch: Batch, faults: list[str]) -> dict[str, Metric]:
    outputs = collect(faults, name, lambda: _forward(dense, batch.inputs, f"a batch of {name}"))
    if faults:
        return {}
    if callable(task.loss):
        collect(faults, "loss", lambda: _loss(task, name, outputs, batch))
    if _metric_names(task):
        return {}
    predictions = collect(faults, "predict", lambda: task.predictions(outputs))
    if not isinstance(batch.targets, Tensor):
        faults.append(fault("targets", "be a tensor for the metrics", type(batch.targets).__name__))
        return {}
    if not isinstance(predictions, Tensor):
        return {}
    return _metrics(task, predictions, batch.targets, faults)


def _loss(task: Task, name: str, outputs: object, batch: Batch) -> None:
    loss = attempt(f"loss on {name}", lambda: task.loss(outputs, batch.targets))
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ConfigurationError(
            fault("loss", "return a scalar tensor", got, "Reduce it, such as by reduction='mean'.")
        )
    if not math.isfinite(float(loss)):
        raise ConfigurationError(fault(f"loss on {name}", "be finite", float(loss), "Is the model trained?"))


def _metrics(task: Task, predictions: Tensor, targets: Tensor, faults: list[str]) -> dict[str, Metric]:
    prediction = kind_of_prediction(predictions, targets)
    metrics: dict[str, Metric] = {}

    def one(name: str) -> None:
        given = task.metrics[name] if isinstance(task.metrics, Mapping) else None
        metric = build_metric(name, prediction) if given is None else given.clone()
        probe_metric(name, metric, predictions, targets)
        if name == task.quality:
            direction_of(name, metric)
        metrics[name] = metric

    for name in task.metrics:
        collect(faults, f"metric {name!r}", lambda name=name: one(name))  # type: ignore[misc]  # mypy does not infer defaults of lambdas
    return metrics


def _metric_names(task: Task) -> list[str]:
    metrics = task.metrics
    if isinstance(metrics, str) or not isinstance(metrics, Mapping | Sequence) or not len(metrics):
        return [fault("metrics", "be a non-empty sequence of names or a dict name -> Metric", repr(metrics))]
    faults = []
    if task.quality not in metrics:
        faults.append(fault("quality", f"be one of the metrics {', '.join(metrics)}", repr(task.quality)))
    if not isinstance(metrics, Mapping):
        return faults + [str(UnknownNameError("a metric", name, METRICS)) for name in metrics if name not in METRICS]
    return faults + [
        fault(f"metric {name!r}", "be a torchmetrics.Metric object", repr(metric), "Call the class to build one.")
        for name, metric in metrics.items()
        if not isinstance(metric, Metric)
    ]


def _schedulers(task: Task) -> list[str]:
    given: object = task.schedulers
    if not isinstance(given, Mapping):
        return [fault("schedulers", "be a dict name -> function (optimizer, steps)", repr(given))]
    faults = []
    for name, factory in given.items():
        if not isinstance(name, str) or not name:
            faults.append(fault("the name of a scheduler", "be a word", repr(name)))
        elif name in BUILT_IN_SCHEDULERS:
            faults.append(fault("a scheduler of yours", "have a name of its own", f"the built-in {name!r}"))
        if not callable(factory):
            remedy = "It is built anew for each fine-tune: lambda optimizer, steps: ..."
            got = type(factory).__name__
            faults.append(fault(f"scheduler {name!r}", "be a function (optimizer, steps)", got, remedy))
    return faults


def _forward(model: nn.Module, inputs: Inputs, what: str) -> object:
    return attempt(f"the model on {what}", lambda: call(model, inputs))


def _is_inputs(value: object) -> bool:
    return isinstance(value, Tensor | Mapping) or (isinstance(value, tuple) and len(value) > 0)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1


def _is_device(device: object) -> bool:
    if not isinstance(device, str):
        return False
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True
