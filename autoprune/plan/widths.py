"""Widths of a plan, where no score decides on them, and checks of the amounts that a model allows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoprune.errors import ConfigurationError, error_message
from autoprune.plan.allocation import GroupPlan, RankingPlan
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


def named_blocks(topology: Topology, dropped: Sequence[str]) -> tuple[str, ...]:
    """Name the fewest blocks that drop everything named.

    Args:
        topology: Topology of the dense model.
        dropped: Names of blocks.

    Returns:
        Names of blocks, without those that follow from others.

    Raises:
        ConfigurationError: For an unknown name.
    """
    return tuple(block.name for block in topology.dropped(dropped))


def ranked_groups(plan: PruningPlan, topology: Topology) -> list[ChannelGroup]:
    """Return the groups that a plan's ranking decides on.

    Args:
        plan: Plan whose blocks are named.
        topology: Topology of the dense model.

    Returns:
        Groups that the plan does not name and that no dropped block contains.
    """
    gone_whole = tensors_of_blocks(plan, topology)
    return [g for g in topology.groups if g.name not in plan.groups and not lies_inside(g, gone_whole)]


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
    groups = ranked_groups(plan, topology)
    if groups:
        ranked_count(
            plan.ranking, sum(group.channels for group in groups), sum(removal_bounds(plan.ranking, groups)[1])
        )


def ranked_count(ranking: RankingPlan, channels: int, most: int) -> int:
    """Compute how many channels a ranking removes by its count or ratio.

    Args:
        ranking: Ranking of a plan.
        channels: Channels of all ranked groups.
        most: Largest number that may go.

    Returns:
        Number of channels.

    Raises:
        ConfigurationError: When the number is larger than `most`.
    """
    wanted = ranking.count if ranking.count is not None else round(channels * (ranking.ratio or 0.0))
    if wanted > most:
        limit = f"take at most {most} of {channels} channels, as cap={ranking.cap} and what must stay allow"
        raise ConfigurationError(error_message("a ranking", limit, wanted))
    return wanted


def removal_bounds(ranking: RankingPlan, groups: Sequence[ChannelGroup]) -> tuple[list[int], list[int]]:
    """Compute the bounds of a ranking for each group; the channels that a group needs come before its floor.

    Args:
        ranking: Ranking of a plan.
        groups: Groups that it ranks.

    Returns:
        Least and most channels to remove of each group.
    """
    most = [min(math.floor(g.channels * ranking.cap + _EXACT), g.channels - g.min_channels) for g in groups]
    fewest = [math.ceil(g.channels * ranking.floor - _EXACT) for g in groups]
    return [min(low, high) for low, high in zip(fewest, most, strict=True)], most


def tensors_of_blocks(plan: PruningPlan, topology: Topology) -> set[str]:
    """Collect the parameters and buffers of the blocks that a plan drops by name.

    Args:
        plan: Any plan.
        topology: Topology of the dense model.

    Returns:
        Names of tensors.
    """
    return {tensor for name in plan.dropped for tensor in topology.block(name).tensors}


def lies_inside(group: ChannelGroup, tensors: set[str]) -> bool:
    """Tell whether a group lies wholly inside some tensors.

    Args:
        group: Any group.
        tensors: Names of tensors.

    Returns:
        True where they hold every member of the group.
    """
    return tensors.issuperset(member.tensor for member in group.members)
