"""Copy a module tree with some of its tensors replaced, without copying the replaced ones."""

from __future__ import annotations

import copy
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from functools import partial
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

#: Values that may be shared between a module and its copy.
_ATOMIC = frozenset((int, float, complex, str, bool, bytes, type(None), torch.dtype, torch.device, torch.Size, type))
_CONTAINERS = frozenset((dict, OrderedDict, set, list))
_TABLES = frozenset(("_parameters", "_buffers", "_modules"))
#: Made by `nn.Module.compile` and bound to the module; torch does not copy it either.
_COMPILED = "_compiled_call_impl"

#: (name in the state dict, tensor) -> its replacement, the tensor itself to share it, or None to copy it.
Replace = Callable[[str, Tensor], Tensor | None]


def clone_with(model: nn.Module, replace: Replace | None = None) -> nn.Module:
    """Copy a model deeply, with some of its tensors replaced.

    Parameters stay parameters and keep requires_grad. Tied tensors stay tied; `replace` is called once for them, with
    their first name. Hooks, training mode and plain attributes are copied. Faster than copy.deepcopy, which copies
    every
    tensor first. Activations stored in modules lose their graph, and tensors that a module computes from its weights
    for
    eval mode are computed anew (`drop_cached_tensors`).

    Args:
        model: The model.
        replace: Called with the name and the tensor; returns a replacement, the tensor itself to share it, or None to
            copy
            it. None copies all.

    Returns:
        The copy.
    """
    cloned = clone_and_touched(model, replace or _nothing)[0]
    drop_cached_tensors(cloned)
    return cloned


def share_parameters(model: nn.Module, but: Container[str] = ()) -> nn.Module:
    """Copy a model that shares its parameters with the original, and nothing else.

    Args:
        model: The model.
        but: Names of parameters that are copied, too.

    Returns:
        The copy.
    """
    shared = {name for name, _ in model.named_parameters() if name not in but}
    return clone_with(model, lambda name, tensor: tensor if name in shared else None)


def clone_and_touched(model: nn.Module, replace: Replace) -> tuple[nn.Module, list[nn.Module]]:
    """Copy a model, and list the modules of the copy that hold a replaced tensor, tied ones included.

    Args:
        model: The model.
        replace: As for `clone_with`.

    Returns:
        The copy, and those modules.
    """
    cloner = _Cloner(replace)
    cloned = cloner.module(model, "")
    assert isinstance(cloned, nn.Module)
    touched = [
        module
        for module in cloned.modules()
        if any(id(t) in cloner.replaced for t in (*module.parameters(recurse=False), *module.buffers(recurse=False)))
    ]
    return cloned, touched


def drop_cached_tensors(model: nn.Module) -> None:
    """Make modules drop the tensors that they computed from their weights for eval mode, in place.

    Attention modules often cache biases in eval mode and drop the cache in an overridden `train`. This calls that
    `train`
    and restores the mode of each module afterwards. Modules without an own `train`, or without tensors beside their
    parameters and buffers, are not called.

    Args:
        model: The model.
    """
    for module in model.modules():
        if type(module).train is nn.Module.train or not _keeps_tensors(module):
            continue
        modes = {part: part.training for part in module.modules()}
        module.train()
        module.train(modes[module])
        for part, mode in modes.items():
            part.training = mode


