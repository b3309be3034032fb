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
    return map_tensors(value, lambda tensor: tensor.to(device, non_blocking=True))


def narrow(value: object, size: int) -> object:
    """Cut every tensor to its first samples.

    Args:
        value: Nested data.
        size: Number of samples that stay.

    Returns:
        The same structure with shorter tensors.
    """
    return map_tensors(value, lambda tensor: tensor[:size] if tensor.ndim else tensor)


def map_tensors(value: object, change: Callable[[Tensor], Tensor]) -> object:
    """Apply a function to every tensor.

    Args:
        value: Tensors in mappings, tuples and lists.
        change: The function.

    Returns:
        The same structure; named tuples keep their type, mappings become dicts.
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [map_tensors(item, change) for item in value]
        make: Callable[..., object] = type(value)
        return make(*items) if hasattr(value, "_fields") else make(items)
    return value


def arguments(inputs: object) -> tuple[tuple[object, ...], dict[str, object]]:
    """Split inputs into the arguments of a call.

    Args:
        inputs: A tensor, tuple or mapping.

    Returns:
        Positional arguments, which are none for a mapping, and arguments by name.
    """
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}
