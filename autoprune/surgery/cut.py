"""Cut a model to its kept channels, and rebuild a cut model from stored weights."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from autoprune.display import join_faults
from autoprune.errors import SurgeryError, error_message
from autoprune.plan.kept import KeptChannels
from autoprune.structure.groups import Rescale
from autoprune.structure.topology import Topology
from autoprune.surgery.attention import SlimMultiheadAttention
from autoprune.surgery.module_numbers import update_group_numbers, update_weight_numbers
from autoprune.surgery.positions import alive_positions
from autoprune.surgery.skip import skip
from autoprune.task.clone import clone_and_touched, drop_cached_tensors
from autoprune.task.soundness import misfit_faults


def cut(
    model: nn.Module,
    topology: Topology,
    kept: KeptChannels,
    *,
    parent: KeptChannels | None = None,
    only_run: OnlyRun | None = None,
) -> nn.Module:
    """Copy a model with the kept channels and blocks alone; the model itself is not changed.

    The copy keeps training mode, requires_grad, dtype, device, memory format and hooks.

    Args:
        model: The dense model of the topology, or one that was cut from it to `parent`.
        topology: The topology of the dense model.
        kept: Channels and blocks that stay, in dense indices; a subset of the parent's.
        parent: Channels and blocks that `model` has; None for the dense model.
        only_run: For a copy that is only run: parameters that lose nothing are shared with the model. None for others.

    Returns:
        The smaller model.

    Raises:
        SurgeryError: If the kept channels do not fit the model.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from autoprune.plan.kept import KeptChannels
        >>> from autoprune.trace.trace import trace
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> cut(model, trace(model, torch.randn(3, 4)), KeptChannels(groups={"0": (1, 2, 5)}))[2].in_features
        3
    """
    kept.check(topology)
    source = alive_positions(topology, parent) if parent is not None else {}
    _check_parent(topology, kept, parent)
    now = alive_positions(topology, kept)
    keep = _relative(now, source)
    expected = _shapes(topology, source)
    scales = _scales(topology, kept, parent)
    # A forward may change buffers, so they are copied.
    shared = {name for name, info in topology.tensors.items() if info.is_parameter} if only_run else set()
    scratch = _Scratch()
    wrong: list[str] = []

    def replace(name: str, tensor: Tensor) -> Tensor | None:
        if tensor.shape != expected.get(name, tensor.shape):
            wrong.append(name)
            return None
        axes = keep.get(name)
        if not axes:
            return tensor if name in shared else None
        if only_run is not None and name not in scales:
            return only_run.sliced(name, tensor, axes, scratch)
        smaller = scratch.slice(tensor, axes)
        if name in scales:
            smaller = smaller.to(only_run.scaled if only_run is not None else None)
            _multiply(smaller, scales[name], {axis: now.get((name, axis)) for axis in axes})
        return smaller

    with torch.no_grad():
        smaller, touched = clone_and_touched(model, replace)
    if wrong:
        was = "the dense model" if parent is None else "what its parent kept"
        raise SurgeryError(
            error_message("the model to cut", f"be {was}", f"other shapes of {', '.join(sorted(wrong)[:5])}")
        )
    _settle(smaller, touched, topology, kept, now)
    return smaller


@dataclass(frozen=True, slots=True)
class OnlyRun:
    """How to cut copies that are only run.

    Attributes:
        scaled: dtype of weights that are multiplied by a factor; None for their own.
        reused: Names of weights of which a slice serves several cuts, as nothing writes to them.
        slices: The latest slice of each of these: name -> positions kept on each axis, slice.
    """

    scaled: torch.dtype | None = None
    reused: Container[str] = ()
    slices: dict[str, tuple[Mapping[int, Tensor], Tensor]] = field(default_factory=dict)

    def sliced(self, name: str, tensor: Tensor, axes: Mapping[int, Tensor], scratch: _Scratch) -> Tensor:
        """Return the positions kept on each axis of a weight."""
        known, found = self.slices.get(name, ({}, tensor))
        if known.keys() == axes.keys() and all(torch.equal(known[axis], where) for axis, where in axes.items()):
            return found
        self.slices.pop(name, None)
        found = scratch.slice(tensor, axes)
        if name in self.reused:
            self.slices[name] = axes, found
        return found


def _check_parent(topology: Topology, kept: KeptChannels, parent: KeptChannels | None) -> None:
    """Raise SurgeryError if a block should stay that the parent has lost."""
    missing = set(parent.dropped if parent is not None else ()) - topology.gone(kept.dropped)
    if missing:
        raise SurgeryError(error_message("kept blocks", "be among the parent's", f"also {', '.join(sorted(missing))}"))


def rebuild(dense: nn.Module, topology: Topology, kept: KeptChannels, weights: Mapping[str, Tensor]) -> nn.Module:
    """Cut a dense model definition and load stored weights; nothing is unpickled.

    Args:
        dense: The dense model, freshly made.
        topology: Its topology.
        kept: Channels and blocks of the stored model.
        weights: Name -> tensor.

    Returns:
        The cut model with these weights.

    Raises:
        SurgeryError: If names, shapes or dtypes do not fit, if values are not finite that are finite in the dense
            model, or if a variance is negative.
    """
    kept.check(topology)
    target = alive_positions(topology, kept)
    keep = _relative(target, {})
    gone = topology.dropped(kept.dropped)
    names = {name for name in dense.state_dict() if not any(block.holds(name) for block in gone)}
    expected = _shapes(topology, target)
    wrong = sorted(names ^ weights.keys())
    unfit: list[str] = []

    def replace(name: str, tensor: Tensor) -> Tensor | None:
        axes = keep.get(name, {})
        if name not in names:  # a buffer that is not stored
            return _Scratch().slice(tensor, axes) if axes else None
        stored = weights.get(name, tensor)
        if tuple(stored.shape) != expected.get(name, tuple(tensor.shape)):
            wrong.append(name)
            return None
        faults = misfit_faults({name: stored}, {name: tensor})
        unfit.extend(faults)
        return None if faults else stored.detach().to(tensor.device, copy=True)

    model, touched = clone_and_touched(dense, replace)
    if wrong:
        raise SurgeryError(
            error_message("stored weights", "fit the cut model", f"other names or shapes for {', '.join(wrong[:5])}")
        )
    if unfit:
        raise SurgeryError(error_message("stored weights", "fit the cut model", f"others: {join_faults(unfit)}"))
    names_of = {id(t): name for name, t in (*model.named_parameters(), *model.named_buffers())}
    # Every tensor was replaced; a cut changes the modules whose tensors have other shapes.
    smaller = [m for m in touched if any(names_of.get(id(t)) in keep for t in _own(m))]
    _settle(model, smaller, topology, kept, target)
    return model


def _own(module: nn.Module) -> tuple[Tensor, ...]:
    return *module.parameters(recurse=False), *module.buffers(recurse=False)


def sliced(
    tensors: Mapping[str, Tensor], topology: Topology, kept: KeptChannels, parent: KeptChannels | None = None
) -> dict[str, Tensor]:
    """Slice tensors that belong to parameters, such as momenta and masks, as `cut` slices the parameters.

    Args:
        tensors: Name of a parameter -> tensor of its shape. Tensors with other names are left unchanged.
        topology: Topology of the dense model.
        kept: Channels and blocks that stay.
        parent: Channels and blocks that the tensors have; None for all.

    Returns:
        The sliced tensors, without those of dropped blocks.
    """
    source = alive_positions(topology, parent) if parent is not None else {}
    keep = _relative(alive_positions(topology, kept), source)
    gone = {name for block in topology.dropped(kept.dropped) for name in block.tensors}
    scratch = _Scratch()
    return {
        name: scratch.slice(tensor, keep[name]) if keep.get(name) else tensor
        for name, tensor in tensors.items()
        if name not in gone
    }


def _settle(
    model: nn.Module,
    touched: list[nn.Module],
    topology: Topology,
    kept: KeptChannels,
    alive: Mapping[tuple[str, int], Tensor],
) -> None:
    """Update the numbers in modules: first those that follow a group, then those that follow weights.

    alive: the positions that `kept` leaves on each axis.
    """
    for module in touched:
        SlimMultiheadAttention.adopt(module)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(_is_slim(part) for part in module.modules()):
            module.use_nested_tensor = False  # nested tensors only run in torch's fused kernel
    update_group_numbers(model, topology, kept)
    for module in touched:
        update_weight_numbers(module)
    for block in topology.dropped(kept.dropped):
        skip(model, block, topology, alive)
    drop_cached_tensors(model)


def _scales(
    topology: Topology, kept: KeptChannels, parent: KeptChannels | None
) -> dict[str, list[tuple[Rescale, float]]]:
    """Map tensors to positions and factors: the square root of the share of the parent's channels that stays."""
    scales: dict[str, list[tuple[Rescale, float]]] = {}
    for group in topology.groups:
        before = group.channels if parent is None else parent.widths.get(group.name, group.channels)
        share = kept.widths.get(group.name, group.channels) / before
        for values in group.rescaled if share < 1 else ():
            scales.setdefault(values.tensor, []).append((values, math.sqrt(share)))
    return scales


