"""Inputs of a latency profile, made from the example inputs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigurationError, describe_exception, error_message
from autoprune.records.profile import LatencyProfile
from autoprune.task.checkpoint import bytes_of, model_tensors
from autoprune.task.data import Inputs, call
from autoprune.task.nested import first_tensor, map_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedInputs:
    """Inputs of one size.

    Attributes:
        size: The size; None for that of the example inputs.
        weight: Share of the calls that have it.
        inputs: Inputs of a call.
    """

    size: int | None
    weight: float
    inputs: Inputs


def tensors_of(value: object) -> list[Tensor]:
    """List the tensors of nested data.

    Args:
        value: Tensors in mappings, tuples, lists, or objects with fields.

    Returns:
        The tensors, in order.
    """
    leaves, _ = torch.utils._pytree.tree_flatten(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def memory_bytes(model: nn.Module) -> int:
    """Sum the bytes of the parameters and buffers of a model.

    Args:
        model: The model.

    Returns:
        The bytes.
    """
    return bytes_of(model_tensors(model))


def copied(inputs: Inputs) -> Inputs:
    """Copy the tensors of inputs to another place in memory.

    Args:
        inputs: The inputs.

    Returns:
        The copy.
    """
    return _mapped(inputs, lambda tensor: tensor.detach().clone())


def as_dtype(inputs: Inputs, dtype: str | None) -> Inputs:
    """Convert the real tensors of inputs to a number type.

    Args:
        inputs: The inputs.
        dtype: Name of the type; None to leave them.

    Returns:
        The inputs; integers stay as they are.
    """
    if dtype is None:
        return inputs
    kind: torch.dtype = getattr(torch, dtype)
    return _mapped(inputs, lambda tensor: tensor.to(kind) if tensor.is_floating_point() else tensor)


def profile_inputs(inputs: Inputs, profile: LatencyProfile) -> tuple[SizedInputs, ...]:
    """Make the inputs of a profile by repeating or cutting the example inputs.

    The samples of every tensor that has as many as the first one are repeated or cut to the batch size. A size is given
    to each of the profile's axes of every tensor that is as long there as the first tensor that has these axes.

    Args:
        inputs: Example inputs.
        profile: The profile.

    Returns:
        Inputs of each size; the weights sum to 1.

    Raises:
        ConfigurationError: The example inputs have no samples or no such axes.
    """
    if profile.batch_size is not None:
        inputs = _with_samples(inputs, profile.batch_size, profile.name)
    inputs = as_dtype(inputs, profile.dtype)
    if not profile.sizes:
        return (SizedInputs(size=None, weight=1.0, inputs=inputs),)
    total = sum(weight for _, weight in profile.sizes)
    return tuple(
        SizedInputs(size=size, weight=weight / total, inputs=_with_size(inputs, size, profile))
        for size, weight in profile.sizes
    )


def check_inputs(model: nn.Module, inputs: tuple[SizedInputs, ...], profile: LatencyProfile) -> None:
    """Run a model once on inputs of each size.

    Args:
        model: Dense model in eval mode, of the profile's number type.
        inputs: Inputs of each size.
        profile: The profile, for messages.

    Raises:
        ConfigurationError: The model fails on a size, batch size or number type.
    """
    for one in inputs:
        try:
            with torch.inference_mode():
                call(model, one.inputs)
        except Exception as error:  # the user's model may raise anything
            given = "".join(_told(profile, one.size))
            expected = f"be one that the model runs on; it was called with {given or 'its example inputs'}"
            got = describe_exception(error, 500)
            raise ConfigurationError(error_message(f"the latency profile {profile.name}", expected, got)) from error


def _told(profile: LatencyProfile, size: int | None) -> Iterator[str]:
    parts = {"batch_size": profile.batch_size, "dtype": profile.dtype, "size": size}
    yield ", ".join(f"{name}={value}" for name, value in parts.items() if value is not None)


def _with_samples(inputs: Inputs, samples: int, name: str) -> Inputs:
    first = first_tensor(inputs)
    if first is None or first.ndim == 0:
        expected = "be None where the example inputs hold no tensor with samples along axis 0"
        raise ConfigurationError(error_message(f"batch_size of the latency profile {name}", expected, samples))
    length = len(first)
    return _mapped(inputs, lambda tensor: _resized(tensor, (0, length), samples, name))


def _with_size(inputs: Inputs, size: int, profile: LatencyProfile) -> Inputs:
    axes = profile.axes
    with_axes = [tensor for tensor in tensors_of(inputs) if tensor.ndim > max(axes)]
    if not with_axes:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors_of(inputs)) or "no tensor"
        raise ConfigurationError(
            error_message(f"axes of the latency profile {profile.name}", "be axes of an input", f"{axes} of {shapes}")
        )
    shape = with_axes[0].shape

    def change(tensor: Tensor) -> Tensor:
        for axis in axes:
            tensor = _resized(tensor, (axis, shape[axis]), size, profile.name)
        return tensor

    return _mapped(inputs, change)


def _resized(tensor: Tensor, along: tuple[int, int], size: int, profile: str) -> Tensor:
    """Repeat or cut a tensor along an axis, if it has this length there. along: axis, and length."""
    axis, length = along
    if tensor.ndim <= axis or tensor.shape[axis] != length or length == 0:
        return tensor
    needed = tensor.nbytes / length * size
    if needed > _memory():
        expected = "fit into the memory of this machine"
        raise ConfigurationError(
            error_message(
                f"inputs of the latency profile {profile}, of {size:,} along axis {axis},",
                expected,
                f"{needed / 2**30:,.0f} GiB",
            )
        )
    return tensor.index_select(axis, torch.arange(size, device=tensor.device) % length)


def _memory() -> float:
    """Return the bytes of memory of the machine; infinite where that is unknown."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _mapped(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    return map_tensors(inputs, change)  # type: ignore[return-value]  # the same type
