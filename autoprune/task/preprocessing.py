"""Preprocessing fitted to the train split alone, so that nothing leaks from search or test."""

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

    Attributes:
        shift: Tensor that broadcasts over a batch [N, ...].
        scale: Tensor that broadcasts over a batch [N, ...], > 0.

    Example:
        >>> import torch
        >>> from autoprune import Scaler
        >>> Scaler(shift=torch.tensor([1.0]), scale=torch.tensor([2.0]))(torch.tensor([[5.0]]))
        tensor([[2.]])
    """

    shift: Tensor
    scale: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        """Scale a batch.

        Args:
            inputs: [N, ...].

        Returns:
            A new tensor of the same shape.
        """
        return (inputs - self.shift.to(inputs.device)) / self.scale.to(inputs.device)


def fit_standardize(train: Tensor, *, scope: Scope = "channel") -> Scaler:
    """Fit a scaler to zero mean and unit variance.

    Args:
        train: Inputs of the train split, floating point [N, ...].
        scope: "channel" shares the numbers over every axis but 1, "feature" has separate numbers for each position of a
            sample, "all" has one number for the whole tensor. A constant channel is shifted, not scaled.

    Returns:
        The scaler.

    Raises:
        ConfigurationError: The tensor is empty or not floating point, or the scope is unknown.

    Example:
        >>> import torch
        >>> from autoprune import fit_standardize
        >>> scaler = fit_standardize(torch.tensor([[1.0, 10.0], [3.0, 30.0]]), scope="feature")
        >>> scaler(torch.tensor([[3.0, 10.0]]))
        tensor([[ 1., -1.]])
    """
    dims = _reduced(train, scope)
    shift = train.mean(dim=dims, keepdim=True)
    scale = train.std(dim=dims, keepdim=True, correction=0)
    return Scaler(shift=shift, scale=_safe(scale))


def fit_normalize(train: Tensor, *, scope: Scope = "all") -> Scaler:
    """Fit a scaler that maps the range of the training data to [0, 1].

    Args:
        train: Inputs of the train split, floating point [N, ...].
        scope: As for `fit_standardize`.

    Returns:
        The scaler.

    Raises:
        ConfigurationError: The tensor is empty or not floating point, or the scope is unknown.

    Example:
        >>> import torch
        >>> from autoprune import fit_normalize
        >>> fit_normalize(torch.tensor([[0.0], [4.0]]))(torch.tensor([[1.0]]))
        tensor([[0.2500]])
    """
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
