"""Copy a module tree with some of its tensors replaced, without copying what is replaced."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_ATOMIC = (int, float, str, bool, bytes, type(None), torch.dtype, torch.device, torch.Size, type)
_TABLES = ("_parameters", "_buffers", "_modules")


def clone_with(model: nn.Module, replacements: Mapping[int, Tensor]) -> nn.Module:
    """A deep copy of `model` in which every tensor whose id is in `replacements` is replaced.

    Parameters stay parameters and keep requires_grad; tied tensors stay tied; hooks, training mode and
    plain attributes are carried over. Quicker than copy.deepcopy, which copies every tensor.
    """
    memo: dict[int, object] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        new = replacements.get(id(tensor))
        if new is None:
            new = tensor.detach().clone(memory_format=torch.preserve_format)
        if isinstance(tensor, nn.Parameter):
            new = nn.Parameter(new, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = new
    cloned = _clone(model, memo)
    assert isinstance(cloned, nn.Module)
    return cloned


def _clone(module: nn.Module, memo: dict[int, object]) -> object:
    known = memo.get(id(module))
    if known is not None:
        return known
    if hasattr(type(module), "__deepcopy__"):
        return copy.deepcopy(module, memo)
    new = module.__class__.__new__(module.__class__)
    memo[id(module)] = new
    state: dict[str, object] = {}
    for name, value in module.__dict__.items():
        state[name] = _table(value, memo) if name in _TABLES else _value(value, memo)
    new.__dict__.update(state)
    return new


def _table(table: Mapping[str, object], memo: dict[int, object]) -> dict[str, object]:
    new: dict[str, object] = {}
    for name, value in table.items():
        new[name] = (
            _clone(value, memo)
            if isinstance(value, nn.Module)
            else memo[id(value)]
            if isinstance(value, Tensor)
            else value
        )
    return new


def _value(value: object, memo: dict[int, object]) -> object:
    """Plain values are shared, empty tables made anew, the rest deep-copied against the same memo."""
    if isinstance(value, _ATOMIC):
        return value
    if isinstance(value, OrderedDict | dict | set | list) and not value:
        return type(value)()
    if isinstance(value, tuple) and all(isinstance(item, _ATOMIC) for item in value):
        return value
    if isinstance(value, nn.Module):
        return _clone(value, memo)
    return copy.deepcopy(value, memo)
