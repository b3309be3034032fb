"""Tensors nested in mappings, tuples and lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def first_tensor(value: object) -> Tensor | None:
    """Find the first tensor in nested data.

    Args:
        value: Tensors in mappings, tuples and lists.

    Returns:
        The tensor; None if there is none.
    """
    if isinstance(value, Tensor):
        return value
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    for item in items:
        tensor = first_tensor(item)
        if tensor is not None:
            return tensor
    return None


def is_along_first(value: object, size: int) -> bool:
    """Tell whether every tensor has its samples along the first axis, and no other object could hold one value per
    sample.

    Args:
        value: Nested data.
        size: Number of samples.

    Returns:
        Whether the data can be cut by sample.
    """
    if isinstance(value, Tensor):
        return value.ndim == 0 or len(value) == size
    if isinstance(value, Mapping):
        return all(is_along_first(item, size) for item in value.values())
    if isinstance(value, tuple | list):
        return all(is_along_first(item, size) for item in value)
    return value is None or isinstance(value, bool | int | float)


def to_device(value: object, device: torch.device) -> object:
    """Move every tensor to a device.

    Args:
        value: Nested data.
        device: The device.

    Returns:
        The same structure with moved tensors.
    """
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return _like(value, [to_device(item, device) for item in value])
    return value


def narrow(value: object, size: int) -> object:
    """Cut every tensor to its first samples.

    Args:
        value: Nested data.
        size: Number of samples that stay.

    Returns:
        The same structure with shorter tensors.
    """
    if isinstance(value, Tensor):
        return value[:size] if value.ndim else value
    if isinstance(value, Mapping):
        return {key: narrow(item, size) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return _like(value, [narrow(item, size) for item in value])
    return value


def _like(value: tuple[object, ...] | list[object], items: list[object]) -> object:
    """The items in a tuple, list or named tuple of the type of `value`."""
    make: Callable[..., object] = type(value)
    return make(*items) if hasattr(value, "_fields") else make(items)
