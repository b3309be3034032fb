"""Copy a model without its repeated layers: lessons from the copy mostly hold for the model, and cost less."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from autoprune.task.clone import share_parameters


class _Part(NamedTuple):
    """The parts of a module inside a layer that are compared: two layers are alike if all their parts are equal."""

    path: str
    kind: type[nn.Module]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    words: tuple[tuple[str, object], ...]


def without_repeats(model: nn.Module) -> nn.Module | None:
    """Copy a model without layers that are like an earlier one of the same list.

    The copy may not run. It shares the parameters of the model and must not be changed.

    Args:
        model: Any model.

    Returns:
        The copy, None if less than a quarter of the modules are repeats.
    """
    shallow = share_parameters(model)
    before = sum(1 for _ in shallow.modules())
    for module in list(shallow.modules()):
        if isinstance(module, nn.ModuleList | nn.Sequential):
            _drop_repeats(module)
    left = sum(1 for _ in shallow.modules())
    return shallow if left <= 0.75 * before else None


def _drop_repeats(layers: nn.ModuleList | nn.Sequential) -> None:
    """Keep the first of equal layers, in place."""
    kept: list[tuple[str, nn.Module]] = []
    seen: list[tuple[int, nn.Module]] = []
    for place, (name, layer) in enumerate(layers.named_children()):
        if not any(_alike(layer, place, other, number) for number, other in seen):
            seen.append((place, layer))
            kept.append((name, layer))
    numbered = all(name.isdigit() for name, _ in kept)
    layers._modules = {str(place) if numbered else name: layer for place, (name, layer) in enumerate(kept)}


def _alike(layer: nn.Module, place: int, other: nn.Module, number: int) -> bool:
    """Tell whether two layers are equal but for the values of their weights; layers may know their number."""
    if next(layer.parameters(), None) is None:
        return False
    pairs = list(zip(_parts(layer), _parts(other), strict=False))
    same = len(list(layer.modules())) == len(list(other.modules()))
    return same and all(
        a[:3] == b[:3]
        and len(a.words) == len(b.words)
        and all(_same(x, y, place - number) for x, y in zip(a.words, b.words, strict=True))
        for a, b in pairs
    )


def _parts(layer: nn.Module) -> Iterator[_Part]:
    for path, module in layer.named_modules():
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        shapes = tuple((name, tuple(tensor.shape)) for name, tensor in own)
        # Fractions are not compared: drop path rates, say, grow from layer to layer.
        words = tuple((name, value) for name, value in vars(module).items() if type(value) in (int, str, bool))
        yield _Part(path, type(module), shapes, words)


def _same(one: tuple[str, object], other: tuple[str, object], apart: int) -> bool:
    if one == other:
        return True
    (name, value), (other_name, other_value) = one, other
    numbers = type(value) is int and type(other_value) is int
    return name == other_name and numbers and value - other_value == apart  # type: ignore[operator]  # both are int
