"""Scale weights whose norm exceeds a limit back to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.plan.recovery import NORM_SCOPES, RecoveryPlan
from autoprune.recovery.step import RecoveryState, RecoveryStep

#: Share of a dtype's eps: rounding to nearest moves an entry by half of it at most.
_ROUNDING = 0.51
#: Multiple of the eps of the computed norms: a generous bound of how far two sums of the same squares differ.
_SUMMING = 64


class MaxNorm(RecoveryStep):
    """Keep the norms of weights within a limit: after pruning, before the fine-tune and after each of its steps."""

    def __init__(self, plan: RecoveryPlan) -> None:
        self.settings = plan.max_norm

    def after_pruning(self, state: RecoveryState) -> None:
        """Scale weights back, and say whether any was scaled."""
        state.weights_changed = self._limit(state) > 0 or state.weights_changed

    def before_training(self, state: RecoveryState) -> None:
        """Scale weights back that no pruning step has reached yet."""
        self._limit(state)

    def each_step(self, state: RecoveryState) -> None:
        """Scale weights back that an optimizer step has made larger."""
        self._limit(state)

    def _limit(self, state: RecoveryState) -> int:
        return limit_norms(state.model, self.settings.limit, per=self.settings.per)


@torch.no_grad()
def limit_norms(model: nn.Module, limit: float, *, per: str = "channel") -> int:
    """Scale every weight with a larger L2 norm back to `limit`, in place.

    Biases, scales and shifts of norms, and frozen weights are unchanged. A scaled norm is at most the limit, and below
    it
    by less than the rounding of the weights' dtype: a second call changes nothing.
    Source: Srebro and Shraibman, Rank, Trace-Norm and Max-Norm, 2005; Srivastava et al., Dropout, 2014.

    Args:
        model: The model, changed in place.
        limit: Largest L2 norm, > 0, in the unit of the weights.
        per: "channel" for the norm of each filter that makes one output, "layer" for the norm of each weight tensor.

    Returns:
        How many norms were scaled.

    Raises:
        ConfigurationError: The limit is not > 0.
        UnknownNameError: `per` is neither of these.
    """
    if per not in NORM_SCOPES:
        raise UnknownNameError("a scope of norms", per, NORM_SCOPES)
    if not limit > 0:
        raise ConfigurationError(error_message("the limit of a norm", "be > 0", limit))
    scaled = 0
    for module in model.modules():
        made = 1 if isinstance(module, nn.modules.conv._ConvTransposeNd) and module.groups == 1 else 0
        for parameter in module.parameters(recurse=False):
            if parameter.ndim > 1 and parameter.requires_grad:
                scaled += _limit(parameter, limit, made if per == "channel" else None)
    return scaled


def _limit(weight: Tensor, limit: float, axis: int | None) -> int:
    others = [dim for dim in range(weight.ndim) if dim != axis]
    # The widest dtype of the device: half precision would round the norm and the factor, too.
    wide = torch.float32 if weight.device.type == "mps" else torch.float64
    norms = torch.linalg.vector_norm(weight, dim=others, keepdim=True, dtype=wide)
    over = norms > limit
    if not over.any():
        return 0
    # Less than one rounding below the limit: rounding the entries cannot bring the norm above it again.
    off = _ROUNDING * torch.finfo(weight.dtype).eps + _SUMMING * torch.finfo(wide).eps
    inside = limit * (1.0 - off)
    weight.mul_(torch.where(over, inside / norms, 1.0))
    return int(over.sum())