class BorrowedWeights(TorchDispatchMode):
    """Records which weights of another model are used in a computation.

    copy.deepcopy does not copy closures, so a copied model may still compute with the original.

    Args:
        model: The other model.

    Attributes:
        found: Names of its weights in the order of their use.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        named = (*model.named_parameters(), *model.named_buffers())
        self._names = {tensor.untyped_storage()._cdata: name for name, tensor in named if _has_storage(tensor)}
        self.found: dict[str, None] = {}

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        del types
        for tensor in _flat((*args, *(kwargs or {}).values())):
            name = self._names.get(tensor.untyped_storage()._cdata) if _has_storage(tensor) else None
            if name is not None:
                self.found[name] = None
        return func(*args, **(kwargs or {}))


def held_functions(model: nn.Module) -> list[str]:
    """List the functions that modules hold as attributes or hooks: they may be bound to the model itself.

    Args:
        model: The model.

    Returns:
        Names of the functions.
    """
    found = []
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for name, value in vars(module).items():
            if name.endswith("_hooks") and isinstance(value, Mapping):
                found += [f"a hook of {path or 'the model'}"] * bool(value)
            elif callable(value) and not isinstance(value, type | nn.Module | Tensor):
                found.append(prefix + name)
    return list(dict.fromkeys(found))


class _Cloner:
    """Makes one copy. `memo` maps the id of an object to its copy, as for copy.deepcopy."""

    def __init__(self, replace: Replace) -> None:
        self.replace = replace
        self.memo: dict[int, object] = {}
        self.replaced: set[int] = set()

    def module(self, module: nn.Module, prefix: str) -> object:
        known = self.memo.get(id(module))
        if known is not None:
            return known
        if _copies_itself(type(module)):
            return self._by_itself(module, prefix)
        # Tensors first, so that other references to them find their copies in the memo.
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
            elif name not in _TABLES and name != _COMPILED:
                state[name] = self._value(value)
        state.update(tables)
        return new

    def _by_itself(self, module: nn.Module, prefix: str) -> object:
        """Copy a module that defines its own copying. Its tensors come first, except for scripted modules."""
        for path, child in () if isinstance(module, torch.jit.ScriptModule) else module.named_modules():
            full = prefix + (f"{path}." if path else "")
            self._tensors(child._parameters, full, is_parameter=True)
            self._tensors(child._buffers, full, is_parameter=False)
            self._detach(vars(child).values())
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
        own = tensor.detach()
        other = self.replace(name, own)
        new = tensor.detach().clone(memory_format=torch.preserve_format) if other is None else other
        if is_parameter:
            new = nn.Parameter(new, requires_grad=tensor.requires_grad)
        if other is not None and other is not own:
            self.replaced.add(id(new))
        self.memo[id(tensor)] = new
        return new

    def _value(self, value: object) -> object:
        """Share tuples of plain values, and deep-copy anything else with the same memo."""
        if isinstance(value, tuple) and all(type(item) in _ATOMIC for item in value):
            return value
        self._detach((value,))
        return copy.deepcopy(value, self.memo)

    def _detach(self, values: Iterable[object]) -> None:
        """Copy the values of computed tensors; deepcopy refuses these tensors, as the copy would have no graph."""
        for tensor in _held(values, self.memo):
            if not tensor.is_leaf:
                self.memo[id(tensor)] = tensor.detach().clone()


def _copies_itself(kind: type[nn.Module]) -> bool:
    """Whether a class defines how it is copied: objects that it leaves out, such as locks, often cannot be copied."""
    return (
        issubclass(kind, torch.jit.ScriptModule)
        or hasattr(kind, "__deepcopy__")
        or kind.__getstate__ not in (nn.Module.__getstate__, nn.RNNBase.__getstate__)
        or (kind.__reduce__, kind.__reduce_ex__) != (object.__reduce__, object.__reduce_ex__)
    )


def _nothing(name: str, tensor: Tensor) -> None:
    """Replace no tensor."""
    del name, tensor


def _keeps_tensors(module: nn.Module) -> bool:
    own = [value for name, value in vars(module).items() if name not in _TABLES and type(value) not in _ATOMIC]
    known = dict.fromkeys(id(value) for value in (*module.parameters(), *module.buffers(), *module.modules()))
    return next(_held(own, known), None) is not None


def _held(values: Iterable[object], known: Mapping[int, object]) -> Iterator[Tensor]:
    """Tensors in containers and in attributes of objects, without the objects that are known already."""
    left, seen = list(values), set(known)
    while left:
        value = left.pop()
        if id(value) in seen or type(value) in _ATOMIC or isinstance(value, type | ModuleType):
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, tuple | list | set | frozenset | deque):
            left += value
        elif isinstance(value, partial):
            left += (value.args, value.keywords)
        else:
            left += vars(value).values() if hasattr(value, "__dict__") else ()


def _flat(values: Iterable[object]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _flat(value)


def _has_storage(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and tensor.numel() > 0
