"""Discovered topologies of the models that the tests share, kept for the run: a topology is plain data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from autoprune.proof import discover
from autoprune.structure.topology import Topology
from autoprune.task.data import Inputs

#: Modules whose classes compute the same each time that they are called, and nothing else.
_PLAIN = ("torch.nn.", "tests.zoo.convolutional")
_KNOWN: dict[str, Topology] = {}


@contextmanager
def kept_for_the_run() -> Iterator[None]:
    """Let a study discover each of the shared models once in a process, whichever test makes the study.

    Models of other classes, and models with hooks, are discovered each time: a test may count their calls.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoprune.trial.context.discover_structure", _discover)
        yield


def _discover(model: nn.Module, inputs: Inputs) -> Topology:
    if not isinstance(inputs, Tensor) or not all(_is_plain(module) for module in model.modules()):
        return discover.discover_structure(model, inputs)
    key = _digest(model, inputs)
    if key not in _KNOWN:
        _KNOWN[key] = discover.discover_structure(model, inputs)
    return _KNOWN[key]


def _is_plain(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return type(module).__module__.startswith(_PLAIN) and "forward" not in vars(module) and not any(hooks)


def _digest(model: nn.Module, inputs: Tensor) -> str:
    """Everything that a discovery depends on: classes, settings, modes, tensors with their names, inputs."""
    found = hashlib.sha256(repr(model).encode())
    for name, module in model.named_modules():
        found.update(f"{name} {type(module).__qualname__} {module.training}".encode())
    for name, tensor in (*model.state_dict(keep_vars=True).items(), ("inputs", inputs)):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()} {tensor.requires_grad}".encode())
        found.update(
            tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            if tensor.ndim
            else str(tensor.item()).encode()
        )
    return found.hexdigest()
