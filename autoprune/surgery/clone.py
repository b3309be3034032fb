"""Copy a module tree with some of its tensors replaced, without copying what is replaced."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

#: Values that may be shared between a module and its copy.
_ATOMIC = frozenset((int, float, complex, str, bool, bytes, type(None), torch.dtype, torch.device, torch.Size, type))
_CONTAINERS = frozenset((dict, OrderedDict, set, list))
_TABLES = frozenset(("_parameters", "_buffers", "_modules"))

#: (name in the state dict, tensor) -> its replacement, or None to copy it.
Replace = Callable[[str, Tensor], Tensor | None]


def clone_with(model: nn.Module, replace: Replace | None = None) -> nn.Module:
    """A deep copy of `model` in which `replace` may put other tensors in the place of its own.

    Parameters stay parameters and keep requires_grad; tied tensors stay tied and are asked for once, under
    their first name; hooks, training mode and plain attributes are carried over. Quicker than copy.deepcopy,
    which copies every tensor first.
    """
    return clone_and_touched(model, replace or _nothing)[0]


def clone_and_touched(model: nn.Module, replace: Replace) -> tuple[nn.Module, list[nn.Module]]:
    """The copy, and those of its modules that hold a replaced tensor, tied ones included."""
    cloner = _Cloner(replace)
    cloned = cloner.module(model, "")
    assert isinstance(cloned, nn.Module)
    touched = [
        module
        for module in cloned.modules()
        if any(id(t) in cloner.replaced for t in (*module.parameters(recurse=False), *module.buffers(recurse=False)))
    ]
    return cloned, touched


class _Cloner:
    """One copy under way; `memo` maps the id of what was copied to its copy, as copy.deepcopy wants it."""

    def __init__(self, replace: Replace) -> None:
        self.replace = replace
        self.memo: dict[int, object] = {}
        self.replaced: set[int] = set()

    def module(self, module: nn.Module, prefix: str) -> object:
        known = self.memo.get(id(module))
        if known is not None:
            return known
        if isinstance(module, torch.jit.ScriptModule) or hasattr(type(module), "__deepcopy__"):
            return self._by_itself(module, prefix)
        # First the tensors, so that whatever else refers to them finds their copies in the memo.
        tables = {
            "_parameters": self._tensors(module._parameters, prefix, is_parameter=True),
            "_buffers": self._tensors(module._buffers, prefix, is_parameter=False),
        }
        new = module.__class__.__new__(module.__class__)
        self.memo[id(module)] = new
        state = new.__dict__
        # Children before plain attributes, which may hold some of them in a list.
        state["_modules"] = {
            name: None if child is None else self.module(child, f"{prefix}{name}.")
            for name, child in module._modules.items()
        }
        for name, value in module.__dict__.items():
            kind = type(value)
            if kind in _ATOMIC:
                state[name] = value
            elif kind in _CONTAINERS and not value:
                state[name] = kind()
            elif name not in _TABLES:
                state[name] = self._value(value)
        state.update(tables)
        return new

    def _by_itself(self, module: nn.Module, prefix: str) -> object:
        """A module that knows how to copy itself; its tensors first, but of scripted ones, whose tables are others."""
        for path, child in () if isinstance(module, torch.jit.ScriptModule) else module.named_modules():
            full = prefix + (f"{path}." if path else "")
            self._tensors(child._parameters, full, is_parameter=True)
            self._tensors(child._buffers, full, is_parameter=False)
        return copy.deepcopy(module, self.memo)

    def _tensors(self, table: Mapping[str, Tensor | None], prefix: str, *, is_parameter: bool) -> dict[str, object]:
        return {
            name: None if tensor is None else self._tensor(tensor, prefix + name, is_parameter)
            for name, tensor in table.items()
        }

    def _tensor(self, tensor: Tensor, name: str, is_parameter: bool) -> object:
        known = self.memo.get(id(tensor))
        if known is not None:
            return known
        other = self.replace(name, tensor.detach())
        new = tensor.detach().clone(memory_format=torch.preserve_format) if other is None else other
        if is_parameter:
            new = nn.Parameter(new, requires_grad=tensor.requires_grad)
        if other is not None:
            self.replaced.add(id(new))
        self.memo[id(tensor)] = new
        return new

    def _value(self, value: object) -> object:
        """Tuples of plain values are shared; the rest is deep-copied against the same memo."""
        if isinstance(value, tuple) and all(type(item) in _ATOMIC for item in value):
            return value
        return copy.deepcopy(value, self.memo)


def _nothing(name: str, tensor: Tensor) -> None:
    """Replace no tensor."""
    del name, tensor
