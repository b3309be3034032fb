"""Re-estimate running statistics after a cut."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from autoprune.task.data import Batch, call


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Batch]) -> int:
    """Replace the running mean and variance of every norm that keeps them by plain averages over `batches`.

    The model is changed in place; training mode, dropout and momentum are as before. Returns the number of
    samples seen, 0 for a model without such norms. Source: Li et al., EagleEye, 2020.
    """
    norms = [module for module in model.modules() if isinstance(module, _NormBase) and module.running_mean is not None]
    usable = [batch for batch in batches if batch.size >= 2]  # the variance of one sample is not defined
    if not norms or not usable:
        return 0
    modes = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # None: cumulative average, every batch counts the same
        norm.train()
    samples = 0
    try:
        for batch in usable:
            call(model, batch.inputs)
            samples += batch.size
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm, momentum in momenta.items():
            norm.momentum = momentum
    return samples
