"""Size, zeros and multiply-adds of a model as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.task.checkpoint import serialize, serialize_smallest
from autoprune.task.data import Inputs, call, evaluating
from autoprune.trace.running import plain_operators


def count_parameters(model: nn.Module) -> int:
    """Distinct parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def count_nonzero(model: nn.Module) -> int:
    """Entries of distinct parameters that are not zero."""
    return sum(int((parameter != 0).sum()) for parameter in model.parameters())


@torch.no_grad()
def count_multiply_adds(model: nn.Module, inputs: Inputs) -> int:
    """Multiply-adds of one call, by torch's own flop counter (which counts two flops for each).

    Operators that stand for whole layers are taken apart for it, as it knows nothing of some of them.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_UNCOUNTED)
    # The counter hooks the gradients of what modules are given, and cannot where that is a parameter itself.
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        with evaluating(model), plain_operators(model), counter:
            call(model, inputs)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return int(counter.get_total_flops()) // 2


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object) -> int:
    """Two products for each head: queries with keys, and what comes of it with values."""
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
    """nn.Bilinear: one product over every axis of its three inputs."""
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
    """Every token meets one of the experts."""
    return int(2 * math.prod(tokens) * experts[-1])


#: Operators that torch 2.13's counter leaves out, by their inputs' shapes.
_UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._grouped_mm: _grouped_flops,
    torch.ops.aten._trilinear: _three_way_flops,
}


def serialized_bytes(model: nn.Module) -> int:
    """Length of the model's plain safetensors file."""
    return len(serialize(model.state_dict()))


def stored_bytes(model: nn.Module) -> int:
    """Length of the file that a run folder holds of the model, which is compressed where that makes it smaller."""
    return len(serialize_smallest(model.state_dict()))
