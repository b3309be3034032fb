"""Whole numbers that a module keeps: its attributes, and what lies in a tuple, a dict or a config that it holds.

A number is named by where it lies: "num_heads", "shape[0]", "config.num_attention_heads", 'sizes["heads"]'.
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

#: How far inside of what a module holds numbers are looked for, and the most entries of a container that is looked at.
_DEEPEST, _LONGEST = 2, 64
#: One step of a name: a field, a position or a key.
_STEP = re.compile(r'\.?([^.\[\]"]+)|\[(-?\d+)\]|\[("(?:[^"\\]|\\.)*")\]')
#: What is looked into no further.
_OPAQUE = (nn.Module, Tensor, type, ModuleType, FunctionType, MethodType, str, bytes, torch.dtype, torch.device)
#: Parts of names, inside of a config, that no length of an axis has.
_OTHERS = ("token", "_id", "label", "version", "seed", "layer", "max_", "min_", "beam", "stride", "kernel", "padding")

_Steps = list[str | int | tuple[str]]


def numbers_in(module: nn.Module) -> dict[str, int]:
    """Whole numbers of a module by name, its own before those in what it holds and its forward reads."""
    return {name: value for name, value in values_in(module).items() if type(value) is int}


def values_in(module: nn.Module) -> dict[str, int | float]:
    """Numbers of a module by name, fractions too, as `numbers_in`."""
    attributes = {name: value for name, value in vars(module).items() if _is_own(name)}
    own = {name: value for name, value in attributes.items() if type(value) in (int, float)}
    read = names_read(type(module))
    held = {name: value for name, value in attributes.items() if read is None or name in read}
    return own | {path: number for name, value in held.items() for path, number in _inside(value, name, 0)}


def put_number(module: nn.Module, name: str, value: int) -> None:
    """Set one number of a module, in place.

    What it lies in may be shared with other modules, as a config is: the module gets its own copy of that. Raises
    LookupError, AttributeError or TypeError where the module has no such number.
    """
    first, *rest = _steps(name)
    held = vars(module).get(str(first))
    if not rest:
        # Of older topologies: a tuple of one number went by the name of the tuple.
        setattr(module, str(first), (value,) if isinstance(held, tuple) else value)
        return
    setattr(module, str(first), _changed(held, rest, value))


def nearby_modules(modules: Mapping[str, nn.Module], path: str) -> tuple[str, ...]:
    """Modules whose numbers the one at `path` may use: the one around it, and those right inside it."""
    around = path
    while around:
        around = around.rpartition(".")[0]
        if not isinstance(modules[around], nn.Sequential | nn.ModuleList | nn.ModuleDict):
            break
    inside = [_known_as(modules, path, name) for name, _ in modules[path].named_children()]
    found = [around, *inside] if path else inside
    return tuple(name for name in found if not type(modules[name]).__module__.startswith("torch.nn."))


def _known_as(modules: Mapping[str, nn.Module], path: str, child: str) -> str:
    """Name of what a module holds; the first of its names where several modules hold it."""
    name = f"{path}.{child}" if path else child
    if name in modules:
        return name
    held = getattr(modules[path], child)
    return next(first for first, module in modules.items() if module is held)


def _is_own(name: str) -> bool:
    """True for what a class sets of itself; torch keeps its own under names with an underscore."""
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
    """What a container or an object holds, by the step that leads there."""
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
    """Fields as text, positions as numbers, keys of text in a tuple."""
    return [
        field or (int(position) if position else (json.loads(key),)) for field, position, key in _STEP.findall(name)
    ]


def _changed(held: object, steps: _Steps, value: int) -> object:
    """A copy of a container or an object with one number in it set; what lies on the way there is copied too."""
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