def _multiply(tensor: Tensor, scales: list[tuple[Rescale, float]], alive: Mapping[int, Tensor | None]) -> None:
    """Multiply positions of a sliced tensor, in place. alive: axis -> dense positions that the tensor has."""
    for values, factor in scales:
        positions = alive.get(values.axis)
        index = torch.from_numpy(values.index)
        where = index if positions is None else torch.isin(positions, index).nonzero().squeeze(1)
        shape = [-1 if axis == values.axis else 1 for axis in range(tensor.ndim)]
        factors = torch.ones(tensor.shape[values.axis], dtype=tensor.dtype, device=tensor.device)
        tensor.mul_(factors.index_fill(0, where.to(tensor.device), factor).view(shape))


def _is_slim(module: nn.Module) -> bool:
    return isinstance(module, SlimMultiheadAttention)


def dense_shapes(topology: Topology) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that the structure determines.

    Args:
        topology: The topology.

    Returns:
        Name -> shape in the dense model.
    """
    return _shapes(topology, {})


def _shapes(topology: Topology, alive: Mapping[tuple[str, int], Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of parameters and of tensors with groups, if only the positions `alive` are left.

    Other buffers may change their shape from one call to the next, such as one that holds an activation.
    """
    held = {member.tensor for group in topology.groups for member in group.members}
    return {
        name: tuple(len(alive[name, axis]) if (name, axis) in alive else size for axis, size in enumerate(info.shape))
        for name, info in topology.tensors.items()
        if info.is_parameter or name in held
    }


