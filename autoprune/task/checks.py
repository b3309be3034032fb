"""What is wrong with a task: every check gives sentences, so that all of them end up in one error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from autoprune.errors import ConfigurationError, UnknownNameError, describe_exception, error_message
from autoprune.task import checkpoint as checkpoints
from autoprune.task.clone import clone_with
from autoprune.task.data import Batch, IterableSplit, Split, as_split
from autoprune.task.metrics import METRICS
from autoprune.task.models import check_independent, check_kind, module_of
from autoprune.task.overlap import overlap
from autoprune.task.prediction import KINDS, is_label

if TYPE_CHECKING:
    from autoprune.task.task import Task

T = TypeVar("T")
#: Characters of the name of a metric or scheduler: it is the head of a column.
LONGEST_NAME = 100
#: Names of autoprune.recovery.learning_rate.SCHEDULERS, which lies above and cannot be asked here.
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
        faults.append(error_message(what, "run", describe_exception(error)))
    return None


def arguments(task: Task) -> list[str]:
    """Faults that show without running anything."""
    checks = (
        (is_count(task.batch_size, 1), "batch_size", "be an integer >= 1", task.batch_size),
        (_is_share(task.search_share), "search_share", "lie in (0, 1)", task.search_share),
        (is_count(task.calibration_samples, 1), "calibration_samples", "be an integer >= 1", task.calibration_samples),
        (is_count(task.seed, 0), "seed", "be an integer >= 0", task.seed),
        (callable(task.loss), "loss", "be a function (outputs, targets) -> Tensor", type(task.loss).__name__),
        (
            is_inputs(task.example_inputs),
            "example_inputs",
            "be a tensor, a tuple or a dict",
            type(task.example_inputs).__name__,
        ),
        (_is_device(task.device), "device", "be available here", task.device),
        (task.kind is None or task.kind in KINDS, "kind", f"be None or one of {', '.join(KINDS)}", task.kind),
        (task.logits is None or isinstance(task.logits, bool), "logits", "be None, True or False", task.logits),
        (task.ignore_index is None or is_label(task.ignore_index), "ignore_index", "be a label", task.ignore_index),
    )
    faults = [error_message(what, want, repr(got)) for ok, what, want, got in checks if not ok]
    return faults + metric_names(task) + _schedulers(task)


def can_carve(task: Task) -> bool:
    """Whether a search split is to be carved, by a share and a seed that are not at fault themselves."""
    return task.search is None and _is_share(task.search_share) and is_count(task.seed, 0)


def build(task: Task) -> nn.Module | None:
    """A copy of the user's model on the task's device, in eval mode; None when the device itself is at fault."""
    model = module_of(task.model)
    if not _is_device(task.device):
        return None
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
    # A copy, so that neither a checkpoint nor a later step touches the user's model; a function may return it, too.
    copied = _copied(model)
    if task.checkpoint is not None:
        checkpoints.load_into(copied, Path(task.checkpoint))
    copied = copied.to(task.device).eval()
    if is_inputs(task.example_inputs):
        example = Batch(inputs=task.example_inputs, targets=(), size=1).to(torch.device(task.device))
        check_independent(copied, model, example.inputs)
    return copied


def _copied(model: nn.Module) -> nn.Module:
    try:
        return clone_with(model)
    except Exception as error:  # modules that hold what cannot be copied
        remedy = "Leave locks, files and the like out in __getstate__ of the module that holds them."
        got = describe_exception(error)
        raise ConfigurationError(error_message("the model", "be copyable with copy.deepcopy", got, remedy)) from error


def split(task: Task, name: str) -> Split | None:
    """One of the user's splits; None when there is none."""
    data = getattr(task, name)
    if data is None and name != "train":
        return None
    try:
        # A batch size that is at fault has been told; the data can still be looked at.
        found = as_split(data, task.batch_size if is_count(task.batch_size, 1) else 1)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    return IterableSplit(found.batches, name) if isinstance(found, IterableSplit) else found


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
            faults.append(error_message(name, f"be other data than {other}", shared, remedy))
    return faults


def attempt(what: str, action: Callable[[], object]) -> object:
    """Run code of the user's; whatever it raises becomes a fault that names it."""
    try:
        return action()
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise ConfigurationError(error_message(what, "run", describe_exception(error))) from error


def metric_names(task: Task) -> list[str]:
    """Faults of the metrics that show without running any."""
    metrics = task.metrics
    if isinstance(metrics, str) or not isinstance(metrics, Mapping | Sequence) or not len(metrics):
        return [error_message("metrics", "be a non-empty sequence of names or a dict name -> Metric", repr(metrics))]
    faults = [wrong for name in metrics if (wrong := _wrong_name("the name of a metric", name))]
    if faults:
        return faults
    if not isinstance(task.quality, str) or task.quality not in metrics:
        faults.append(error_message("quality", f"be one of the metrics {', '.join(metrics)}", repr(task.quality)))
    if not isinstance(metrics, Mapping):
        return faults + [str(UnknownNameError("a metric", name, METRICS)) for name in metrics if name not in METRICS]
    return faults + [
        error_message(
            f"metric {name!r}", "be a torchmetrics.Metric object", repr(metric), "Call the class to build one."
        )
        for name, metric in metrics.items()
        if not isinstance(metric, Metric)
    ]


def _wrong_name(what: str, name: object) -> str:
    """A sentence about a name that tables, files and commands have no place for; "" for others, whatever they hold."""
    if isinstance(name, str) and name.strip() and name.isprintable() and len(name) <= LONGEST_NAME:
        return ""
    return error_message(
        what, f"be printable text of 1 to {LONGEST_NAME} characters", repr(name), "Give it another name."
    )


def _schedulers(task: Task) -> list[str]:
    given: object = task.schedulers
    if not isinstance(given, Mapping):
        return [error_message("schedulers", "be a dict name -> function (optimizer, steps)", repr(given))]
    faults = []
    for name, factory in given.items():
        wrong = _wrong_name("the name of a scheduler", name)
        if wrong:
            faults.append(wrong)
        elif name in BUILT_IN_SCHEDULERS:
            faults.append(error_message("a scheduler of yours", "have a name of its own", f"the built-in {name!r}"))
        if not callable(factory):
            remedy = "It is built anew for each fine-tune: lambda optimizer, steps: ..."
            got = type(factory).__name__
            faults.append(error_message(f"scheduler {name!r}", "be a function (optimizer, steps)", got, remedy))
    return faults


def is_inputs(value: object) -> bool:
    """Whether a model can be called with it."""
    return isinstance(value, Tensor | Mapping) or (isinstance(value, tuple) and len(value) > 0)


def is_count(value: object, least: int) -> bool:
    """Whether it is an integer of at least so much."""
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
