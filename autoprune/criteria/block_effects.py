"""Effects of residual blocks: change of the carried tensor, gradients of the loss, and losses without the block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from autoprune.criteria.calibration import Loss
from autoprune.structure.blocks import DroppableBlock, Gap
from autoprune.task.data import Batch, call, eval_mode
from autoprune.task.modes import in_mode_of

#: (block, input, output) -> a factor on the change that the block makes, or None to leave the change. The input is None
#: for a branch whose modules are not given the tensor that the branch is added to; the output is the addition then.
BlockHook = Callable[[DroppableBlock, Tensor | None, Tensor], Tensor | None]
#: Output of a block, and a function from a factor on the block's change to the new output of the hooked module.
_Leaving = tuple[Tensor, Callable[[Tensor], Tensor]]


@contextmanager
def hook_blocks(model: nn.Module, blocks: Sequence[DroppableBlock], crossed: BlockHook) -> Iterator[None]:
    """Call a hook at each call of a block, with the block's input and output.

    Args:
        model: Model that has the blocks; it is hooked inside the context only.
        blocks: Blocks to hook.
        crossed: Hook; the factor that it returns scales the block's change.

    Yields:
        Nothing; run the model inside the block.
    """
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
    """Return the output of a block, and how a factor changes it. A factor of 1 changes nothing, bit by bit."""
    if block.is_branch or before is None:
        return (out if before is None else before + out), lambda factor: out * factor
    return out, lambda factor: out + (factor - 1.0) * (out - before)


def _with(output: object, end: Gap, new: Tensor) -> tuple[object, ...] | list[object]:
    """Replace one tensor of a module's outputs; the type stays."""
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
    """Measure the change that each block makes to the tensor that it carries, in one forward.

    The similarity compares the channels at each position of each sample, over all uses of the block. Channels lie along
    the last axis of the carried tensor, as in sequences, or along axis 1 in a block of convolutions over as many axes.

    Args:
        model: Model that has the blocks.
        batches: Calibration batches on the model's device.
        blocks: Blocks to measure.

    Returns:
        Name of a block -> 1 less the mean cosine similarity of input and output, >= 0. Left out are blocks that are
        never called, and branches whose modules are not given the tensor that the branch is added to.
    """
    found: dict[str, list[Tensor]] = {}
    along = {block.name: _channel_axis(model.get_submodule(block.name)) for block in blocks}

    def crossed(block: DroppableBlock, before: Tensor | None, after: Tensor) -> None:
        if before is None:
            return
        axis = along[block.name](before.ndim)
        found.setdefault(block.name, []).append(_cosine(before.double(), after.double(), axis).flatten())

    with eval_mode(model), hook_blocks(model, blocks, crossed):
        for batch in batches if blocks else ():
            call(model, batch.inputs)
    return {name: max(1.0 - float(torch.cat(each).mean()), 0.0) for name, each in found.items()}


@torch.no_grad()
def measure_block_losses(
    model: nn.Module, batches: Sequence[Batch], loss: Loss, blocks: Sequence[DroppableBlock]
) -> dict[str, float]:
    """Measure the loss without each block's change; one forward for each block.

    Args:
        model: Model that has the blocks.
        batches: Calibration batches on the model's device.
        loss: Loss of the task.
        blocks: Blocks to measure.

    Returns:
        Name of a block -> mean loss over the samples.
    """
    gone = torch.zeros(())
    found: dict[str, float] = {}
    for block in blocks:
        with in_mode_of(loss, model), hook_blocks(model, [block], lambda *_: gone):
            losses = [float(loss(call(model, batch.inputs), batch.targets)) * batch.size for batch in batches]
        found[block.name] = sum(losses) / max(sum(batch.size for batch in batches), 1)
    return found


def _channel_axis(module: nn.Module) -> Callable[[int], int]:
    """Return the function from the number of axes of a carried tensor to its channel axis."""
    kernels = {part.weight.ndim for part in module.modules() if isinstance(part, nn.modules.conv._ConvNd)}
    mixes = any(isinstance(part, nn.Linear) for part in module.modules())
    # A block may convolve a sequence, too; linear layers do not read images in their channels-first layout.
    return lambda axes: 1 if axes in kernels and (axes > 3 or not mixes) else -1


def _cosine(before: Tensor, after: Tensor, axis: int) -> Tensor:
    """Compute the cosine similarity along an axis; two vectors of zeros are equal."""
    cosine = torch.nn.functional.cosine_similarity(before, after, dim=axis)
    return cosine.masked_fill((before == 0).all(axis) & (after == 0).all(axis), 1.0)


@torch.enable_grad()
def measure_block_gradients(
    model: nn.Module, batches: Sequence[Batch], loss: Loss, blocks: Sequence[DroppableBlock]
) -> dict[str, Tensor]:
    """Measure the gradients of the loss to a factor on each block's addition, in one forward and backward.

    The model runs in the mode of the loss; frozen weights do not matter.

    Args:
        model: Model that has the blocks.
        batches: Calibration batches on the model's device.
        loss: Loss of the task.
        blocks: Blocks to measure.

    Returns:
        Name of a block -> derivative of each batch's loss to the factor, at 1, float64 [batches]. Blocks that the loss
        does not reach are left out.
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
