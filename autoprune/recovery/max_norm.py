"""Weights whose norm has grown past a limit are scaled back onto it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigurationError, UnknownNameError, fault
from autoprune.plan.recovery import NORM_SCOPES


@torch.no_grad()
def limit_norms(model: nn.Module, limit: float, *, per: str = "channel") -> int:
    """Scale every weight with a larger L2 norm back to `limit`, in place; gives how many were scaled.

    limit: > 0, in the unit of the weights. per: "channel", each filter that makes an output by itself, or "layer", each
    weight tensor as a whole. Biases, scales and shifts of norms, and weights that are not trained stay as they are.
    Raises ConfigurationError for another limit, UnknownNameError for another scope.
    Source: Srebro and Shraibman, Rank, Trace-Norm and Max-Norm, 2005; Srivastava et al., Dropout, 2014.
    """
    if per not in NORM_SCOPES:
        raise UnknownNameError("what a norm is taken of", per, NORM_SCOPES)
    if not limit > 0:
        raise ConfigurationError(fault("the limit of a norm", "be > 0", limit))
    scaled = 0
    for module in model.modules():
        made = 1 if isinstance(module, nn.modules.conv._ConvTransposeNd) and module.groups == 1 else 0
        for parameter in module.parameters(recurse=False):
            if parameter.ndim > 1 and parameter.requires_grad:
                scaled += _limit(parameter, limit, made if per == "channel" else None)
    return scaled


def _limit(weight: Tensor, limit: float, axis: int | None) -> int:
    others = [dim for dim in range(weight.ndim) if dim != axis]
    norms = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
    over = norms > limit
    weight.mul_(torch.where(over, limit / norms.clamp_min(torch.finfo(norms.dtype).tiny), 1.0))
    return int(over.sum())
