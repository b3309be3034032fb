"""The sensitivity scan: the loss after cutting one group to a few widths, or after dropping one block."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from autoprune.criteria.gathering import count_passes, gather_signals
from autoprune.criteria.registry import score
from autoprune.criteria.signals import Signals
from autoprune.errors import ConfigurationError, error_message, user_code
from autoprune.plan.criteria import CRITERIA
from autoprune.plan.kept import KeptChannels
from autoprune.plan.widths import prunable_blocks, width_of
from autoprune.records.sensitivity import BlockSensitivity, Sensitivity
from autoprune.recovery.batch_norm import keeps_statistics, recalibrate
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.task.data import Batch, call, take_batches
from autoprune.task.modes import in_mode_of
from autoprune.trial.context import TrialContext

#: Shares of a group's channels that stay when it is scanned.
KEEP_SHARES = (0.75, 0.5, 0.25, 0.1)
#: Lower bound of the added loss of half a group, as a share of the dense loss, so that no group is free.
_FLOOR = 1e-3
#: Calibration samples below which shares are reduced instead of samples.
_FEW = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanPlan:
    """The size of a scan.

    Attributes:
        keep_shares: Shares of each group's channels that stay, descending.
        samples: Number of calibration samples.
        forward: Upper bound of the samples passed forward.
        note: What is left out; "" for nothing.
    """

    keep_shares: tuple[float, ...]
    samples: int
    forward: int
    note: str = ""


def plan_scan(
    context: TrialContext, criterion: str, keep_shares: Sequence[float] = KEEP_SHARES, samples: int | None = None
) -> ScanPlan:
    """Choose the size of a scan so that it passes at most `samples` samples forward.

    If the full scan needs more, it is reduced: first to two shares of each group, then to fewer calibration samples,
    down
    to _FEW, then to one share, then to fewer samples still. The reduction is the same for every group. Each block and
    layer
    is dropped once.

    Args:
        context: Context of the trials.
        criterion: Criterion that ranks channels.
        keep_shares: Shares of each group's channels that stay, descending, in (0, 1).
        samples: Most samples passed forward; None for no limit.

    Returns:
        The plan of the scan.

    Raises:
        ConfigurationError: Not even the smallest scan fits.
    """
    task, shares = context.task, tuple(keep_shares)
    held = sum(batch.size for batch in task.calibration)
    norms = any(keeps_statistics(module) for module in task.dense.modules())
    once = 1 + count_passes(CRITERIA.signals_for((criterion,)))[0]
    groups, blocks = len(context.topology.groups), len(prunable_blocks(context.topology))

    def each(count: int) -> int:
        """Forwards of each calibration sample with `count` shares of each group."""
        return once + (groups * count + blocks) * (2 if norms else 1)

    if samples is None or each(len(shares)) * held <= samples:
        return ScanPlan(keep_shares=shares, samples=held, forward=each(len(shares)) * held)
    counts = [*range(len(shares), 1, -1), 1]
    whole = next((count for count in counts[:-1] if each(count) * held <= samples), 0)
    some = next((count for count in (min(2, len(shares)), 1) if samples // each(count) >= min(_FEW, held)), 1)
    count = whole or some
    left = held if whole else min(samples // each(count), held)
    least = 2 if norms else 1  # the variance of a norm needs two samples
    if left < least:
        what = "one share of each group" + " and each block" * (blocks > 0)
        expected = f"be >= {each(1) * least}, for {least} calibration samples and {what}"
        raise ConfigurationError(error_message("scan_samples", expected, samples, "scan=False skips the scan."))
    note = f"{count} of {len(shares)} shares of each group, on {left} of {held} calibration samples"
    return ScanPlan(
        keep_shares=_fewer(shares, count),
        samples=left,
        forward=each(count) * left,
        note=f"{note}, to see no more than {samples:,} samples",
    )


def _fewer(shares: tuple[float, ...], count: int) -> tuple[float, ...]:
    """Drop shares until `count` are left: the widest, which says least, and the narrowest in turn."""
    while len(shares) > count:
        shares = shares[1:] if (len(shares) - count) % 2 else shares[:-1]
    return shares


@user_code("The sensitivity scan")
def scan(
    context: TrialContext,
    criterion: str,
    keep_shares: Sequence[float] = KEEP_SHARES,
    *,
    samples: int | None = None,
    on_part: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Cut each group and drop each block alone, recalibrate, and measure the loss on the calibration batches.

    Uses training data alone, so that the search split stays unseen.

    Args:
        context: Context of the trials.
        criterion: Criterion that ranks channels.
        keep_shares: Shares of each group's channels that stay, descending, in (0, 1).
        samples: Most samples passed forward, see `plan_scan`; None for no limit.
        on_part: Called after each group and each block with the number done and the number in all.

    Returns:
        The scan.

    Raises:
        ConfigurationError: Not even the smallest scan fits into `samples`.
    """
    start, task, topology = time.monotonic(), context.task, context.topology
    size = plan_scan(context, criterion, keep_shares, samples)
    batches = take_batches(iter(task.calibration), size.samples, task.least_batch)
    whole = KeptChannels.whole(topology)
    needed = CRITERIA.signals_for((criterion,))
    signals = gather_signals(task.dense, needed, (topology, whole), batches, task.objective, task.seed)
    base = _loss(context, task.dense, batches)
    trial = _Trial(context, batches, base)
    added: dict[str, tuple[float, ...]] = {}
    dropped: list[BlockSensitivity] = []
    count = count_parts(topology)
    for group in topology.groups:
        losses, highest = [], 0.0
        for number, kept in enumerate(_nested(group, criterion, signals, size.keep_shares)):
            floor = _FLOOR * abs(base) * (number + 1)
            highest = max(highest, floor, trial.added(kept))
            losses.append(highest)
        added[group.name] = tuple(losses)
        if on_part is not None:
            on_part(len(added), count)
    for name in prunable_blocks(topology):
        dropped.append(trial.without(name))
        if on_part is not None:
            on_part(len(added) + len(dropped), count)
    return Sensitivity(
        keep_shares=size.keep_shares,
        added_loss=added,
        criterion=criterion,
        samples_forward=trial.forward + trial.held * count_passes(needed)[0],
        samples_trained=trial.held * count_passes(needed)[1],
        note=size.note,
        seconds=time.monotonic() - start,
        dropped=tuple(dropped),
    )


