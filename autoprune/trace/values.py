"""Walk through the tensors in nested inputs and outputs of models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from autoprune.errors import TraceError
from autoprune.task.data import Inputs


def tensors_in(value: object) -> list[Tensor]:
    """List the tensors in nested tuples, lists, mappings and objects with fields.

    Args:
        value: Any value.

    Returns:
        The tensors, in order.
    """
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in tensors_in(item)]
    if hasattr(value, "__dataclass_fields__"):
        return [tensor for name in value.__dataclass_fields__ for tensor in tensors_in(getattr(value, name))]
    return []


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters, then the buffers of a model.

    Args:
        model: The model.

    Yields:
        (name, tensor).
    """
    yield from model.named_parameters()
    yield from model.named_buffers()


def outputs_in(value: object) -> list[Tensor]:
    """List the tensors among a model's outputs; attributes of an object count if there are no others.

    Args:
        value: Output of the model.

    Returns:
        The tensors, in order.

    Raises:
        TraceError: If there are no tensors with values.
    """
    found = tensors_in(value) or tensors_in(getattr(value, "__dict__", {}))
    if not any(tensor.numel() for tensor in found):
        raise TraceError(
            "the model must give tensors with values in them, alone or in tuples, lists, mappings or objects with "
            f"fields, but got {type(value).__name__} without any"
        )
    return found


def clone_inputs(value: Inputs) -> Inputs:
    """Clone the tensors of nested inputs, as a model may change its inputs in place.

    Args:
        value: The inputs.

    Returns:
        The same structure with new tensors.
    """
    return map_tensors(value, torch.clone)


def map_tensors(value: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Apply a function to every tensor of nested inputs.

    Args:
        value: The inputs.
        change: The function.

    Returns:
        The same structure with the results.
    """
    return _mapped(value, change)  # type: ignore[return-value]  # of the same shape


def _mapped(value: object, change: Callable[[Tensor], Tensor]) -> object:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(_mapped(item, change) for item in value)
    if isinstance(value, tuple | list):
        return type(value)(_mapped(item, change) for item in value)
    return value
