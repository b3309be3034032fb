"""What blocks make of what passes through them: how much they change it, what the loss says, gates on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from autoprune.criteria.calibration import Loss
from autoprune.task.data import Batch, call, evaluating
from autoprune.task.modes import in_mode_of
from autoprune.trace.blocks import DroppableBlock, Gap

#: (block, what enters, what leaves) -> a factor on the change from one to the other, or None to leave it. What enters
#: is None where no module of a branch is given what it is added to; then what is added stands for what leaves.
BlockHook = Callable[[DroppableBlock, Tensor | None, Tensor], Tensor | None]
#: What entered and what came out -> what leaves, and what comes out with a factor on the change.
_Leaving = tuple[Tensor, Callable[[Tensor], Tensor]]


@contextmanager
def hook_blocks(model: nn.Module, blocks: Sequence[DroppableBlock], crossed: BlockHook) -> Iterator[None]:
    """Call `crossed` at each call of a block with the tensor that it carries on, before and after."""
    handles: list[RemovableHandle] = []
    for block in blocks:
        handles += _hooks(model, block, crossed)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hooks(model: nn.Module, block: DroppableBlock, crossed: BlockHook) -> list[RemovableHandle]:
    entered: list[Tensor] = []
    end = block.gaps[-1]
    entry = block.entry if block.is_branch else (end.module, end.source)

    def enter(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        del module
        assert entry is not None
        given = args[entry[1]] if isinstance(entry[1], int) else kwargs[entry[1]]
        assert isinstance(given, Tensor)
        entered.append(given.clone())  # a block may add to its input in place

    def leave(module: nn.Module, args: tuple[object, ...], output: object) -> object:
        del module, args
        before = entered.pop() if entry is not None else None
        whole = isinstance(output, tuple | list)
        out = output[end.position or 0] if isinstance(output, tuple | list) else output
        assert isinstance(out, Tensor)
        after, scaled = _leaving(block, before, out)
        factor = crossed(block, before, after)
        if factor is None:
            return None
        new = scaled(factor.to(device=out.device, dtype=out.dtype))
        return _with(output, end, new) if whole else new

    handles = [model.get_submodule(end.module).register_forward_hook(leave)]
    if entry is not None:
        handles.append(model.get_submodule(entry[0]).register_forward_pre_hook(enter, with_kwargs=True))
    return handles


def _leaving(block: DroppableBlock, before: Tensor | None, out: Tensor) -> _Leaving:
    """With a factor of 1 the same comes out, bit by bit."""
    if block.is_branch or before is None:
        return (out if before is None else before + out), lambda factor: out * factor
    return out, lambda factor: out + (factor - 1.0) * (out - before)


def _with(output: object, end: Gap, new: Tensor) -> tuple[object, ...] | list[object]:
    """Outputs of the same type with another tensor in one place."""
    assert isinstance(output, tuple | list)
    changed: list[object] = [new if place == end.position else value for place, value in enumerate(output)]
    if isinstance(output, list):
        return changed
    made: tuple[object, ...] = output._make(changed) if hasattr(output, "_make") else tuple(changed)
    return made


@torch.no_grad()
def measure_block_changes(
    model: nn.Module, batches: Sequence[Batch], blocks: Sequence[DroppableBlock]
) -> dict[str, float]:
    """Name of a block -> 1 less the mean cosine similarity between what enters and what leaves it, >= 0; one forward.

    The similarity is that of the channels at each position of each sample, over all uses of the block. Channels lie
    along the last axis of what is carried on, as in sequences, or along axis 1 in a block of convolutions over as
    many axes. Left out are blocks that are never called, and branches whose modules are not given what they add to.
    """
    found: dict[str, list[Tensor]] = {}
    along = {block.name: _channel_axis(model.get_submodule(block.name)) for block in blocks}

    def crossed(block: DroppableBlock, before: Tensor | None, after: Tensor) -> None:
        if before is None:
            return
        axis = along[block.name](before.ndim)
        found.setdefault(block.name, []).append(_cosine(before.double(), after.double(), axis).flatten())

    with evaluating(model), hook_blocks(model, blocks, crossed):
        for batch in batches if blocks else ():
            call(model, batch.inputs)
    return {name: max(1.0 - float(torch.cat(each).mean()), 0.0) for name, each in found.items()}


@torch.no_grad()
def measure_block_losses(
    model: nn.Module, batches: Sequence[Batch], loss: Loss, blocks: Sequence[DroppableBlock]
) -> dict[str, float]:
    """Name of a block -> mean loss of the batches without the change that it makes; one forward for each block."""
    gone = torch.zeros(())
    found: dict[str, float] = {}
    for block in blocks:
        with in_mode_of(loss, model), hook_blocks(model, [block], lambda *_: gone):
            losses = [float(loss(call(model, batch.inputs), batch.targets)) * batch.size for batch in batches]
        found[block.name] = sum(losses) / max(sum(batch.size for batch in batches), 1)
    return found


def _channel_axis(module: nn.Module) -> Callable[[int], int]:
    """Number of axes of what a block carries on -> the axis of its channels."""
    kernels = {part.weight.ndim for part in module.modules() if isinstance(part, nn.modules.conv._ConvNd)}
    mixes = any(isinstance(part, nn.Linear) for part in module.modules())
    # A sequence may be convolved on its way too; images are not read by linear layers as they lie.
    return lambda axes: 1 if axes in kernels and (axes > 3 or not mixes) else -1


def _cosine(before: Tensor, after: Tensor, axis: int) -> Tensor:
    """Along an axis; two vectors of zeros are the same."""
    cosine = torch.nn.functional.cosine_similarity(before, after, dim=axis)
    return cosine.masked_fill((before == 0).all(axis) & (after == 0).all(axis), 1.0)


@torch.enable_grad()
def measure_block_gradients(
    model: nn.Module, batches: Sequence[Batch], loss: Loss, blocks: Sequence[DroppableBlock]
) -> dict[str, Tensor]:
    """Name of a block -> derivative of each batch's loss to a factor on what the block adds, at 1, float64 [batches].

    One forward and backward, in the mode of the loss, whether or not weights are frozen. Blocks that the loss does not
    reach are left out.
    """
    factors = {block.name: torch.ones((), dtype=torch.float64, requires_grad=True) for block in blocks}
    found: dict[str, list[Tensor]] = {}

    def crossed(block: DroppableBlock, before: Tensor | None, after: Tensor) -> Tensor:
        del before, after
        return factors[block.name]

    with in_mode_of(loss, model), hook_blocks(model, blocks, crossed):
        for batch in batches if blocks else ():
            value = loss(call(model, batch.inputs), batch.targets)
            if not value.requires_grad:
                continue
            slopes = torch.autograd.grad(value, list(factors.values()), allow_unused=True)
            for name, slope in zip(factors, slopes, strict=True):
                if slope is not None:
                    found.setdefault(name, []).append(slope)
    return {name: torch.stack(each) for name, each in found.items()}
