"""Learning-rate schedulers by name, and the learning rates of any torch scheduler without training."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
)

from autoprune.errors import ConfigurationError, UnknownNameError, describe_exception, error_message
from autoprune.recovery.schedules import SHORTEST_CYCLE, decay_fraction_at

#: (optimizer, total steps) -> a new scheduler of that optimizer, whose learning rate is the peak.
SchedulerFactory = Callable[[Optimizer, int], LRScheduler]

#: Lowest share of the peak: after the last step of `exponential`, and the lower bound of `plateau`.
END = 0.01


def one_cycle(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Rise from a tenth of the peak over a quarter of the steps, then fall to nearly 0, both along a cosine.

    Constant below SHORTEST_CYCLE steps. Source: Smith and Topin, Super-Convergence, 2019.

    Args:
        optimizer: Optimizer whose learning rate is the peak.
        steps: Optimizer steps of the fine-tune.

    Returns:
        A new scheduler of that optimizer.
    """
    if steps < SHORTEST_CYCLE:
        return constant(optimizer, steps)
    return OneCycleLR(
        optimizer, max_lr=_peak(optimizer), total_steps=steps, pct_start=0.25, cycle_momentum=False, div_factor=10.0
    )


def cosine(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Fall from the peak to 0 along half a cosine.

    Source: Loshchilov and Hutter, SGDR, 2017, without restarts.

    Args:
        optimizer: Optimizer whose learning rate is the peak.
        steps: Optimizer steps of the fine-tune.

    Returns:
        A new scheduler of that optimizer.
    """
    return CosineAnnealingLR(optimizer, T_max=max(1, steps))


def linear(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Fall from the peak to 0 by the same amount each step.

    Source: Li et al., Budgeted Training, 2020.

    Args:
        optimizer: Optimizer whose learning rate is the peak.
        steps: Optimizer steps of the fine-tune.

    Returns:
        A new scheduler of that optimizer.
    """
    return LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=max(1, steps))


