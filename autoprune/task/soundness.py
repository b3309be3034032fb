"""What stored weights must be beside their names and shapes: of the model's dtypes, finite, with variances >= 0."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

#: Tensors that a message names.
_NAMED = 3


def misfits(weights: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> list[str]:
    """List what is wrong with stored weights, tensor by tensor; those that only one of the two has are not looked at.

    Args:
        weights: Stored tensors by name.
        model: The tensors that they take the place of. What is not finite there, as a mask of attention, may be so.

    """
    found = []
    for name, tensor in weights.items():
        own = model.get(name)
        if own is None:
            continue
        if tensor.dtype != own.dtype:
            found.append(f"{name} is of {_short(tensor.dtype)}, not {_short(own.dtype)}")
        elif not is_finite(tensor) and is_finite(own):
            found.append(f"{name} holds numbers that are not finite")
        elif _is_negative(name, tensor):
            found.append(f"{name} holds variances below 0")
    return found


def unsound(weights: Mapping[str, Tensor], may_be_infinite: Collection[str] | None) -> list[str]:
    """List what is wrong with weights whose model is not at hand.

    Args:
        weights: Tensors by name.
        may_be_infinite: Names of those that need not be finite; None where that is not known, and only NaN is wrong.

    """
    found = []
    for name, tensor in weights.items():
        if may_be_infinite is None:
            wrong = tensor.is_floating_point() and bool(tensor.isnan().any())
        else:
            wrong = name not in may_be_infinite and not is_finite(tensor)
        if wrong:
            found.append(f"{name} holds numbers that are not finite")
        elif _is_negative(name, tensor):
            found.append(f"{name} holds variances below 0")
    return found


def is_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    wide = tensor.float() if tensor.element_size() == 1 else tensor  # torch has no isfinite for numbers of a byte
    return bool(torch.isfinite(wide).all())


def told(faults: Collection[str]) -> str:
    """The first few faults in one line."""
    first = [*faults][:_NAMED]
    more = f"; {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    return f"{'; '.join(first)}{more}"


def _is_negative(name: str, tensor: Tensor) -> bool:
    """Whether it is the running variance of a norm, and below 0 somewhere."""
    return name.rpartition(".")[2] == "running_var" and bool((tensor < 0).any())


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