def count_parts(topology: Topology) -> int:
    """Count the parts of a scan: groups, and the blocks and layers that a study decides on.

    Args:
        topology: Proved groups of the dense model.

    Returns:
        Their number.
    """
    return len(topology.groups) + len(prunable_blocks(topology))


@dataclass(slots=True)
class _Trial:
    """Cuts of the dense model, and the loss that they add.

    base: loss of the dense model. forward: samples passed forward so far.
    """

    context: TrialContext
    batches: Sequence[Batch]
    base: float
    forward: int = field(init=False)

    def __post_init__(self) -> None:
        self.forward = self.held

    @property
    def held(self) -> int:
        """Samples in all batches."""
        return sum(batch.size for batch in self.batches)

    def added(self, kept: KeptChannels) -> float:
        """The rise of the loss after a cut."""
        task = self.context.task
        model = cut(task.dense, self.context.topology, kept)
        self.forward += recalibrate(model, self.batches, task.least_batch) + self.held
        return _loss(self.context, model, self.batches) - self.base

    def without(self, block: str) -> BlockSensitivity:
        """The loss and the costs after dropping one block or layer."""
        topology = self.context.topology
        parameters, multiply_adds = topology.cost({}).shares_gone(topology.cost({}, dropped=(block,)))
        return BlockSensitivity(
            name=block,
            added_loss=self.added(KeptChannels(groups={}, dropped=(block,))),
            parameters=parameters,
            multiply_adds=multiply_adds,
        )


def _nested(group: ChannelGroup, criterion: str, signals: Signals, shares: Sequence[float]) -> list[KeptChannels]:
    order = torch.argsort(score(criterion, group, signals), descending=True, stable=True)
    counts = [width_of(group, 1.0 - share) for share in shares]
    return [KeptChannels(groups={group.name: tuple(order[:count].tolist())}) for count in counts]


@torch.no_grad()
def _loss(context: TrialContext, model: nn.Module, batches: Sequence[Batch]) -> float:
    loss, total, count = context.task.objective, 0.0, 0
    with in_mode_of(loss, model):
        for batch in batches:
            total += float(loss(call(model, batch.inputs), batch.targets)) * batch.size
            count += batch.size
    value = total / max(count, 1)
    return value if np.isfinite(value) else 1e6
