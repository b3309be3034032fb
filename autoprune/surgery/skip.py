"""Replace dropped modules by their input or by zeros."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MethodType, SimpleNamespace

import torch
from torch import Tensor, nn

from autoprune.errors import SurgeryError, error_message
from autoprune.structure.blocks import DroppableBlock, Gap, Lane
from autoprune.structure.topology import Topology

#: (tensor, axis) -> positions that stay.
Alive = Mapping[tuple[str, int], Tensor]


class Skip(nn.Module):
    """Returns one of the arguments, or zeros of its shape, in the form of the dropped module's output.

    Plain attributes of the module and its parts stay readable, since models look at some of them; nothing that could
    keep its weights alive is held.

    Args:
        gap: The module, and the value that replaces its output.
        module: The dropped module.
        picks: (axis, positions of the argument; -1 for zeros) for each axis along which channels differ.
    """

    def __init__(self, gap: Gap, module: nn.Module, picks: Sequence[tuple[int, list[int]]] = ()) -> None:
        super().__init__()
        own = vars(self)
        for name, value in vars(_values(module)).items():
            if name not in own:
                own[name] = value
        self._gap, self._picks = gap, tuple(picks)
        self._is_attention = isinstance(module, nn.MultiheadAttention)
        self.training = module.training

    def forward(self, *args: object, **kwargs: object) -> object:
        """Return the argument or zeros, with passed-on arguments and None in the place of other outputs."""
        gap = self._gap
        given: dict[int | str, object] = dict(enumerate(args))
        given.update(kwargs.items())
        value = given[gap.source]
        if gap.single is not None:
            assert isinstance(value, Tensor)
            value = _zeros(value, list(gap.single))
        for axis, where in self._picks:
            assert isinstance(value, Tensor)
            value = _taken(value, axis, where)
        if gap.position is None:
            return value
        others = {place: given.get(source) for place, source in gap.passes}
        return tuple(value if place == gap.position else others.get(place) for place in range(gap.outputs))

    def __prepare_scriptable__(self) -> nn.Module:
        """Return a module for torch.jit.script, which knows no variable arguments; self if there is none.

        Modules with one tensor argument are supported, and torch's own attention.
        """
        gap = self._gap
        if self._is_attention and (gap.source, gap.position) == (0, 0) and gap.single is not None:
            return NoAttention(gap.single)
        if gap.source != 0 or gap.position is not None or len(self._picks) > 1:
            return self
        if self._picks:
            return Taken(*self._picks[0])
        return nn.Identity() if gap.single is None else Zeros(gap.single)


class _Zeroing(nn.Module):
    """Zeros in the place of an output. single: axes along which they have length 1."""

    # As values: torch.jit.script reads no annotations that are strings, and cannot infer the type of an empty list.
    __annotations__ = {"single": list[int]}

    def __init__(self, single: Sequence[int]) -> None:
        super().__init__()
        self.single = list(single)


class Zeros(_Zeroing):
    """Replaces a module that takes one tensor by zeros."""

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros."""
        return _zeros(x, self.single)


class NoAttention(_Zeroing):
    """Replaces an nn.MultiheadAttention by zeros."""

    def forward(  # noqa: PLR0913, PLR0917  # torch's own signature
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return zeros, and None for the attention weights."""
        del key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        return _zeros(query, self.single), None


def _zeros(like: Tensor, single: list[int]) -> Tensor:
    for axis in single:
        like = like.narrow(axis, 0, 1)
    return torch.zeros_like(like)


class Taken(nn.Module):
    """Selects positions of an axis of one tensor, with zeros for -1.

    Args:
        axis: The axis.
        where: The positions.
    """

    def __init__(self, axis: int, where: list[int]) -> None:
        super().__init__()
        self.axis, self.where = axis, where

    def forward(self, x: Tensor) -> Tensor:
        """Return the positions."""
        return _taken(x, self.axis, self.where)


def _taken(x: Tensor, axis: int, where: list[int]) -> Tensor:
    index = torch.tensor(where, device=x.device)
    shape = [1] * x.dim()
    shape[axis] = len(where)
    return x.index_select(axis, index.clamp(min=0)).masked_fill((index < 0).view(shape), 0.0)


def _picked(lane: Lane, topology: Topology, alive: Alive, *, whole: bool) -> list[int] | None:
    """Map each output channel to its place in the input, -1 where it is gone; None if nothing moves."""
    sides = (lane.reads, lane.reads_axis), (lane.makes, lane.makes_axis)
    length = max(topology.tensors[name].shape[axis] for name, axis in sides if name)
    taken, given = (alive[side].tolist() if side in alive else list(range(length)) for side in sides)
    if whole:
        there = {*taken} & {*given}
        return [channel if channel in there else -1 for channel in range(length)]
    place = {channel: where for where, channel in enumerate(taken)}
    return None if taken == given else [place.get(channel, -1) for channel in given]


def _values(module: nn.Module) -> SimpleNamespace:
    """Return the plain attributes of a module and of its parts by name; None for its parameters."""
    plain = {name: value for name, value in vars(module).items() if not name.startswith("_") and _is_plain(value)}
    parts = {name: _values(part) for name, part in module.named_children() if name.isidentifier()}
    return SimpleNamespace(**{**parts, **dict.fromkeys(module._parameters), **plain})


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return not isinstance(value, Tensor | nn.Module | Mapping | set | MethodType)


def skip(model: nn.Module, block: DroppableBlock, topology: Topology, alive: Alive, *, whole: bool = False) -> None:
    """Replace each module of a block, in place, wherever it is used.

    Args:
        model: The cut or masked model.
        block: The block.
        topology: Topology of the dense model.
        alive: Positions that stay on each axis that loses some.
        whole: Whether the tensors have their dense shapes, with silenced channels.

    Raises:
        SurgeryError: If the model has no such module.
    """
    for gap in block.gaps:
        picks = [(lane.axis, _picked(lane, topology, alive, whole=whole)) for lane in gap.lanes]
        _skip(model, gap, [(axis, where) for axis, where in picks if where is not None])
    for layer in model.modules():
        if isinstance(layer, nn.TransformerEncoderLayer) and any(isinstance(part, Skip) for part in layer.modules()):
            layer.activation_relu_or_gelu = 0  # keeps it from its fused kernel, which reads weights


def _skip(model: nn.Module, gap: Gap, picks: Sequence[tuple[int, list[int]]]) -> None:
    try:
        module = model.get_submodule(gap.module)
    except AttributeError as error:
        raise SurgeryError(error_message("a block to drop", "be a module of the model", repr(gap.module))) from error
    replacement = Skip(gap, module, picks)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is module:
                parent._modules[name] = replacement
