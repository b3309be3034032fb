"""Resolve a plan: from its amounts to the number of channels that stay, and to the channels themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from autoprune.criteria.blocks import score_block
from autoprune.criteria.registry import score
from autoprune.criteria.signals import Signals
from autoprune.plan.allocation import BlockPlan, GroupPlan, RankingPlan
from autoprune.plan.criteria import BLOCK_CRITERIA, CRITERIA
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.plan.widths import (
    check_block_count,
    lies_inside,
    named_blocks,
    planned_widths,
    prunable_blocks,
    ranked_count,
    ranked_groups,
    removal_bounds,
    tensors_of_blocks,
)
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.topology import Topology

#: Tolerance within which a share of channels counts as a whole number.
_EXACT = 1e-9


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
    blocks = BLOCK_CRITERIA.signals_for(wanted.criterion for wanted in plan.block_plans.values())
    return tuple(sorted({*CRITERIA.signals_for(names), *blocks}))


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
        names = named_blocks(topology, plan.dropped)
        return plan if names == plan.dropped else replace(plan, dropped=names)
    dropped = plan.dropped
    for kind, wanted in plan.block_plans.items():
        check_block_count(kind, wanted.count, topology, plan.dropped)
        dropped = (*dropped, *_lowest(kind, wanted, dropped, topology, signals))
    groups = {
        name: group if group.threshold is None else _below(topology.group(name), group, signals)
        for name, group in plan.groups.items()
    }
    resolved = replace(
        plan, groups=groups, ranking=None, dropped=named_blocks(topology, dropped), blocks=None, layers=None
    )
    if plan.ranking is None:
        return resolved
    counts = _ranked(plan.ranking, resolved, topology, signals)
    ranked = {name: GroupPlan(count=count, criterion=plan.ranking.criterion) for name, count in counts.items()}
    return replace(resolved, groups={**groups, **ranked})


def _lowest(kind: str, wanted: BlockPlan, dropped: Sequence[str], topology: Topology, signals: Signals) -> list[str]:
    left = prunable_blocks(topology, dropped, kind)  # fewer where blocks were dropped with layers
    scores = {name: float(score_block(wanted.criterion, topology.block(name), topology, signals)) for name in left}
    return sorted(left, key=scores.__getitem__)[: wanted.count]


def _below(group: ChannelGroup, plan: GroupPlan, signals: Signals) -> GroupPlan:
    """Remove the channels under the threshold, but never more than the group can spare."""
    assert plan.threshold is not None
    under = int((score(plan.criterion, group, signals) < plan.threshold).sum())
    return GroupPlan(count=min(under, group.channels - group.min_channels), criterion=plan.criterion)


def _ranked(ranking: RankingPlan, plan: PruningPlan, topology: Topology, signals: Signals) -> dict[str, int]:
    """Compute the channels to remove of each group that the plan does not name and that its blocks do not contain."""
    groups = ranked_groups(plan, topology)
    if not groups:
        return {}
    ordered = [_scaled(score(ranking.criterion, group, signals).cpu(), ranking.scale).sort().values for group in groups]
    fewest, most = removal_bounds(ranking, groups)
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
    return max(ranked_count(ranking, channels, always + len(scores)) - always, 0)


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


def _scaled(scores: Tensor, scale: str) -> Tensor:
    if scale == "none":
        return scores
    by = scores.mean() if scale == "mean" else scores.max()
    return scores / by if float(by) > 0 else scores


def select_channels(
    plan: ResolvedPlan, topology: Topology, signals: Signals, widths: Mapping[str, int] | None = None
) -> KeptChannels:
    """Score the remaining channels and keep the best, as many as the plan keeps.

    Args:
        plan: Resolved plan.
        topology: Topology of the dense model.
        signals: Signals of the model to cut, which must be at least as wide as the plan.
        widths: Group name -> channels to keep in place of the plan's widths, for a step of a pruning schedule.

    Returns:
        The channels and blocks that stay.
    """
    kept: dict[str, tuple[int, ...]] = {}
    gone = tensors_of_blocks(plan.plan, topology)
    for name, width in (plan.widths if widths is None else widths).items():
        group = topology.group(name)
        alive = signals.alive(group)
        assert width <= len(alive), f"{name}: {width} channels planned, {len(alive)} alive"
        if width == len(alive) or lies_inside(group, gone):
            kept[name] = tuple(alive[:width].tolist())  # whole, or in dropped blocks: nothing to choose
            continue
        scores = score(plan.criterion(name), group, signals)
        best = torch.topk(scores, width).indices
        kept[name] = tuple(alive[best.cpu()].tolist())
    return KeptChannels(groups=kept, dropped=plan.dropped)
