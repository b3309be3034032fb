"""What stands in the place of modules that were dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MethodType, SimpleNamespace

import torch
from torch import Tensor, nn

from autoprune.errors import SurgeryError, fault
from autoprune.trace.blocks import Block, Gap


class Skip(nn.Module):
    """Gives back one of the arguments, or zeros of its shape, in the form in which a module gave its output.

    Plain values that the module and its parts held stay readable, since models look at some of them; nothing that could
    keep its weights alive does.
    """

    def __init__(self, gap: Gap, module: nn.Module) -> None:
        super().__init__()
        own = vars(self)
        for name, value in vars(_values(module)).items():
            if name not in own:
                own[name] = value
        self._gap = gap
        self.training = module.training

    def forward(self, *args: object, **kwargs: object) -> object:
        """The argument, or zeros; None for whatever else the module gave."""
        gap = self._gap
        value = args[gap.source] if isinstance(gap.source, int) else kwargs[gap.source]
        if gap.single is not None:
            assert isinstance(value, Tensor)
            value = _zeros(value, gap.single)
        if gap.position is None:
            return value
        return tuple(value if place == gap.position else None for place in range(gap.outputs))

    def __prepare_scriptable__(self) -> nn.Module:
        """Give torch.jit.script, which knows no variable arguments, a module that takes one tensor where that does."""
        gap = self._gap
        if gap.source != 0 or gap.position is not None:
            return self
        return nn.Identity() if gap.single is None else Zeros(gap.single)


class Zeros(nn.Module):
    """Zeros in the place of a module that takes one tensor. single: axes along which they have one place."""

    def __init__(self, single: Sequence[int]) -> None:
        super().__init__()
        self.single = list(single)

    def forward(self, x: Tensor) -> Tensor:
        """Zeros."""
        for axis in self.single:
            x = x.narrow(axis, 0, 1)
        return torch.zeros_like(x)


def _zeros(like: Tensor, single: Sequence[int]) -> Tensor:
    for axis in single:
        like = like.narrow(axis, 0, 1)
    return torch.zeros_like(like)


def _values(module: nn.Module) -> SimpleNamespace:
    """The plain values of a module and, by name, of its parts; None for its parameters."""
    plain = {name: value for name, value in vars(module).items() if not name.startswith("_") and _is_plain(value)}
    parts = {name: _values(part) for name, part in module.named_children() if name.isidentifier()}
    return SimpleNamespace(**{**parts, **dict.fromkeys(module._parameters), **plain})


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return not isinstance(value, Tensor | nn.Module | Mapping | set | MethodType)


def skip(model: nn.Module, block: Block) -> None:
    """Put a Skip in the place of each module of a block, in place; every use of them is skipped."""
    for gap in block.gaps:
        _skip(model, gap)
    for layer in model.modules():
        if isinstance(layer, nn.TransformerEncoderLayer) and any(isinstance(part, Skip) for part in layer.modules()):
            layer.activation_relu_or_gelu = 0  # keeps it from its fused kernel, which reads weights


def _skip(model: nn.Module, gap: Gap) -> None:
    try:
        module = model.get_submodule(gap.module)
    except AttributeError as error:
        raise SurgeryError(fault("a block to drop", "be a module of the model", repr(gap.module))) from error
    if isinstance(module, Skip):
        return
    replacement = Skip(gap, module)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is module:
                parent._modules[name] = replacement
