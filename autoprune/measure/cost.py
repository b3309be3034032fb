"""Size and multiply-adds of a model as it is."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.task.checkpoint import serialize
from autoprune.task.data import Inputs, call, evaluating


def count_parameters(model: nn.Module) -> int:
    """Distinct parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def count_multiply_adds(model: nn.Module, inputs: Inputs) -> int:
    """Multiply-adds of one call, by torch's own flop counter (which counts two flops for each)."""
    with evaluating(model), FlopCounterMode(display=False) as counter:
        call(model, inputs)
    return int(counter.get_total_flops()) // 2


def serialized_bytes(model: nn.Module) -> int:
    """Length of the model's safetensors file."""
    return len(serialize(model.state_dict()))