def _relative(
    target: Mapping[tuple[str, int], Tensor], source: Mapping[tuple[str, int], Tensor]
) -> dict[str, dict[int, Tensor]]:
    """Return the positions to keep, relative to the model that is cut: tensor -> axis -> positions.

    target, source: dense positions in the model to make, and in the model that is cut.
    """
    relative: dict[str, dict[int, Tensor]] = {}
    for key, alive in target.items():
        before = source.get(key)
        if before is not None:
            where = torch.searchsorted(before, alive)
            if len(alive) > len(before) or not bool((before[where.clamp(max=len(before) - 1)] == alive).all()):
                raise SurgeryError(
                    error_message(
                        "kept channels", "be among the parent's", f"others on {key[0]}", "Cut from a wider parent."
                    )
                )
            if len(where) == len(before):
                continue
            alive = where
        relative.setdefault(key[0], {})[key[1]] = alive
    missing = source.keys() - target.keys()
    if missing:
        raise SurgeryError(
            error_message("kept channels", "be among the parent's", f"a wider axis of {min(missing)[0]}")
        )
    return relative


class _Scratch:
    """index_select axis by axis, with two reused buffers for the intermediate results.

    New intermediates for every weight would cost more in page faults than the copying itself.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor | None] = [None, None]

    def slice(self, tensor: Tensor, axes: Mapping[int, Tensor]) -> Tensor:
        """Return the positions kept on each axis, in the tensor's memory format."""
        memory_format = _memory_format(tensor)
        # Whole rows first: they are contiguous, and the remaining tensor is smaller.
        steps = sorted(axes.items())
        for number, (axis, where) in enumerate(steps[:-1]):
            shape = [len(where) if dim == axis else size for dim, size in enumerate(tensor.shape)]
            tensor = torch.index_select(
                tensor, axis, where.to(tensor.device), out=self._room(tensor, shape, number % 2)
            )
        axis, where = steps[-1]
        tensor = tensor.index_select(axis, where.to(tensor.device))
        return tensor if memory_format is None else tensor.contiguous(memory_format=memory_format)

    def _room(self, like: Tensor, shape: list[int], number: int) -> Tensor:
        needed = math.prod(shape)
        buffer = self._buffers[number]
        if buffer is None or buffer.numel() < needed or buffer.dtype != like.dtype or buffer.device != like.device:
            buffer = self._buffers[number] = torch.empty(needed, dtype=like.dtype, device=like.device)
        return buffer[:needed].view(shape)


def _memory_format(tensor: Tensor) -> torch.memory_format | None:
    """Return the channels-last format of a tensor; None for the default format."""
    if not tensor.is_contiguous():
        for rank, memory_format in ((4, torch.channels_last), (5, torch.channels_last_3d)):
            if tensor.ndim == rank and tensor.is_contiguous(memory_format=memory_format):
                return memory_format
    return None
