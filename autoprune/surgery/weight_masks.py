"""Make masks of single weights, apply them, and update them while a model recovers.

A mask is a bool tensor of its weight's shape; True stays. Patterns treat a weight as rows and columns. The columns are
the inputs: the dim that its layer sums over, dim 1 unless another is named. The rows are the first of the other dims:
the outputs of a linear layer or convolution, also of one that is stored transposed.

- "unstructured": any entries.
- "N:M": N of M neighbours along the columns stay, for each row and each position of the kernel.
- "block-RxC": blocks of the matrix [rows, kernel positions * columns], in which the columns (inputs) of one kernel
  position lie side by side, as in memory in the channels-last format. Blocks at the edges may be smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import ConfigurationError, SurgeryError, UnknownNameError, error_message
from autoprune.plan.weights import PATTERNS, WeightPlan, block_pattern, group_pattern


def pattern_mask(scores: Tensor, pattern: str, sparsity: float, *, share: float = 1.0) -> Tensor:
    """Mask the lowest scores of one weight.

    "unstructured": exactly round(sparsity * share * entries) entries are masked, but one stays. "N:M": round(M - share
    * (M - N)) of M stay; columns after the last whole group of a row stay. "block-RxC": blocks of the lowest mean score
    are masked, until the number of zeros is as near to sparsity * share * entries as whole blocks come, at most half a
    block above it; one block stays. Of equal scores the first is masked.

    Args:
        scores: Scores [rows, columns, ...]; NaN counts as the highest score.
        pattern: The pattern.
        sparsity: Share of the entries that is masked at the end, in [0, 1); ignored for "N:M".
        share: Share of the final sparsity that is reached now, in [0, 1], for a schedule.

    Returns:
        The mask, bool, of the shape of the scores.

    Raises:
        UnknownNameError: For an unknown pattern.
    """
    grouped, block = group_pattern(pattern), block_pattern(pattern)
    if grouped is not None:
        return _group_mask(scores, grouped, share)
    if block is None and pattern != "unstructured":
        raise UnknownNameError("a pattern", pattern, PATTERNS)
    (mask,) = _ranked_together([scores], block, sparsity * share)
    return mask


def layer_sparsities(shapes: Mapping[str, tuple[int, ...]], plan: WeightPlan) -> dict[str, float]:
    """Compute the final sparsity of each weight, for the spreads that need no scores.

    "layer" gives each weight the target. "erk" (Erdos-Renyi-Kernel; Evci et al., Rigging the Lottery, 2020) makes the
    density of a weight proportional to the sum of its dims over their product; a weight with a density above 1 stays
    dense, and the others make up for it. Weights with a sparsity in the plan have that one, and the others meet the
    target together. "N:M" is the same in every layer.

    Args:
        shapes: Name -> shape of the weights that may be masked.
        plan: The plan for weights.

    Returns:
        Name -> sparsity, in [0, 1).

    Raises:
        UnknownNameError: For a weight of the plan that is not among them.
        ConfigurationError: For the spread "global".
    """
    _check_named(plan, shapes)
    fixed = group_pattern(plan.pattern) is not None
    if plan.spread == "global" and not fixed:
        raise ConfigurationError(error_message("a spread that needs no scores", "be layer or erk", "'global'"))
    spread = {name: shape for name, shape in shapes.items() if name not in plan.layers}
    if plan.spread == "erk" and not fixed:
        found = _erdos_renyi_kernel(spread, plan.target)
    else:
        found = dict.fromkeys(spread, plan.target)
    return {name: plan.layers.get(name, found.get(name, 0.0)) for name in shapes}


def masks(
    scores: Mapping[str, Tensor], plan: WeightPlan, *, share: float = 1.0, axes: Mapping[str, int] | None = None
) -> dict[str, Tensor]:
    """Make the masks of a model.

    With the spread "global", all weights without a sparsity in the plan share one ranking of their scores: exactly
    round(target * share * entries) of their entries are masked, or whole blocks as near to that as possible. The best
    entry or block of each weight stays, and others are masked in its place.

    Args:
        scores: Name -> scores, of every weight that may be masked, in its shape.
        plan: The plan for weights.
        share: Share of the final sparsity that is reached now, in [0, 1].
        axes: Name -> dim of its columns, as in `Topology.input_axes`; 1 by default.

    Returns:
        Name -> mask; weights with sparsity 0 are left out.

    Raises:
        UnknownNameError: For a weight of the plan without scores.
    """
    _check_named(plan, scores)
    axes = axes or {}
    scores = {name: _columns_second(score, axes.get(name, 1)) for name, score in scores.items()}
    together = plan.spread == "global" and group_pattern(plan.pattern) is None
    shapes = {name: tuple(score.shape) for name, score in scores.items()}
    sparsities = plan.layers if together else layer_sparsities(shapes, plan)
    found = {
        name: pattern_mask(scores[name], plan.pattern, sparsity, share=share)
        for name, sparsity in sparsities.items()
        if sparsity > 0
    }
    ranked = {name: score for name, score in scores.items() if name not in sparsities}
    if ranked and plan.target > 0:
        made = _ranked_together(list(ranked.values()), block_pattern(plan.pattern), plan.target * share)
        found |= dict(zip(ranked, made, strict=True))
    return {name: _columns_at(found[name], axes.get(name, 1)) for name in scores if name in found}


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set masked entries to exactly 0, in place; the others keep their bits.

    Not to minus zero, which the compressed file would have to store.

    Args:
        model: The model.
        masks: Name of a parameter -> mask.

    Raises:
        SurgeryError: If the model has no such parameter, or one of another shape.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.shape != mask.shape:
            got = "no such parameter" if parameter is None else f"shape {tuple(parameter.shape)}"
            raise SurgeryError(
                error_message(f"the mask of {name}", f"fit a parameter of shape {tuple(mask.shape)}", got)
            )
        parameter.masked_fill_(~mask.to(parameter.device), 0)


def regrow(
    mask: Tensor, weight: Tensor, gradient: Tensor, exchange: float, pattern: str = "unstructured", axis: int = 1
) -> Tensor:
    """Exchange the smallest weights for silent entries of the largest gradients.

    Source: Evci et al., Rigging the Lottery (RigL), 2020. round(exchange * active) entries of the smallest |weight| are
    masked, and as many silent ones of the largest |gradient| become active; fewer if fewer are silent. "N:M": every
    exchange is within one group of M. "block-RxC": blocks are compared by their mean, and exchanged for blocks of the
    same size. Of equal entries the first is taken.

    Args:
        mask: The present mask.
        weight: The weight, of the same shape.
        gradient: Gradient of the loss for every entry, active or silent, of the same shape.
        exchange: Share of the active entries that is exchanged, in [0, 1).
        pattern: The pattern.
        axis: Dim of the columns.

    Returns:
        The new mask, with as many active entries.

    Raises:
        UnknownNameError: For an unknown pattern.
    """
    grouped, block = group_pattern(pattern), block_pattern(pattern)
    if grouped is None and block is None and pattern != "unstructured":
        raise UnknownNameError("a pattern", pattern, PATTERNS)
    mask, sizes, slopes = (_columns_second(t, axis) for t in (mask, weight.detach().abs(), gradient.detach().abs()))
    if grouped is not None:
        after = _regrow_groups(mask, sizes, slopes, exchange, grouped[1])
    elif block is not None:
        after = _regrow_blocks(mask, sizes, slopes, exchange, block)
    else:
        flat = mask.flatten()
        after = _exchanged(flat, sizes.flatten(), slopes.flatten(), exchange, torch.ones_like(flat)).view(mask.shape)
    return _columns_at(after, axis)


def _columns_second(tensor: Tensor, axis: int) -> Tensor:
    """Move the columns from `axis` to dim 1: [rows, columns, ...]."""
    return tensor.movedim(axis, 1)


def _columns_at(tensor: Tensor, axis: int) -> Tensor:
    """Move the columns of [rows, columns, ...] back to `axis`, contiguous."""
    return tensor.movedim(1, axis).contiguous()


def _check_named(plan: WeightPlan, known: Iterable[str]) -> None:
    names = set(known)
    for name in plan.layers:
        if name not in names:
            raise UnknownNameError("a weight with a sparsity of its own", name, names)


def _ranked_together(scores: Sequence[Tensor], block: tuple[int, int] | None, sparsity: float) -> list[Tensor]:
    """Return masks of weights whose entries or blocks share one ranking. One of each weight stays."""
    if block is None:
        count = round(sparsity * sum(score.numel() for score in scores))
        stays = _but_one([score.flatten() for score in scores], lambda free, _: _lowest(free, count))
        return [part.view(score.shape) for part, score in zip(stays, scores, strict=True)]
    means = [_block_means(score, block) for score in scores]
    sizes = torch.cat([_block_sizes(score.shape, block, score.device).flatten() for score in scores])
    zeros = sparsity * int(sizes.sum())
    chosen = _but_one([mean.flatten() for mean in means], lambda free, which: _lowest_up_to(free, sizes[which], zeros))
    return [
        _whole_blocks(part.view(mean.shape), score.shape, block)
        for part, mean, score in zip(chosen, means, scores, strict=True)
    ]


def _but_one(parts: Sequence[Tensor], lowest: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """Return bool masks of parts [n] in one ranking, with the best of each part kept.

    lowest: (scores [m], bool [all]: which entries they are) -> bool [m], those to mask.
    """
    together, lengths = torch.cat(list(parts)), [len(part) for part in parts]
    free = torch.ones_like(together, dtype=torch.bool)
    stays = ~lowest(together, free)
    if all(part.any() or not len(part) for part in stays.split(lengths)):
        return list(stays.split(lengths))
    for part, scores in zip(free.split(lengths), parts, strict=True):
        if len(scores):  # of equal scores the first is masked, so the last of the best stays
            part[len(scores) - 1 - int(_comparable(scores).flip(0).argmax())] = False
    stays = torch.ones_like(free)
    stays[free] = ~lowest(together[free], free)
    return list(stays.split(lengths))


def _lowest(scores: Tensor, count: int) -> Tensor:
    """Return bool [n]: exactly `count` of the scores [n], the lowest; of equal ones the first."""
    gone, count = torch.zeros_like(scores, dtype=torch.bool), min(count, len(scores))
    if count <= 0:
        return gone
    values = _comparable(scores)
    # kthvalue is linear on a CPU; elsewhere it may not be deterministic, and sorting is quick.
    on_cpu = values.device.type == "cpu"
    threshold = values.kthvalue(count).values if on_cpu else values.sort().values[count - 1]
    gone = values < threshold
    ties = (values == threshold).nonzero().squeeze(1)
    gone[ties[: count - int(gone.sum())]] = True
    return gone


def _lowest_up_to(scores: Tensor, sizes: Tensor, total: float) -> Tensor:
    """Return bool [n]: the lowest scores [n], as many as bring the sum of their sizes [n] nearest to `total`."""
    order = _comparable(scores).argsort(stable=True)
    sums = F.pad(sizes[order].cumsum(0), (1, 0))
    count = int((sums.double() - total).abs().argmin())
    gone = torch.zeros_like(scores, dtype=torch.bool)
    gone[order[:count]] = True
    return gone


def _comparable(scores: Tensor) -> Tensor:
    """Return scores in a dtype that can be ranked; NaN becomes the highest."""
    values = scores.detach()
    values = values if values.dtype in (torch.float32, torch.float64) else values.float()
    return values.masked_fill(values.isnan(), math.inf)


def _erdos_renyi_kernel(shapes: Mapping[str, tuple[int, ...]], target: float) -> dict[str, float]:
    """Return the sparsity of each weight such that all together have the target."""
    entries = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / entries[name] for name, shape in shapes.items() if entries[name]}
    free = dict(raw)
    while free:
        capped = sum(entries[name] for name in raw if name not in free)
        left = (1.0 - target) * sum(entries.values()) - capped
        factor = left / sum(free[name] * entries[name] for name in free)
        dense = [name for name in free if factor * free[name] >= 1.0]
        if not dense:
            return {name: 1.0 - factor * free[name] if name in free else 0.0 for name in shapes}
        for name in dense:
            del free[name]
    return dict.fromkeys(shapes, 0.0)


def _group_mask(scores: Tensor, grouped: tuple[int, int], share: float) -> Tensor:
    stay, of = grouped
    groups, whole = _groups(_comparable(scores), of)
    gone = of - round(of - share * (of - stay))
    lowest = groups.argsort(dim=1, stable=True)[:, :gone]
    return _ungroup(torch.ones_like(groups, dtype=torch.bool).scatter(1, lowest, False), scores, whole)


def _groups(tensor: Tensor, of: int) -> tuple[Tensor, int]:
    """Return neighbours along dim 1 as [groups, M], and the number of columns in whole groups."""
    whole = tensor.shape[1] // of * of
    return tensor.movedim(1, -1)[..., :whole].reshape(-1, of), whole


def _ungroup(groups: Tensor, like: Tensor, whole: int) -> Tensor:
    """Return the mask of a weight from the masks of its groups; columns outside groups are True."""
    mask = torch.ones_like(like, dtype=torch.bool, memory_format=torch.contiguous_format).movedim(1, -1)
    mask[..., :whole] = groups.view(*mask.shape[:-1], whole)
    return mask.movedim(-1, 1)


def _block_means(tensor: Tensor, block: tuple[int, int]) -> Tensor:
    """Return the mean of the entries of each block, [rows of blocks, columns of blocks]."""
    rows, columns = block
    matrix = _comparable(tensor).movedim(1, -1).flatten(1)
    padded = F.pad(matrix, (0, -matrix.shape[1] % columns, 0, -matrix.shape[0] % rows))
    tiles = padded.view(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    return tiles.sum((1, 3)) / _block_sizes(tensor.shape, block, tensor.device)


def _block_sizes(shape: Sequence[int], block: tuple[int, int], device: torch.device) -> Tensor:
    """Return the number of entries of each block, int64 [rows of blocks, columns of blocks]."""
    height, width = (
        (length - torch.arange(0, length, size, device=device)).clamp(max=size)
        for length, size in zip((shape[0], math.prod(shape[1:])), block, strict=True)
    )
    return height[:, None] * width


def _whole_blocks(chosen: Tensor, shape: Sequence[int], block: tuple[int, int]) -> Tensor:
    """Expand a mask of blocks [rows of blocks, columns of blocks] to the shape of the weight."""
    rows, columns = block
    matrix = chosen.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    matrix = matrix[: shape[0], : math.prod(shape[1:])]
    return matrix.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1).contiguous()


def _exchanged(active: Tensor, sizes: Tensor, slopes: Tensor, exchange: float, among: Tensor) -> Tensor:
    """Return bool [n]: among some entries, exchange the smallest active ones for the steepest silent ones."""
    on, off = (active & among).nonzero().squeeze(1), (~active & among).nonzero().squeeze(1)
    count = min(round(exchange * len(on)), len(off))
    after = active.clone()
    after[on[_lowest(sizes[on], count)]] = False
    after[off[_lowest(-slopes[off], count)]] = True
    return after


def _regrow_groups(mask: Tensor, sizes: Tensor, slopes: Tensor, exchange: float, of: int) -> Tensor:
    """Exchange within groups: each offers pairs, its smallest weight for its steepest silent entry.

    The pairs with the smallest weights are exchanged.
    """
    active, whole = _groups(mask, of)
    sizes, slopes = (_comparable(_groups(part, of)[0]) for part in (sizes, -slopes))
    dropped, grown = _order(sizes, active), _order(slopes, ~active)
    staying = active.sum(1, keepdim=True)
    offered = torch.arange(of, device=mask.device) < torch.minimum(staying, of - staying)
    pairs = offered.flatten().nonzero().squeeze(1)
    count = min(round(exchange * int(staying.sum())), len(pairs))
    taken = torch.zeros_like(offered).flatten()
    taken[pairs[_lowest(sizes.gather(1, dropped).flatten()[pairs], count)]] = True
    row, place = taken.view_as(offered).nonzero(as_tuple=True)
    after = active.clone()
    after[row, dropped[row, place]] = False
    after[row, grown[row, place]] = True
    return _ungroup(after, mask, whole)


def _order(values: Tensor, first: Tensor) -> Tensor:
    """Return positions [groups, M] in the order of their values [groups, M], those in `first` before the others."""
    order = values.argsort(dim=1, stable=True)
    return order.gather(1, (~first).gather(1, order).to(torch.uint8).argsort(dim=1, stable=True))


def _regrow_blocks(mask: Tensor, sizes: Tensor, slopes: Tensor, exchange: float, block: tuple[int, int]) -> Tensor:
    means = [_block_means(part, block) for part in (mask.float(), sizes, -slopes)]
    # A NaN counts as the highest mean; of -slopes that is the last one to become active.
    active, size, slope = means[0].flatten() > 0.5, means[1].flatten(), -means[2].flatten()
    entries = _block_sizes(mask.shape, block, mask.device).flatten()
    after = active
    for of in entries.unique().tolist():  # up to four: whole blocks, those of both edges, the corner
        after = _exchanged(after, size, slope, exchange, entries == of)
    return _whole_blocks(after.view(means[0].shape), mask.shape, block)
