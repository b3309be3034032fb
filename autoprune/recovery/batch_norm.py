"""Re-estimate running statistics of norms after a cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from autoprune.plan.recovery import RecoveryPlan
from autoprune.records.work import Work
from autoprune.recovery.step import RecoveryState, RecoveryStep, first_samples
from autoprune.task.data import Batch, call, eval_mode


class Recalibration(RecoveryStep):
    """Re-estimate running statistics after pruning, where training does not do so anyway, and at the end."""

    def __init__(self, plan: RecoveryPlan) -> None:
        self.settings = plan.recalibration

    def after_pruning(self, state: RecoveryState) -> None:
        """Re-estimate after a cut, before the first optimizer step, and where no training follows."""
        no_training_follows = not state.steps_left
        due = state.channels_changed or (state.weights_changed and no_training_follows)
        if due or (not state.is_training and (state.steps_left > 0 or state.weights_changed)):
            self._recalibrate(state)

    def at_end(self, state: RecoveryState) -> None:
        """Re-estimate where another step has changed the weights."""
        if state.weights_changed:
            self._recalibrate(state)

    def _recalibrate(self, state: RecoveryState) -> None:
        with state.timer.phase("recalibrate"):
            batches = first_samples(state.task, self.settings.samples)
            state.work += Work(forward=recalibrate(state.model, batches, state.task.least_batch))


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Batch], least: int = 2) -> int:
    """Replace the running mean and variance of every norm that keeps them by plain averages over `batches`.

    These norms are BatchNorm of any dimension, SyncBatchNorm, InstanceNorm with track_running_stats, and any module
    with the same attributes, whether scale and shift are trained or frozen. Norms with constant statistics
    (torchvision's FrozenBatchNorm2d) and norms that no batch reaches are unchanged. A norm that is called several times
    gets the average over all its calls. Training mode, dropout and momentum are restored. Batches of one sample are
    left
    out if there are larger ones.
    Source: Li et al., EagleEye, 2020.

    Args:
        model: The model, changed in place.
        batches: Samples of the train split.
        least: Samples of the smallest batch whose variance is defined; 1 where norms read several values of each
            sample.

    Returns:
        Number of samples seen; 0 for a model without such norms.
    """
    norms = [module for module in model.modules() if keeps_statistics(module)]
    given = list(batches)
    usable = [batch for batch in given if batch.size >= 2] or [batch for batch in given if batch.size >= least]
    if not norms or not usable:
        return 0
    with eval_mode(model), ExitStack() as stack:
        for norm in norms:
            stack.callback(setattr, norm, "momentum", norm.momentum)
            stack.callback(norm.register_forward_pre_hook(_averaging()).remove)
            norm.training = True  # not train(), which would switch on a dropout inside
        for batch in usable:
            call(model, batch.inputs)
    return sum(batch.size for batch in usable)


def keeps_statistics(module: nn.Module) -> TypeGuard[_NormBase]:
    """Tell whether a module is a norm that moves its statistics in training mode.

    Args:
        module: Any module.

    Returns:
        True for torch's norms with running statistics, and for modules with the same attributes.
    """
    statistics = (getattr(module, "running_mean", None), getattr(module, "running_var", None))
    return (
        all(isinstance(values, Tensor) for values in statistics)
        and hasattr(module, "momentum")
        and hasattr(module, "reset_running_stats")
        and getattr(module, "track_running_stats", True) is True
    )


def _averaging() -> Callable[[_NormBase, object], None]:
    """A hook before each forward: call n moves the statistics by 1 / n, and call 1 replaces them.

    momentum = None would do the same for BatchNorm, but InstanceNorm takes it for 0.
    """
    calls = 0

    def start(norm: _NormBase, args: object) -> None:
        nonlocal calls
        del args
        if calls == 0:
            norm.reset_running_stats()  # values that are not finite would stay so
        calls += 1
        norm.momentum = 1 / calls

    return start
