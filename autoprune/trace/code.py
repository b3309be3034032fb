"""List the names in a module's code, to tell which of its attributes its forward may read."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, MutableMapping
from types import CodeType, FunctionType
from weakref import WeakKeyDictionary

from torch import nn

#: Upper limit of functions that are read for one class.
_MOST = 200
_known: MutableMapping[type[nn.Module], frozenset[str] | None] = WeakKeyDictionary()


def names_read(kind: type[nn.Module]) -> frozenset[str] | None:
    """List the names and strings in a class's forward, its own methods and the functions that these call.

    Args:
        kind: The class.

    Returns:
        The names; None if the source of the forward is unknown.
    """
    if kind not in _known:
        known = kind.forward is not nn.Module.forward and _function(kind.forward) is not None
        _known[kind] = frozenset(_names_from(kind)) if known else None
    return _known[kind]


def _names_from(kind: type[nn.Module]) -> set[str]:
    names: set[str] = set()
    seen: set[FunctionType] = set()
    left: list[object] = [kind.forward]
    while left and len(seen) < _MOST:
        function = _function(left.pop())
        if function is None or function in seen:
            continue
        seen.add(function)
        found = set(_names(function.__code__)) - names
        names |= found
        left += [called for name in found for called in _called(kind, function, name)]
    return names


def _called(kind: type[nn.Module], function: FunctionType, name: str) -> Iterator[object]:
    """Yield objects that a name may refer to: a method of the class or a base class, a global function."""
    for base in kind.__mro__[: kind.__mro__.index(nn.Module)]:
        yield vars(base).get(name)
    yield function.__globals__.get(name)


def _function(value: object) -> FunctionType | None:
    """Return the function behind a method, property or decorator; None for anything else and for functions of torch."""
    value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    value = inspect.unwrap(value) if callable(value) else value
    own = isinstance(value, FunctionType) and not value.__module__.startswith("torch.")
    return value if own and isinstance(value, FunctionType) else None


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
        elif isinstance(constant, str):
            yield constant
