"""cut: a smaller copy of a model. mask: the same model with the same channels silenced."""

from __future__ import annotations

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
    model = cut(dense, topology, kept)
    own = model.state_dict()
    wrong = [
        name
        for name in own.keys() | weights.keys()
        if name not in own or name not in weights or own[name].shape != weights[name].shape
    ]
    if wrong:
        raise SurgeryError(
            fault("stored weights", "fit the cut model", f"other names or shapes for {', '.join(sorted(wrong)[:5])}")
        )
    model.load_state_dict(dict(weights))
    return model


def mask(model: nn.Module, topology: Topology, kept: KeptChannels) -> nn.Module:
    """A copy of the dense model with every parameter entry of the channels that go set to zero.

    In eval mode it computes what `cut` computes: the layers that read a silenced channel have zero weights for it.
    """
    kept.check(topology)
    copy = clone_with(model, {})
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
    replacements: dict[int, Tensor] = {}
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            axes = keep.get(name)
            if axes:
                replacements[id(tensor)] = _slice(tensor.detach(), axes)
    copy = clone_with(model, replacements)
    repair(copy)
    return copy


def _slice(tensor: Tensor, axes: Mapping[int, Tensor]) -> Tensor:
    """index_select axis by axis, the axis that loses most first, in the tensor's memory format."""
    channels_last = (
        tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    )
    for axis, where in sorted(axes.items(), key=lambda item: len(item[1]) / tensor.shape[item[0]]):
        tensor = tensor.index_select(axis, where.to(tensor.device))
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor
