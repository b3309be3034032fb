"""Read and set whole numbers of a module: its attributes, and entries of its tuples, dicts and configs.

The name of a number is its path: "num_heads", "shape[0]", "config.num_attention_heads", 'sizes["heads"]'.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import FunctionType, MethodType, ModuleType

import torch
from torch import Tensor, nn

from autoprune.trace.code import names_read

#: Depth of the search for numbers inside attributes, and largest container that is searched.
_DEEPEST, _LONGEST = 2, 64
#: One step of a path: a field, a position or a key.
_STEP = re.compile(r'\.?([^.\[\]"]+)|\[(-?\d+)\]|\[("(?:[^"\\]|\\.)*")\]')
#: Types that are not searched.
_OPAQUE = (nn.Module, Tensor, type, ModuleType, FunctionType, MethodType, str, bytes, torch.dtype, torch.device)
#: Parts of names inside a config that are never the length of an axis.
_OTHERS = ("token", "_id", "label", "version", "seed", "layer", "max_", "min_", "beam", "stride", "kernel", "padding")

_Steps = list[str | int | tuple[str]]


def numbers_in(module: nn.Module) -> dict[str, int]:
    """Return the whole numbers of a module.

    Args:
        module: The module.

    Returns:
        Path -> number: the module's own first, then those inside attributes that its forward reads.
    """
    return {name: value for name, value in values_in(module).items() if type(value) is int}


def values_in(module: nn.Module) -> dict[str, int | float]:
    """Return the numbers of a module, fractions included.

    Args:
        module: The module.

    Returns:
        Path -> number, in the order of `numbers_in`.
    """
    attributes = {name: value for name, value in vars(module).items() if _is_own(name)}
    own = {name: value for name, value in attributes.items() if type(value) in (int, float)}
    read = names_read(type(module))
    held = {name: value for name, value in attributes.items() if read is None or name in read}
    return own | {path: number for name, value in held.items() for path, number in _inside(value, name, 0)}


def put_number(module: nn.Module, name: str, value: int) -> None:
    """Set one number of a module, in place.

    An object that holds the number may be shared with other modules, as a config is; the module gets its own copy.

    Args:
        module: The module.
        name: Path of the number.
        value: The new value.

    Raises:
        LookupError: If a position or key of the path is missing.
        AttributeError: If an attribute of the path is missing.
        TypeError: If a part of the path holds no entries.
    """
    first, *rest = _steps(name)
    held = vars(module).get(str(first))
    if not rest:
        # Older topologies name a tuple of one number by the tuple alone.
        setattr(module, str(first), (value,) if isinstance(held, tuple) else value)
        return
    setattr(module, str(first), _changed(held, rest, value))


def nearby_modules(modules: Mapping[str, nn.Module], path: str) -> tuple[str, ...]:
    """Return the modules whose numbers a module may use: the one around it, and its direct children.

    Args:
        modules: All modules of the model, by name.
        path: Name of the module.

    Returns:
        Names, without modules of torch.nn.
    """
    around = path
    while around:
        around = around.rpartition(".")[0]
        if not isinstance(modules[around], nn.Sequential | nn.ModuleList | nn.ModuleDict):
            break
    inside = [_known_as(modules, path, name) for name, _ in modules[path].named_children()]
    found = [around, *inside] if path else inside
    return tuple(name for name in found if not type(modules[name]).__module__.startswith("torch.nn."))


def _known_as(modules: Mapping[str, nn.Module], path: str, child: str) -> str:
    """Return the name of a child module; the first of its names if several modules hold it."""
    name = f"{path}.{child}" if path else child
    if name in modules:
        return name
    held = getattr(modules[path], child)
    return next(first for first, module in modules.items() if module is held)


def _is_own(name: str) -> bool:
    """Tell whether a class sets the attribute itself; torch's own attributes begin with an underscore."""
    return not name.startswith("_") and name != "training"


def _inside(value: object, path: str, depth: int) -> Iterator[tuple[str, int | float]]:
    for step, item in _entries(value) if depth < _DEEPEST else ():
        if any(word in step for word in _OTHERS):
            continue
        if isinstance(item, int | float) and type(item) in (int, float):
            yield path + step, item
        else:
            yield from _inside(item, path + step, depth + 1)


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """Yield the entries of a container or object, each with the step that leads to it."""
    if isinstance(value, _OPAQUE) or callable(value):
        return
    if isinstance(value, Mapping):
        if len(value) <= _LONGEST:
            yield from ((f"[{json.dumps(key)}]", item) for key, item in value.items() if type(key) in (str, int))
    elif isinstance(value, tuple | list):
        if len(value) <= _LONGEST:
            yield from ((f"[{number}]", item) for number, item in enumerate(value))
    else:
        yield from ((f".{name}", item) for name, item in _fields(value).items() if not name.startswith("_"))


def _fields(value: object) -> Mapping[str, object]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return getattr(value, "__dict__", {})


def _steps(name: str) -> _Steps:
    """Split a path: fields become text, positions numbers, and keys of text a tuple."""
    return [
        field or (int(position) if position else (json.loads(key),)) for field, position, key in _STEP.findall(name)
    ]


def _changed(held: object, steps: _Steps, value: int) -> object:
    """Return a copy of a container or object with one number set; the objects on the path are copied as well."""
    step, *rest = steps
    key = step[0] if isinstance(step, tuple) else step
    inner = getattr(held, step) if isinstance(step, str) else held[key]  # type: ignore[index]  # as it was named
    new = _changed(inner, rest, value) if rest else value
    if isinstance(held, tuple) and isinstance(key, int):
        return _tuple_like(held, [*held[:key], new, *held[key + 1 :]])
    own = copy.copy(held)
    if isinstance(step, str):
        object.__setattr__(own, step, new)
    else:
        own[key] = new  # type: ignore[index]  # as above
    return own


def _tuple_like(held: tuple[object, ...], items: Sequence[object]) -> object:
    return held._make(items) if hasattr(held, "_make") else type(held)(items)
