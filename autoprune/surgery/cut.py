"""cut: a smaller copy of a model. mask: the same model with the same channels silenced."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autoprune.criteria.kept import KeptChannels, alive_positions
from autoprune.errors import SurgeryError, fault
from autoprune.surgery.attributes import repair
from autoprune.surgery.clone import clone_with
from autoprune.trace.topology import Topology


def cut(model: nn.Module, topology: Topology, kept: KeptChannels, *, parent: KeptChannels | None = None) -> nn.Module:
    """A smaller copy that has only the kept channels; the model itself is not touched.

    model: the dense model of the topology, or one that was cut from it to `parent`.
    kept: channels in dense indices, a subset of the parent's.
    parent: what `model` still has; None for the dense model.

    The copy keeps training mode, requires_grad, dtype, device, memory format and hooks. Raises SurgeryError
    when the kept set does not fit.
    """
    kept.check(topology)
    return _sliced(model, _relative(topology, kept, parent))


def rebuild(dense: nn.Module, topology: Topology, kept: KeptChannels, weights: Mapping[str, Tensor]) -> nn.Module:
    """Dense model definition -> cut to kept -> load weights; nothing is unpickled.

    Raises SurgeryError when names or shapes of the weights do not fit.
    """
    kept.check(topology)
    keep = _relative(topology, kept, None)
    names = dense.state_dict().keys()
    wrong = sorted(names ^ weights.keys())

    def replace(name: str, tensor: Tensor) -> Tensor | None:
        axes = keep.get(name, {})
        if name not in names:  # a buffer that is not stored
            return _Scratch().slice(tensor, axes) if axes else None
        stored = weights.get(name, tensor)
        if stored.shape != tuple(len(axes[dim]) if dim in axes else size for dim, size in enumerate(tensor.shape)):
            wrong.append(name)
        return stored.to(tensor.device)

    model = clone_with(dense, replace)
    if wrong:
        raise SurgeryError(
            fault("stored weights", "fit the cut model", f"other names or shapes for {', '.join(wrong[:5])}")
        )
    _repair(model, keep)
    return model


def mask(model: nn.Module, topology: Topology, kept: KeptChannels) -> nn.Module:
    """A copy of the dense model with every parameter entry of the channels that go set to zero.

    In eval mode it computes what `cut` computes: the layers that read a silenced channel have zero weights for it.
    """
    kept.check(topology)
    copy = clone_with(model)
    tensors = dict(copy.named_parameters())
    with torch.no_grad():
        for (name, axis), alive in alive_positions(topology, kept).items():
            if name in tensors:
                silent = torch.ones(tensors[name].shape[axis], dtype=torch.bool)
                silent[alive] = False
                tensors[name].index_fill_(axis, silent.nonzero().squeeze(1).to(tensors[name].device), 0)
    return copy


def _relative(topology: Topology, kept: KeptChannels, parent: KeptChannels | None) -> dict[str, dict[int, Tensor]]:
    """Tensor name -> axis -> positions to keep on the axis as the model has it now."""
    target = alive_positions(topology, kept)
    source = alive_positions(topology, parent) if parent is not None else {}
    relative: dict[str, dict[int, Tensor]] = {}
    for key, alive in target.items():
        before = source.get(key)
        if before is not None:
            where = torch.searchsorted(before, alive)
            if len(alive) > len(before) or not bool((before[where.clamp(max=len(before) - 1)] == alive).all()):
                raise SurgeryError(
                    fault("kept channels", "be among the parent's", f"others on {key[0]}", "Cut from a wider parent.")
                )
            if len(where) == len(before):
                continue
            alive = where
        relative.setdefault(key[0], {})[key[1]] = alive
    missing = source.keys() - target.keys()
    if missing:
        raise SurgeryError(fault("kept channels", "be among the parent's", f"a wider axis of {min(missing)[0]}"))
    return relative


def _sliced(model: nn.Module, keep: Mapping[str, Mapping[int, Tensor]]) -> nn.Module:
    scratch = _Scratch()

    def replace(name: str, tensor: Tensor) -> Tensor | None:
        axes = keep.get(name)
        return scratch.slice(tensor, axes) if axes else None

    with torch.no_grad():
        copy = clone_with(model, replace)
    _repair(copy, keep)
    return copy


def _repair(model: nn.Module, keep: Mapping[str, Mapping[int, Tensor]]) -> None:
    for module in {name.rpartition(".")[0] for name in keep}:
        repair(model.get_submodule(module))


class _Scratch:
    """index_select axis by axis, with one buffer for what lies in between.

    A fresh intermediate for every weight would cost more in page faults than the copying itself.
    """

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def slice(self, tensor: Tensor, axes: Mapping[int, Tensor]) -> Tensor:
        """The positions kept on each axis, in the tensor's memory format."""
        channels_last = _is_channels_last(tensor)
        # Whole rows first: they are contiguous, and what is left to pick from is smaller.
        steps = sorted(axes.items())
        for axis, where in steps[:-1]:
            shape = [len(where) if dim == axis else size for dim, size in enumerate(tensor.shape)]
            tensor = torch.index_select(tensor, axis, where.to(tensor.device), out=self._room(tensor, shape))
        axis, where = steps[-1]
        tensor = tensor.index_select(axis, where.to(tensor.device))
        return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor

    def _room(self, like: Tensor, shape: list[int]) -> Tensor:
        needed = math.prod(shape)
        buffer = self._buffer
        if buffer is None or buffer.numel() < needed or buffer.dtype != like.dtype or buffer.device != like.device:
            buffer = self._buffer = torch.empty(needed, dtype=like.dtype, device=like.device)
        return buffer[:needed].view(shape)


def _is_channels_last(tensor: Tensor) -> bool:
    if tensor.ndim != 4 or tensor.is_contiguous():
        return False
    return tensor.is_contiguous(memory_format=torch.channels_last)
