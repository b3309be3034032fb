"""Preprocessing whose numbers come from the train split alone, so that nothing of search or test leaks in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from autoprune.errors import ConfigurationError, error_message

Scope = Literal["channel", "feature", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaler:
    """An affine map (x - shift) / scale, fitted once and applied to any split.

    shift, scale: tensors that broadcast over a batch.
    """

    shift: Tensor
    scale: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        """Scale a batch [N, ...]; returns a new tensor of the same shape."""
        return (inputs - self.shift.to(inputs.device)) / self.scale.to(inputs.device)


def fit_standardize(train: Tensor, *, scope: Scope = "channel") -> Scaler:
    """Zero mean and unit variance on train [N, ...].

    scope: "channel" shares the numbers over every axis but 1, "feature" has its own for each position
        of a sample, "all" has one for the whole tensor. A constant channel is shifted, not scaled.
    """
    dims = _reduced(train, scope)
    shift = train.mean(dim=dims, keepdim=True)
    scale = train.std(dim=dims, keepdim=True, correction=0)
    return Scaler(shift=shift, scale=_safe(scale))


def fit_normalize(train: Tensor, *, scope: Scope = "all") -> Scaler:
    """Map the range that train [N, ...] covers onto [0, 1]; `scope` as in `fit_standardize`."""
    dims = _reduced(train, scope)
    low = train.amin(dim=dims, keepdim=True)
    return Scaler(shift=low, scale=_safe(train.amax(dim=dims, keepdim=True) - low))


def _reduced(train: Tensor, scope: Scope) -> list[int]:
    if train.ndim < 1 or len(train) == 0 or not train.is_floating_point():
        raise ConfigurationError(
            error_message(
                "the data to fit on",
                "be a non-empty floating point tensor [N, ...]",
                f"{train.dtype} {tuple(train.shape)}",
            )
        )
    if scope == "all":
        return list(range(train.ndim))
    if scope == "feature":
        return [0]
    if scope == "channel":
        return [dim for dim in range(train.ndim) if dim != 1]
    raise ConfigurationError(error_message("scope", "be one of all, channel, feature", repr(scope)))


def _safe(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))