def step(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Divide the learning rate by ten after half of the steps, and again after three quarters.

    Source: He et al., ResNet, 2016.

    Args:
        optimizer: Optimizer whose learning rate is the peak.
        steps: Optimizer steps of the fine-tune.

    Returns:
        A new scheduler of that optimizer.
    """
    # Rounded up: a milestone at step 0 would take effect before any training.
    return MultiStepLR(optimizer, milestones=[math.ceil(steps / 2), math.ceil(steps * 3 / 4)], gamma=0.1)


def exponential(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Fall from the peak to a hundredth of it, by the same factor each step.

    Args:
        optimizer: Optimizer whose learning rate is the peak.
        steps: Optimizer steps of the fine-tune.

    Returns:
        A new scheduler of that optimizer.
    """
    return ExponentialLR(optimizer, gamma=END ** (1.0 / max(1, steps)))


def constant(optimizer: Optimizer, steps: int) -> LRScheduler:  # noqa: ARG001  # the signature of a factory
    """Keep the learning rate at its peak.

    Args:
        optimizer: Optimizer whose learning rate is the peak.
        steps: Optimizer steps of the fine-tune; not used.

    Returns:
        A new scheduler of that optimizer.
    """
    return LambdaLR(optimizer, lambda _: 1.0)


def plateau(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Halve the learning rate whenever the training loss has had no new low in a tenth of the steps.

    Never below a hundredth of the peak. Source: torch.optim.lr_scheduler.ReduceLROnPlateau.

    Args:
        optimizer: Optimizer whose learning rate is the peak.
        steps: Optimizer steps of the fine-tune.

    Returns:
        A new scheduler of that optimizer.
    """
    least = _peak(optimizer) * END
    return ReduceLROnPlateau(optimizer, factor=0.5, patience=max(1, steps // 10), min_lr=least, eps=0.0)


def warm_restarts(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Run three cosines from the peak towards 0, each twice as long as the one before.

    Source: Loshchilov and Hutter, SGDR, 2017.

    Args:
        optimizer: Optimizer whose learning rate is the peak.
        steps: Optimizer steps of the fine-tune.

    Returns:
        A new scheduler of that optimizer.
    """
    # A seventh, rounded up: cycles of 1 + 2 + 4 sevenths hold all steps, so that no fourth cycle starts.
    return CosineAnnealingWarmRestarts(optimizer, T_0=max(1, math.ceil(steps / 7)), T_mult=2)


SCHEDULERS: Mapping[str, SchedulerFactory] = {
    "one_cycle": one_cycle,
    "cosine": cosine,
    "linear": linear,
    "step": step,
    "exponential": exponential,
    "constant": constant,
    "plateau": plateau,
    "warm_restarts": warm_restarts,
}


def scheduler(name: str, own: Mapping[str, SchedulerFactory] = MappingProxyType({})) -> SchedulerFactory:
    """Look up a scheduler by name, built in or among a task's own.

    Args:
        name: Name of the scheduler.
        own: The task's own schedulers by name.

    Returns:
        A function that builds the scheduler.

    Raises:
        UnknownNameError: There is no scheduler of that name; the message lists the known ones.
    """
    known = {**own, **SCHEDULERS}
    if name not in known:
        raise UnknownNameError("a scheduler", name, known)
    return known[name]


class Rate:
    """The learning rate of one fine-tune, step by step.

    The scheduler drives a private optimizer with one dummy parameter. The optimizer that trains may therefore be
    replaced
    at any time, as a cut does: give `value` to each of its groups before a step, and call `advance` after it.

    Args:
        factory: Builds the scheduler, from an SGD optimizer with one group.
        peak: Learning rate that this optimizer starts with, > 0.
        steps: Optimizer steps of the whole fine-tune, >= 1.

    Attributes:
        losses: Loss of each step so far, for a scheduler that depends on it; else empty.

    Raises:
        ConfigurationError: Here and in `advance`: the factory or its scheduler fails, returns no scheduler, or gives a
            rate that is negative or not finite.
    """

    def __init__(self, factory: SchedulerFactory, peak: float, steps: int) -> None:
        self._proxy = SGD([torch.zeros(1, requires_grad=True)], lr=peak)
        self._scheduler = _build(factory, self._proxy, steps)
        self._needs_loss = _needs_loss(self._scheduler)
        self._steps_left = steps - 1
        self.losses: list[float] = []
        self._peak_so_far = self._decay_fraction = 0.0
        self._check_rate()

    @property
    def value(self) -> float:
        """Learning rate of the coming step."""
        return float(self._proxy.param_groups[0]["lr"])

    @property
    def follows_loss(self) -> bool:
        """Whether the scheduler depends on the loss, so that its rates cannot be known before training."""
        return self._needs_loss

    @property
    def lowest(self) -> float:
        """Lowest rate that a scheduler which depends on the loss declares; 0 if it declares none."""
        least = getattr(self._scheduler, "min_lrs", None)
        return float(least[0]) if least else 0.0

    @property
    def decay_fraction(self) -> float:
        """How far the rate has fallen from its highest value towards `lowest`, in [0, 1]; non-decreasing."""
        return self._decay_fraction

    def advance(self, loss: float) -> None:
        """Go on to the next step. After the last step nothing changes.

        Args:
            loss: Training loss of the finished step, for a scheduler that depends on it.

        Raises:
            ConfigurationError: The scheduler fails, or gives a rate that is negative or not finite.
        """
        if self._steps_left <= 0:
            return
        self._steps_left -= 1
        if self._needs_loss:
            self.losses.append(loss)
        self._proxy.step()  # without it torch warns about the order of both calls
        try:
            if self._needs_loss:
                self._scheduler.step(loss)  # type: ignore[arg-type]  # the metric takes the place of an epoch
            else:
                self._scheduler.step()
        except (Exception, SystemExit) as error:  # the user's scheduler may raise anything
            raise ConfigurationError(
                error_message("a scheduler", "give a rate for every step", describe_exception(error))
            ) from error
        self._check_rate()

    def replay(self, steps: int, losses: Sequence[float]) -> None:
        """Go on to the rate that an earlier process had.

        Args:
            steps: Steps that it had done.
            losses: Its `losses`.
        """
        for step in range(steps):
            self.advance(losses[step] if step < len(losses) else 0.0)

    def _check_rate(self) -> None:
        if not (math.isfinite(self.value) and self.value >= 0):
            raise ConfigurationError(error_message("the rate of a scheduler", "be finite and >= 0", self.value))
        self._peak_so_far = max(self._peak_so_far, self.value)
        self._decay_fraction = max(self._decay_fraction, decay_fraction_at(self._peak_so_far, self.value, self.lowest))


def simulate(factory: SchedulerFactory, peak: float, steps: int) -> list[float] | None:
    """List the learning rates of a fine-tune without training.

    The scheduler is run to its end, also when its rates depend on the loss.

    Args:
        factory: Builds the scheduler.
        peak: Peak learning rate, > 0.
        steps: Optimizer steps of the fine-tune.

    Returns:
        Learning rate of each step; None when the rates depend on the loss.

    Raises:
        ConfigurationError: As for Rate.
    """
    if steps == 0:
        return []
    rate = Rate(factory, peak, steps)
    rates = []
    for _ in range(steps):
        rates.append(rate.value)
        rate.advance(1.0)
    return None if rate.follows_loss else rates


def check_scheduler(name: str, own: Mapping[str, SchedulerFactory], *, peak: float, steps: int) -> None:
    """Check before any training that a scheduler works.

    Args:
        name: Name of the scheduler.
        own: The task's own schedulers by name.
        peak: Peak learning rate, > 0.
        steps: Optimizer steps of the fine-tune.

    Raises:
        UnknownNameError: There is no scheduler of that name.
        ConfigurationError: The scheduler fails; the message names it.
    """
    factory = scheduler(name, own)
    try:
        simulate(factory, peak, steps)
    except ConfigurationError as error:
        raise ConfigurationError(f"scheduler {name!r}: {error}") from error


def _peak(optimizer: Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def _build(factory: SchedulerFactory, optimizer: Optimizer, steps: int) -> LRScheduler:
    what = "the function of a scheduler"
    try:
        made: object = factory(optimizer, steps)
    except (Exception, SystemExit) as error:  # the user's factory may raise anything
        got = describe_exception(error)
        raise ConfigurationError(error_message(what, "build one from (optimizer, steps)", got)) from error
    if not isinstance(made, LRScheduler):
        got, remedy = type(made).__name__, "Return a torch.optim.lr_scheduler.LRScheduler."
        raise ConfigurationError(error_message(what, "return a scheduler", got, remedy))
    if made.optimizer is not optimizer:
        raise ConfigurationError(
            error_message(what, "build it on the optimizer that it is given", "one on another optimizer")
        )
    return made


def _needs_loss(made: LRScheduler) -> bool:
    """Whether `step` requires a metric: torch's convention for schedulers that depend on the loss."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(made.step).parameters.values()
    return any(parameter.default is inspect.Parameter.empty and parameter.kind in kinds for parameter in parameters)
