"""Resolve a plan: from its amounts to the number of channels that stay, and to the channels themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from autoprune.criteria.blocks import block_signals_for, score_block
from autoprune.criteria.registry import score, signals_for
from autoprune.criteria.signals import Signals
from autoprune.errors import ConfigurationError, error_message
from autoprune.plan.allocation import BlockPlan, GroupPlan, RankingPlan
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.structure.absent import why_none
from autoprune.structure.blocks import independent_blocks
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.topology import Topology

#: Tolerance within which a share of channels counts as a whole number.
_EXACT = 1e-9


def keep_count(channels: int, ratio: float) -> int:
    """Compute how many channels stay.

    Args:
        channels: Number of channels, >= 1.
        ratio: Share to remove, in [0, 1).

    Returns:
        The nearest whole number, at least 1.

    Example:
        >>> keep_count(64, 0.5)
        32
    """
    return max(1, round(channels * (1.0 - ratio)))


def width_of(group: ChannelGroup, ratio: float) -> int:
    """Compute how many channels of a group stay; never fewer than it needs.

    Args:
        group: Group of the dense model.
        ratio: Share to remove, in [0, 1).

    Returns:
        Number of channels.
    """
    return max(group.min_channels, keep_count(group.channels, ratio))


def planned_widths(plan: PruningPlan, topology: Topology) -> dict[str, int]:
    """Compute the widths that a plan keeps.

    Args:
        plan: Plan without scores, such as `resolve_allocation` returns.
        topology: Topology of the dense model.

    Returns:
        Group name -> number of channels that stay.

    Raises:
        ConfigurationError: For a group that does not exist, a count that leaves too few channels, or a plan whose
            amounts depend on scores.
    """
    topology.check_names(plan.groups)
    if plan.needs_scores:
        raise ConfigurationError(
            error_message(
                "a plan whose widths are asked for", "say them", "thresholds or a ranking", "Resolve it first."
            )
        )
    return {
        group.name: _planned(group, plan.groups[group.name]) if group.name in plan.groups else group.channels
        for group in topology.groups
    }


def _planned(group: ChannelGroup, plan: GroupPlan) -> int:
    if plan.count is None:
        return width_of(group, plan.ratio)
    most = group.channels - group.min_channels
    if plan.count > most:
        expected = f"be at most {most}, as {group.min_channels} of its {group.channels} channels must stay"
        raise ConfigurationError(error_message(f"the count of group {group.name!r}", expected, plan.count))
    return group.channels - plan.count


def signals_to_resolve(plan: PruningPlan) -> tuple[str, ...]:
    """Collect the signals on the dense model that `resolve_allocation` needs besides the weights.

    Args:
        plan: Any plan.

    Returns:
        Names of signals, sorted.
    """
    names = [group.criterion for group in plan.groups.values() if group.threshold is not None]
    if plan.ranking is not None:
        names.append(plan.ranking.criterion)
    blocks = block_signals_for(wanted.criterion for wanted in plan.block_plans.values())
    return tuple(sorted({*signals_for(names), *blocks}))


def resolve_allocation(plan: PruningPlan, topology: Topology, signals: Signals | None) -> PruningPlan:
    """Convert thresholds, ranking and numbers of blocks of a plan to counts and names.

    Args:
        plan: Any plan.
        topology: Topology of the dense model.
        signals: Signals of the dense model, with those of `signals_to_resolve`; None for a plan that needs no scores.

    Returns:
        The plan without scores. Names of dropped blocks that follow from others are left out.

    Raises:
        ConfigurationError: For amounts that the model does not allow.
    """
    if signals is None or not plan.needs_scores:
        names = _names(topology, plan.dropped)
        return plan if names == plan.dropped else replace(plan, dropped=names)
    dropped = plan.dropped
    for kind, wanted in plan.block_plans.items():
        check_block_count(kind, wanted.count, topology, plan.dropped)
        dropped = (*dropped, *_lowest(kind, wanted, dropped, topology, signals))
    groups = {
        name: group if group.threshold is None else _below(topology.group(name), group, signals)
        for name, group in plan.groups.items()
    }
    resolved = replace(plan, groups=groups, ranking=None, dropped=_names(topology, dropped), blocks=None, layers=None)
    if plan.ranking is None:
        return resolved
    counts = _ranked(plan.ranking, resolved, topology, signals)
    ranked = {name: GroupPlan(count=count, criterion=plan.ranking.criterion) for name, count in counts.items()}
    return replace(resolved, groups={**groups, **ranked})


def _lowest(kind: str, wanted: BlockPlan, dropped: Sequence[str], topology: Topology, signals: Signals) -> list[str]:
    left = prunable_blocks(topology, dropped, kind)  # fewer where blocks were dropped with layers
    scores = {name: float(score_block(wanted.criterion, topology.block(name), topology, signals)) for name in left}
    return sorted(left, key=scores.__getitem__)[: wanted.count]


def check_block_count(kind: str, count: int, topology: Topology, dropped: Sequence[str] = ()) -> None:
    """Check that a model has as many blocks or layers as a plan drops by number.

    Args:
        kind: "blocks" or "layers".
        count: Number to drop, >= 0.
        topology: Topology of the dense model.
        dropped: Names of blocks that are dropped anyway.

    Raises:
        ConfigurationError: When fewer are left.
    """
    left = prunable_blocks(topology, dropped, kind)
    if count > len(left):
        why = "" if left else why_none(kind, topology)
        raise ConfigurationError(error_message(f"the count of {kind}", f"be at most {len(left)}", count, why))


def prunable_blocks(topology: Topology, dropped: Sequence[str] = (), kind: str = "") -> list[str]:
    """List the blocks that a search decides on; a block that only contains other blocks is left out.

    Args:
        topology: Topology of the dense model.
        dropped: Names of blocks that are dropped already.
        kind: "blocks" or "layers" for that kind alone, "" for both.

    Returns:
        Names of blocks.
    """
    gone = topology.gone(dropped)
    wanted = [block for block in topology.blocks if kind not in ("blocks", "layers") or block.is_of(kind)]
    return [block.name for block in independent_blocks(wanted) if block.name not in gone]


def _names(topology: Topology, dropped: Sequence[str]) -> tuple[str, ...]:
    return tuple(block.name for block in topology.dropped(dropped))


def _below(group: ChannelGroup, plan: GroupPlan, signals: Signals) -> GroupPlan:
    """Remove the channels under the threshold, but never more than the group can spare."""
    assert plan.threshold is not None
    under = int((score(plan.criterion, group, signals) < plan.threshold).sum())
    return GroupPlan(count=min(under, group.channels - group.min_channels), criterion=plan.criterion)


def _ranked(ranking: RankingPlan, plan: PruningPlan, topology: Topology, signals: Signals) -> dict[str, int]:
    """Compute the channels to remove of each group that the plan does not name and that its blocks do not contain."""
    groups = _ranked_groups(plan, topology)
    if not groups:
        return {}
    ordered = [_scaled(score(ranking.criterion, group, signals).cpu(), ranking.scale).sort().values for group in groups]
    fewest, most = _bounds(ranking, groups)
    # The first `fewest` channels of each group always go, channels beyond `most` never: the others are ranked.
    owners = torch.cat(
        [torch.full((high - low,), row) for row, (low, high) in enumerate(zip(fewest, most, strict=True))]
    )
    free = torch.cat([line[low:high] for line, low, high in zip(ordered, fewest, most, strict=True)])
    order = free.sort(stable=True)
    owners = owners[order.indices]

    def gone(taken: int) -> dict[str, int]:
        extra = torch.bincount(owners[:taken], minlength=len(groups)).tolist()
        return {group.name: low + more for group, low, more in zip(groups, fewest, extra, strict=True)}

    channels = sum(group.channels for group in groups)
    return gone(_taken(ranking, plan, topology, (channels, sum(fewest), order.values), gone))


def _ranked_groups(plan: PruningPlan, topology: Topology) -> list[ChannelGroup]:
    gone_whole = _tensors_of_blocks(plan, topology)
    return [g for g in topology.groups if g.name not in plan.groups and not _inside(g, gone_whole)]


def check_ranking(plan: PruningPlan, topology: Topology) -> None:
    """Check that a ranking does not take more channels than its caps allow, where no score decides on that.

    A plan that drops blocks by a criterion is not checked: only `resolve_allocation` knows these blocks.

    Args:
        plan: Any plan.
        topology: Topology of the dense model.

    Raises:
        ConfigurationError: When the ratio or count is too large.
    """
    if plan.ranking is None or plan.block_plans:
        return
    groups = _ranked_groups(plan, topology)
    if groups:
        _wanted(plan.ranking, sum(group.channels for group in groups), sum(_bounds(plan.ranking, groups)[1]))


def _wanted(ranking: RankingPlan, channels: int, most: int) -> int:
    """Compute how many channels go by count or ratio; ConfigurationError when there are more than `most`."""
    wanted = ranking.count if ranking.count is not None else round(channels * (ranking.ratio or 0.0))
    if wanted > most:
        limit = f"take at most {most} of {channels} channels, as cap={ranking.cap} and what must stay allow"
        raise ConfigurationError(error_message("a ranking", limit, wanted))
    return wanted


def _taken(
    ranking: RankingPlan,
    plan: PruningPlan,
    topology: Topology,
    ranked: tuple[int, int, Tensor],
    gone: Callable[[int], Mapping[str, int]],
) -> int:
    """Compute how many of the ranked channels go.

    ranked: channels of all groups, how many of them go anyway, and the scores of the others, rising.
    """
    channels, always, scores = ranked
    if ranking.threshold is not None:
        return int((scores < ranking.threshold).sum())
    if ranking.budget is not None:
        return _within_budget(ranking, plan, topology, len(scores), gone)
    return max(_wanted(ranking, channels, always + len(scores)) - always, 0)


def _within_budget(
    ranking: RankingPlan, plan: PruningPlan, topology: Topology, most: int, gone: Callable[[int], Mapping[str, int]]
) -> int:
    """Find the fewest channels without which the model costs at most the budget; all of them where it cannot."""
    dense = getattr(topology.cost({}), ranking.cost)
    fixed = planned_widths(plan, topology)

    def fits(taken: int) -> bool:
        widths = {name: topology.widths[name] - count for name, count in gone(taken).items()}
        cost = getattr(topology.cost({**fixed, **widths}, plan.dropped), ranking.cost)
        return bool(cost <= dense * (ranking.budget or 0.0))

    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


def _bounds(ranking: RankingPlan, groups: Sequence[ChannelGroup]) -> tuple[list[int], list[int]]:
    """Compute the least and most channels to remove of each group; the channels that a group needs come before its
    floor.
    """
    most = [min(math.floor(g.channels * ranking.cap + _EXACT), g.channels - g.min_channels) for g in groups]
    fewest = [math.ceil(g.channels * ranking.floor - _EXACT) for g in groups]
    return [min(low, high) for low, high in zip(fewest, most, strict=True)], most


def _scaled(scores: Tensor, scale: str) -> Tensor:
    if scale == "none":
        return scores
    by = scores.mean() if scale == "mean" else scores.max()
    return scores / by if float(by) > 0 else scores


def _tensors_of_blocks(plan: PruningPlan, topology: Topology) -> set[str]:
    """Collect the parameters and buffers of the blocks that the plan drops by name."""
    return {tensor for name in plan.dropped for tensor in topology.block(name).tensors}


def _inside(group: ChannelGroup, tensors: set[str]) -> bool:
    return tensors.issuperset(member.tensor for member in group.members)


def select_channels(
    plan: PruningPlan, topology: Topology, signals: Signals, widths: Mapping[str, int] | None = None
) -> KeptChannels:
    """Score the remaining channels and keep the best, as many as the plan keeps.

    Args:
        plan: Plan without scores, such as `resolve_allocation` returns.
        topology: Topology of the dense model.
        signals: Signals of the model to cut, which must be at least as wide as the plan.
        widths: Group name -> channels to keep in place of the plan's widths, for a step of a pruning schedule.

    Returns:
        The channels and blocks that stay.
    """
    kept: dict[str, tuple[int, ...]] = {}
    gone = _tensors_of_blocks(plan, topology)
    for name, width in (planned_widths(plan, topology) if widths is None else widths).items():
        group = topology.group(name)
        alive = signals.alive(group)
        assert width <= len(alive), f"{name}: {width} channels planned, {len(alive)} alive"
        if width == len(alive) or _inside(group, gone):
            kept[name] = tuple(alive[:width].tolist())  # whole, or in dropped blocks: nothing to choose
            continue
        scores = score(plan.groups[name].criterion, group, signals)
        best = torch.topk(scores, width).indices
        kept[name] = tuple(alive[best.cpu()].tolist())
    return KeptChannels(groups=kept, dropped=plan.dropped)
