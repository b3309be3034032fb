"""Costs of a model: parameters, non-zero parameters, multiply-adds and bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.task.checkpoint import serialize, serialize_smallest
from autoprune.task.data import Inputs, call, eval_mode
from autoprune.trace.running import plain_operators


def count_parameters(model: nn.Module) -> int:
    """Count the distinct parameters.

    Args:
        model: Any model.

    Returns:
        Number of entries.
    """
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def count_nonzero(model: nn.Module) -> int:
    """Count the entries of distinct parameters that are not zero.

    Args:
        model: Any model.

    Returns:
        Number of entries.
    """
    return sum(int((parameter != 0).sum()) for parameter in model.parameters())


@torch.no_grad()
def count_multiply_adds(model: nn.Module, inputs: Inputs) -> int:
    """Count the multiply-adds of one call by torch's flop counter, which counts two flops for each.

    Operators that stand for whole layers are decomposed, as the counter does not know all of them.

    Args:
        model: Any model.
        inputs: Inputs of the call.

    Returns:
        Number of multiply-adds; multiplications by zero count, too.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_UNCOUNTED)
    # The counter hooks the gradients of modules' inputs, which fails where an input is a parameter.
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        with eval_mode(model), plain_operators(model), counter:
            call(model, inputs)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return int(counter.get_total_flops()) // 2


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object) -> int:
    """Count two products for each head: queries with keys, and the result with values."""
    return int(2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


def _three_way_flops(
    first: Sequence[int],
    second: Sequence[int],
    third: Sequence[int],
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    *_: object,
    **__: object,
) -> int:
    """Count nn.Bilinear: one product over every axis of its three inputs."""
    shapes: list[list[int]] = []
    for shape, places in ((first, expand1), (second, expand2), (third, expand3)):
        sizes = list(shape)
        for place in sorted(places):
            sizes.insert(place, 1)
        shapes.append(sizes)
    flops = 2
    for axis in range(len(shapes[0])):
        flops *= max(sizes[axis] for sizes in shapes)
    return flops


def _grouped_flops(tokens: Sequence[int], experts: Sequence[int], *_: object, **__: object) -> int:
    """Count one expert for each token."""
    return int(2 * math.prod(tokens) * experts[-1])


#: Operators that torch 2.13's counter leaves out, by their inputs' shapes.
_UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._grouped_mm: _grouped_flops,
    torch.ops.aten._trilinear: _three_way_flops,
}


def serialized_bytes(model: nn.Module) -> int:
    """Measure the length of the model's plain safetensors file.

    Args:
        model: Any model.

    Returns:
        Bytes.
    """
    return len(serialize(model.state_dict()))


def stored_bytes(model: nn.Module) -> int:
    """Measure the length of the model's file in a run folder, which is compressed where that is smaller.

    Args:
        model: Any model.

    Returns:
        Bytes.
    """
    return len(serialize_smallest(model.state_dict()))
