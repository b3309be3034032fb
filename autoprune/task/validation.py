"""Checks of a task. Every check returns sentences, so that all faults end up in one error."""

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
from autoprune.task.data import Batch, IterableSplit, Split
from autoprune.task.functions import call_fault, name_of
from autoprune.task.metrics import METRICS, metrics_by_name
from autoprune.task.models import check_independent, check_kind, module_of
from autoprune.task.names import wrong_name
from autoprune.task.overlap import overlap
from autoprune.task.prediction import PREDICTION_KINDS, is_label
from autoprune.task.splits import as_split

if TYPE_CHECKING:
    from autoprune.task.task import Task

T = TypeVar("T")
_NAMED = "Name them: metrics={'name': function, ...}."
_UNNAMED = error_message("a metric that is a function", "have a name", "a lambda", _NAMED)
#: Names of autoprune.recovery.learning_rate.SCHEDULERS, a higher layer that cannot be imported here.
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


def collect_fault(faults: list[str], what: str, action: Callable[[], T]) -> T | None:
    """Run an action, and add its error to the faults if it fails.

    Args:
        faults: Sentences found so far; extended in place.
        what: Subject of the sentence.
        action: The action.

    Returns:
        The result of the action; None if it fails.
    """
    try:
        return action()
    except ConfigurationError as error:
        faults.append(str(error))
    except (Exception, SystemExit) as error:  # an error of the user's factory, loader or dataset is a fault, too
        faults.append(error_message(what, "run", describe_exception(error)))
    return None


def argument_faults(task: Task) -> list[str]:
    """Check the arguments of a task without running any user code.

    Args:
        task: The task.

    Returns:
        One sentence per fault.
    """
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
        (
            task.kind is None or task.kind in PREDICTION_KINDS,
            "kind",
            f"be None or one of {', '.join(PREDICTION_KINDS)}",
            task.kind,
        ),
        (task.logits is None or isinstance(task.logits, bool), "logits", "be None, True or False", task.logits),
        (task.ignore_index is None or is_label(task.ignore_index), "ignore_index", "be a label", task.ignore_index),
    )
    faults = [error_message(what, want, repr(got)) for ok, what, want, got in checks if not ok]
    return faults + metric_faults(task) + _schedulers(task)


def can_carve(task: Task) -> bool:
    """Tell whether a search split has to be carved, and the share and the seed for it are valid.

    Args:
        task: The task.

    Returns:
        Whether to carve.
    """
    return task.evaluate is None and task.search is None and _is_share(task.search_share) and is_count(task.seed, 0)


def build_model(task: Task) -> nn.Module | None:
    """Copy the user's model to the task's device, in eval mode.

    Args:
        task: The task.

    Returns:
        The copy; None if the device is invalid.

    Raises:
        ConfigurationError: The model is of a kind that is refused, lies on another device, or cannot be copied, or the
            checkpoint does not fit.
    """
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
    # A copy, as neither a checkpoint nor a later step may change the user's model, which a function may return, too.
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
    except Exception as error:  # modules may hold objects that cannot be copied
        remedy = "Leave locks, files and the like out in __getstate__ of the module that holds them."
        got = describe_exception(error)
        raise ConfigurationError(error_message("the model", "be copyable with copy.deepcopy", got, remedy)) from error


def read_split(task: Task, name: str) -> Split | None:
    """Read one of the user's splits.

    Args:
        task: The task.
        name: "train", "search" or "test".

    Returns:
        The split; None if there is none.

    Raises:
        ConfigurationError: The data is no split.
    """
    data = getattr(task, name)
    if data is None and name != "train":
        return None
    try:
        # An invalid batch size is already reported; the data can still be checked.
        found = as_split(data, task.batch_size if is_count(task.batch_size, 1) else 1)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    return IterableSplit(found.batches, name) if isinstance(found, IterableSplit) else found


def overlap_faults(splits: Mapping[str, Split | None]) -> list[str]:
    """Check that no two splits share samples, whatever they are wrapped in.

    Args:
        splits: "train", "search" and "test".

    Returns:
        One sentence per pair that shares samples.
    """
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


def run_user_code(what: str, action: Callable[[], object]) -> object:
    """Run code of the user's.

    Args:
        what: Name of the code in the message.
        action: The code.

    Returns:
        Its result.

    Raises:
        ConfigurationError: The code raises anything.
    """
    try:
        return action()
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise ConfigurationError(error_message(what, "run", describe_exception(error))) from error


