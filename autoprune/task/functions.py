"""Plain functions as metrics: called once with all outputs and targets of a split."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from numbers import Real

import torch
from torch import Tensor
from torchmetrics import Metric

from autoprune.errors import ConfigurationError, error_message
from autoprune.task.data import restore_sample_axis

#: (outputs [N, ...], targets [N, ...]), both on the CPU -> one number.
MetricFunction = Callable[[Tensor, Tensor], object]


class FunctionMetric(Metric):
    """A plain function of all outputs and targets, which are kept on the CPU until then.

    Args:
        name: Name in messages.
        function: (outputs, targets) -> one finite number.

    Attributes:
        direction: Whether higher is better, by an attribute `higher_is_better` of the function.

    Example:
        >>> metric = FunctionMetric("mse", torch.nn.functional.mse_loss)
        >>> metric.update(torch.zeros(2), torch.ones(2))
        >>> metric.update(torch.zeros(1), torch.zeros(1))
        >>> round(float(metric.compute()), 4)
        0.6667
    """

    is_differentiable = False
    full_state_update = False
    outputs: list[Tensor]
    targets: list[Tensor]

    def __init__(self, name: str, function: MetricFunction) -> None:
        super().__init__()
        self.name = name
        # A partial hides modules, such as losses, whose parameters and buffers are none of the metric's.
        self.function = partial(function)
        self.direction = getattr(function, "higher_is_better", None) is not False
        self.add_state("outputs", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Keep one batch.

        Args:
            preds: Outputs [N, ...].
            target: Targets [N, ...].
        """
        outputs = restore_sample_axis(preds, len(target)) if target.ndim else preds
        # Copies: a view would keep all that it is cut from, and a model may write into the same tensor again.
        self.outputs.append(outputs.detach().to("cpu", copy=True))
        self.targets.append(target.detach().to("cpu", copy=True))

    def compute(self) -> Tensor:
        """Call the function with all batches so far.

        Returns:
            Its number, in float64.

        Raises:
            ConfigurationError: The batches cannot be put together, or the function returns something else than one
                number.
        """
        outputs, targets = self._whole("outputs", self.outputs), self._whole("targets", self.targets)
        value = one_number(f"metric {self.name!r}", self.function(outputs, targets))
        return torch.tensor(value, dtype=torch.float64)

    def _whole(self, what: str, parts: list[Tensor]) -> Tensor:
        shapes = {tuple(part.shape[1:]) for part in parts}
        if len(shapes) > 1:
            expected = f"get {what} of one shape [N, ...] in all batches"
            remedy = "A torchmetrics.Metric counts batch by batch."
            got = " and ".join(str(shape) for shape in sorted(shapes)[:2])
            raise ConfigurationError(error_message(f"metric {self.name!r}", expected, got, remedy))
        return torch.cat(parts)


def one_number(what: str, value: object) -> float:
    """Convert a result of the user's function.

    Args:
        what: Subject of the message.
        value: A number of Python or NumPy, or a tensor with one entry.

    Returns:
        The number, which may be NaN or infinite.

    Raises:
        ConfigurationError: It is anything else.
    """
    got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    elif not isinstance(value, Real) and getattr(value, "size", 0) == 1 and hasattr(value, "item"):
        value = value.item()  # an array of NumPy
    if type(value) is bool or not isinstance(value, Real):
        raise ConfigurationError(error_message(what, "give one number", got))
    return float(value)


def finite_number(what: str, value: object) -> float:
    """Convert a result of the user's function that is to be finite.

    Args:
        what: Subject of the message.
        value: See `one_number`.

    Returns:
        The number.

    Raises:
        ConfigurationError: It is no number, NaN or infinite.
    """
    number = one_number(what, value)
    if not math.isfinite(number):
        raise ConfigurationError(error_message(what, "be finite", number))
    return number


def call_fault(what: str, function: object, names: tuple[str, ...]) -> str:
    """Check that a function can be called with arguments by position, without calling it.

    Args:
        what: Subject of the message.
        function: Anything.
        names: Names of the arguments, for the message.

    Returns:
        A sentence; "" if it can be called, or does not tell.
    """
    expected = f"be a function ({', '.join(names)})"
    if not callable(function) or isinstance(function, type):
        return error_message(what, expected, repr(function))
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # such as functions written in C
        return ""
    try:
        signature.bind(*names)
    except TypeError:
        return error_message(what, expected, f"one with the arguments {signature}")
    return ""


def name_of(metric: object) -> object:
    """Name a metric of a sequence.

    Args:
        metric: A name or a function.

    Returns:
        The name; the object itself if it has none.
    """
    return getattr(metric, "__name__", metric) if callable(metric) else metric
