"""Checks of stored weights beside names and shapes: the model's dtypes, finite values, variances >= 0."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor


def misfit_faults(weights: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> list[str]:
    """Compare stored weights with the tensors of a model. Tensors that only one of the two has are not compared.

    Args:
        weights: Stored tensors by name.
        model: The model's tensors by name. Where these are not finite, as in a mask of attention, stored ones need not
            be.

    Returns:
        One clause per tensor that does not fit.
    """
    found = []
    for name, tensor in weights.items():
        own = model.get(name)
        if own is None:
            continue
        if tensor.dtype != own.dtype:
            found.append(f"{name} has dtype {_short(tensor.dtype)} instead of {_short(own.dtype)}")
        elif not is_finite(tensor) and is_finite(own):
            found.append(f"{name} holds values that are not finite")
        elif _is_negative(name, tensor):
            found.append(f"{name} holds variances below 0")
    return found


def value_faults(weights: Mapping[str, Tensor], may_be_infinite: Collection[str] | None) -> list[str]:
    """Check weights without their model.

    Args:
        weights: Tensors by name.
        may_be_infinite: Names of tensors that need not be finite; None if they are not known, and only NaN is a fault.

    Returns:
        One clause per fault.
    """
    found = []
    for name, tensor in weights.items():
        if may_be_infinite is None:
            wrong = tensor.is_floating_point() and bool(tensor.isnan().any())
        else:
            wrong = name not in may_be_infinite and not is_finite(tensor)
        if wrong:
            found.append(f"{name} holds values that are not finite")
        elif _is_negative(name, tensor):
            found.append(f"{name} holds variances below 0")
    return found


def is_finite(tensor: Tensor) -> bool:
    """Tell whether no entry is NaN or infinite.

    Args:
        tensor: Any tensor.

    Returns:
        Whether all entries are finite.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    wide = tensor.float() if tensor.element_size() == 1 else tensor  # torch has no isfinite for 8-bit floats
    return bool(torch.isfinite(wide).all())


def _is_negative(name: str, tensor: Tensor) -> bool:
    """Whether the tensor is the running variance of a norm with an entry below 0."""
    return name.rpartition(".")[2] == "running_var" and bool((tensor < 0).any())


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
