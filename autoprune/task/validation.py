"""Check single arguments of a task. Every check returns sentences, so that all faults end up in one error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric

from autoprune.errors import ConfigurationError, UnknownNameError, describe_exception, error_message
from autoprune.task.functions import call_fault, name_of
from autoprune.task.metrics import METRICS, metrics_by_name
from autoprune.task.names import wrong_metric_name, wrong_name

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


def metric_faults(given: object, quality: object, directions: object) -> list[str]:
    """Check the metrics of a task without running any.

    Args:
        given: Names and functions, or name -> metric.
        quality: Name of the metric that the search improves.
        directions: Name -> whether higher is better.

    Returns:
        One sentence per fault.
    """
    if isinstance(given, str) or not isinstance(given, Mapping | Sequence) or not len(given):
        expected = "be a non-empty sequence of names and functions, or a dict name -> Metric or function"
        return [error_message("metrics", expected, repr(given), "Or give evaluate=..., which replaces them.")]
    keys = list(given) if isinstance(given, Mapping) else [name_of(metric) for metric in given]
    faults = [wrong for name in keys if (wrong := wrong_metric_name("the name of a metric", name))]
    faults += [_UNNAMED for name in keys if name == "<lambda>"]
    if faults:
        return faults
    names = [str(name) for name in keys]
    if len(names) != len(set(names)):
        faults.append(error_message("metrics", "have different names", ", ".join(names), _NAMED))
    if not isinstance(quality, str) or quality not in names:
        faults.append(error_message("quality", f"be one of the metrics {', '.join(names)}", repr(quality)))
    told = (_wrong_metric(name, metric) for name, metric in metrics_by_name(given).items())
    return faults + direction_faults(directions, names) + [fault for fault in told if fault]


def evaluate_faults(functions: Mapping[str, object], quality: object, replaced: Mapping[str, object]) -> list[str]:
    """Check the user's evaluation and what it replaces, without calling it.

    Args:
        functions: "evaluate" and "evaluate_test".
        quality: Name of the result that the search improves.
        replaced: "metrics", "search" and "test".

    Returns:
        One sentence per fault.
    """
    faults = [call_fault(name, function, ("model",)) for name, function in functions.items() if function is not None]
    faults.append(wrong_name("quality", quality))
    metrics = replaced["metrics"]
    if not isinstance(metrics, Mapping | Sequence) or len(metrics):
        faults.append(error_message("metrics", "be left out beside evaluate", repr(metrics), "Return their numbers."))
    faults += [
        error_message(
            name, "be left out beside evaluate", type(replaced[name]).__name__, f"Read the data in {function}."
        )
        for name, function in (("search", "evaluate"), ("test", "evaluate_test"))
        if replaced[name] is not None
    ]
    return [fault for fault in faults if fault]


def direction_faults(given: object, names: Sequence[str]) -> list[str]:
    """Check the directions of metrics.

    Args:
        given: Name -> whether higher is better.
        names: Names of its metrics.

    Returns:
        One sentence per fault.
    """
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


def scheduler_faults(given: object) -> list[str]:
    """Check the learning-rate schedulers of a task without running any.

    Args:
        given: Name -> function (optimizer, total steps).

    Returns:
        One sentence per fault.
    """
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


def is_share(value: object) -> bool:
    """Tell whether a value is a number in (0, 1).

    Args:
        value: Any value.

    Returns:
        Whether it is.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1


def is_device(device: object) -> bool:
    """Tell whether a value names a device that is available here.

    Args:
        device: Any value.

    Returns:
        Whether it does.
    """
    if not isinstance(device, str):
        return False
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True
