"""Weights and normalisation statistics at random, such that every channel has a part in the outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoprune.task.data import Inputs, call
from autoprune.trace.values import clone_inputs

_BatchNorm = nn.modules.batchnorm._NormBase


@torch.no_grad()
def stir(model: nn.Module, inputs: Inputs) -> nn.Module:
    """Give a model other weights, in place: as made, scales are one or next to zero, and channels look alike.

    Matrices have unit gain; running means and variances are those of the inputs, and off by up to a factor of two.
    """
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        if parameter.ndim >= 2 and not name.endswith("original0"):  # the lengths of a weight norm
            parameter.normal_(0, (parameter.shape[0] / parameter.numel()) ** 0.5)
        elif name.endswith("bias"):
            parameter.normal_(0, 0.2)
        else:
            parameter.uniform_(0.5, 1.5)
    # A copy runs, as models may keep what they computed.
    scratch = copy.deepcopy(model).eval()
    for module in scratch.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.register_forward_pre_hook(_measured())
    call(scratch, clone_inputs(inputs))
    model.load_state_dict(scratch.state_dict())
    return model.eval()


def _measured() -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        mean, variance = module.get_buffer("running_mean"), module.get_buffer("running_var")
        values = args[0].movedim(1, 0).flatten(1)
        spread = values.var(1, correction=0)
        spread = spread + 0.1 * spread.mean() + 1e-6  # a channel that is silent here is not to be loud elsewhere
        mean.copy_(values.mean(1) + 0.3 * spread.sqrt() * torch.randn_like(mean))
        variance.copy_(spread * torch.empty_like(variance).uniform_(0.5, 2))

    return hook