def metric_faults(task: Task) -> list[str]:
    """Check the metrics of a task without running any.

    Args:
        task: The task.

    Returns:
        One sentence per fault.
    """
    if task.evaluate is not None:
        return _evaluate_faults(task)
    given: object = task.metrics
    if isinstance(given, str) or not isinstance(given, Mapping | Sequence) or not len(given):
        expected = "be a non-empty sequence of names and functions, or a dict name -> Metric or function"
        return [error_message("metrics", expected, repr(given), "Or give evaluate=..., which replaces them.")]
    keys = list(given) if isinstance(given, Mapping) else [name_of(metric) for metric in given]
    faults = [wrong for name in keys if (wrong := wrong_name("the name of a metric", name))]
    faults += [_UNNAMED for name in keys if name == "<lambda>"]
    if faults:
        return faults
    names = [str(name) for name in keys]
    if len(names) != len(set(names)):
        faults.append(error_message("metrics", "have different names", ", ".join(names), _NAMED))
    if not isinstance(task.quality, str) or task.quality not in names:
        faults.append(error_message("quality", f"be one of the metrics {', '.join(names)}", repr(task.quality)))
    told = (_wrong_metric(name, metric) for name, metric in metrics_by_name(task.metrics).items())
    if task.evaluate_test is not None:
        faults.append(error_message("evaluate_test", "come beside evaluate", "metrics", "Give the test split as test."))
    return faults + direction_faults(task, names) + [fault for fault in told if fault]


def _evaluate_faults(task: Task) -> list[str]:
    """Sentences about evaluate and what it replaces, without calling it."""
    faults = [
        call_fault(name, function, ("model",))
        for name, function in (("evaluate", task.evaluate), ("evaluate_test", task.evaluate_test))
        if function is not None
    ]
    faults.append(wrong_name("quality", task.quality))
    metrics: object = task.metrics
    if not isinstance(metrics, Mapping | Sequence) or len(metrics):
        faults.append(error_message("metrics", "be left out beside evaluate", repr(metrics), "Return their numbers."))
    replaced = (("search", task.search, "evaluate"), ("test", task.test, "evaluate_test"))
    faults += [
        error_message(name, "be left out beside evaluate", type(data).__name__, f"Read the data in {function}.")
        for name, data, function in replaced
        if data is not None
    ]
    return [fault for fault in faults if fault]


def direction_faults(task: Task, names: Sequence[str]) -> list[str]:
    """Check the directions of metrics.

    Args:
        task: The task.
        names: Names of its metrics.

    Returns:
        One sentence per fault.
    """
    given: object = task.directions
    if not isinstance(given, Mapping) or not all(isinstance(higher, bool) for higher in given.values()):
        expected = "be a dict name of a metric -> True if higher is better, else False"
        return [error_message("directions", expected, repr(given))]
    return [str(UnknownNameError("a metric in directions", name, names)) for name in given if name not in names]


def _wrong_metric(name: str, metric: object) -> str:
    """A sentence about a metric that is none; "" for a valid one."""
    if isinstance(metric, str):
        return "" if metric in METRICS else str(UnknownNameError("a metric", metric, METRICS))
    if isinstance(metric, Metric):
        return ""
    if not callable(metric) or isinstance(metric, type):
        expected = "be a torchmetrics.Metric object or a function (outputs, targets)"
        return error_message(f"metric {name!r}", expected, repr(metric), "Call the class to build one.")
    return call_fault(f"metric {name!r}", metric, ("outputs", "targets"))


def _schedulers(task: Task) -> list[str]:
    given: object = task.schedulers
    if not isinstance(given, Mapping):
        return [error_message("schedulers", "be a dict name -> function (optimizer, steps)", repr(given))]
    faults = []
    for name, factory in given.items():
        wrong = wrong_name("the name of a scheduler", name)
        if wrong:
            faults.append(wrong)
        elif name in BUILT_IN_SCHEDULERS:
            faults.append(
                error_message(
                    "a scheduler of the task", "have another name than the built-in ones", f"the built-in {name!r}"
                )
            )
        if not callable(factory):
            remedy = "It is called for each fine-tune: lambda optimizer, steps: ..."
            got = type(factory).__name__
            faults.append(error_message(f"scheduler {name!r}", "be a function (optimizer, steps)", got, remedy))
    return faults


def is_inputs(value: object) -> bool:
    """Tell whether a model can be called with a value.

    Args:
        value: Any value.

    Returns:
        True for a tensor, a mapping and a non-empty tuple.
    """
    return isinstance(value, Tensor | Mapping) or (isinstance(value, tuple) and len(value) > 0)


def is_count(value: object, least: int) -> bool:
    """Tell whether a value is an integer >= `least`.

    Args:
        value: Any value.
        least: Smallest valid integer.

    Returns:
        Whether it is.
    """
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
