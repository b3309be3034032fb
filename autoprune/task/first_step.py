"""The first training step of a task, and the smallest batch that it works on."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigurationError, error_message
from autoprune.task.clone import clone_with
from autoprune.task.data import Batch, call, shorten
from autoprune.task.task import Task
from autoprune.task.validation import run_user_code


def least_batch(task: Task, dense: nn.Module, batch: Batch) -> int:
    """Find the smallest batch that the model can be trained on.

    A BatchNorm that reads one value per channel refuses a single sample, and so do some norms and losses of users.

    Args:
        task: The task.
        dense: The model, which is not changed.
        batch: A batch of train.

    Returns:
        Its samples, 1 or 2.

    Raises:
        ConfigurationError: The model cannot even be trained on this batch.
    """
    try:
        _train_step(task, dense, batch, "a batch of train")
    except ConfigurationError as error:
        if batch.size > 1:
            raise
        raise ConfigurationError(f"{error} Its batches hold one sample: make them larger.") from error
    if batch.size == 1:
        return 1
    if not batch.divisible:
        return 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _train_step(task, dense, shorten(batch, 1), "one sample")
        except ConfigurationError:
            return 2
    return 1


@torch.enable_grad()
def _train_step(task: Task, dense: nn.Module, batch: Batch, what: str) -> None:
    """Run a forward in training mode and a backward on a copy. Some errors, such as those of BatchNorm, show only
    there.
    """
    scratch = clone_with(dense).train()
    if not any(parameter.requires_grad for parameter in scratch.parameters()):
        return
    with torch.random.fork_rng(devices=[]):
        outputs = run_user_code(f"the model in training mode on {what}", lambda: call(scratch, batch.inputs))
        loss = run_user_code("loss on train", lambda: task.loss(outputs, batch.targets))
        if isinstance(loss, Tensor) and loss.requires_grad:
            if not math.isfinite(float(loss.detach())):
                raise ConfigurationError(error_message("loss in training mode", "be finite", float(loss.detach())))
            run_user_code("the backward pass of the loss on train", loss.backward)
