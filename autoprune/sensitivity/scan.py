"""The sensitivity scan: loss after cutting one group alone, for a few shares of its channels, or without one block."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from autoprune.candidate import Bench
from autoprune.codec import Format, describe_value, from_plain, parse, stored, to_plain
from autoprune.criteria.gathering import count_passes, gather_signals
from autoprune.criteria.kept import KeptChannels
from autoprune.criteria.registry import score, signals_for
from autoprune.criteria.resolve import prunable_blocks, width_of
from autoprune.criteria.signals import Signals
from autoprune.errors import ConfigurationError, StorageError, error_message, user_code
from autoprune.recovery.batch_norm import keeps_statistics, recalibrate
from autoprune.recovery.fine_tune import Samples
from autoprune.surgery.cut import cut
from autoprune.task.data import Batch, call, take
from autoprune.task.modes import in_mode_of
from autoprune.trace.topology import ChannelGroup, Topology

#: Shares of a group's channels that stay when it is scanned.
KEEP_SHARES = (0.75, 0.5, 0.25, 0.1)
#: Share of the dense loss that losing half a group is taken to cost at the least, so that no group is free.
_FLOOR = 1e-3
#: Calibration samples below which a share of each group is given up rather than more of them.
_FEW = 32


@stored(Format(what="a block that a scan left out"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A block or a layer that was left out, all others whole.

    name: of the block. added_loss: what the loss rises by; below 0 where it falls.
    parameters, multiply_adds: what goes with it, as shares of the dense model's, in [0, 1].
    """

    name: str
    added_loss: float
    parameters: float
    multiply_adds: float


@stored(Format(what="a scan", version=1, optional=("note", "seconds", "dropped")))
@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Loss added by keeping only a share of one group's channels, or by leaving out one block, all others whole.

    keep_shares: descending, in (0, 1). added_loss: group name -> added loss per share, non-decreasing.
    criterion: what ranked the channels. samples_forward, samples_trained: what the scan took.
    note: "" or what was left out to keep to a number of samples. seconds: that it took; no part of what it found.
    dropped: blocks and layers that a study decides on, each left out alone; none in a scan of an earlier version.
    """

    keep_shares: tuple[float, ...]
    added_loss: Mapping[str, tuple[float, ...]]
    criterion: str
    samples_forward: int
    samples_trained: int
    note: str = ""
    seconds: float = field(default=0.0, compare=False)
    dropped: tuple[Dropped, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "added_loss", MappingProxyType({k: tuple(v) for k, v in self.added_loss.items()}))

    def added(self, group: str, keep_share: float) -> float:
        """Added loss at any share, interpolated in the logarithm of the share."""
        return float(self.curve(group, np.array([keep_share]))[0])

    def curve(self, group: str, keep_shares: np.ndarray) -> np.ndarray:
        """Added loss at each of several shares, [n]."""
        losses = np.array([0.0, *self.added_loss[group]])
        x = -np.log(np.clip([1.0, *self.keep_shares], 1e-6, 1.0))
        at = -np.log(np.maximum(keep_shares, 1e-6))
        slope = (losses[-1] - losses[-2]) / (x[-1] - x[-2])
        return np.asarray(np.where(at <= x[-1], np.interp(at, x, losses), losses[-1] + slope * (at - x[-1])))

    def summed(self, ties: Mapping[str, Sequence[str]]) -> Sensitivity:
        """The scan of groups that are tied: what they add together, under the name of each tie."""
        added = {
            name: tuple(float(loss) for loss in np.sum([self.added_loss[member] for member in members], axis=0))
            for name, members in ties.items()
        }
        return replace(self, added_loss=added)

    def to_json(self) -> str:
        """JSON that `from_json` reads."""
        return json.dumps(to_plain(self))

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "a sensitivity file") -> Sensitivity:
        """Read a scan. where: what holds the text, for the message. Raises StorageError for text that is no scan."""
        found = from_plain(cls, parse(text, where), where)
        shares = found.keep_shares
        right = all(0 < share < 1 for share in shares) and all(a > b for a, b in itertools.pairwise(shares))
        if not shares or not right:
            raise StorageError(error_message(f"keep_shares of {where}", "fall, each in (0, 1)", describe_value(shares)))
        for name, losses in found.added_loss.items():
            if len(losses) != len(shares):
                raise StorageError(
                    error_message(f"added_loss[{name!r}] of {where}", f"hold {len(shares)}", describe_value(losses))
                )
        for name in ("samples_forward", "samples_trained", "seconds"):
            if getattr(found, name) < 0:
                raise StorageError(error_message(f"{name} of {where}", "be >= 0", getattr(found, name)))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much a scan looks at.

    keep_shares: of each group, descending. samples: of the calibration samples. forward: samples that it sees by
    forwards, at the most. note: "" or what is left out.
    """

    keep_shares: tuple[float, ...]
    samples: int
    forward: int
    note: str = ""


def extent(
    bench: Bench, criterion: str, keep_shares: Sequence[float] = KEEP_SHARES, samples: int | None = None
) -> Extent:
    """What a scan looks at so that it sees no more than `samples` samples by forwards; all for None.

    Where that is short: down to two shares of each group, then fewer calibration samples down to _FEW, then one share,
    then fewer samples still. The same for every group; blocks and layers are each left out once. Raises
    ConfigurationError where not even that fits.
    """
    task, shares = bench.task, tuple(keep_shares)
    held = sum(batch.size for batch in task.calibration)
    norms = any(keeps_statistics(module) for module in task.dense.modules())
    once = 1 + count_passes(signals_for((criterion,)))[0]
    groups, blocks = len(bench.topology.groups), len(prunable_blocks(bench.topology))

    def each(count: int) -> int:
        """Forwards of each calibration sample, with so many shares of each group."""
        return once + (groups * count + blocks) * (2 if norms else 1)

    if samples is None or each(len(shares)) * held <= samples:
        return Extent(keep_shares=shares, samples=held, forward=each(len(shares)) * held)
    counts = [*range(len(shares), 1, -1), 1]
    whole = next((count for count in counts[:-1] if each(count) * held <= samples), 0)
    some = next((count for count in (min(2, len(shares)), 1) if samples // each(count) >= min(_FEW, held)), 1)
    count = whole or some
    left = held if whole else min(samples // each(count), held)
    least = 2 if norms else 1  # a norm's variance takes two
    if left < least:
        what = "one share of each group" + " and each block" * (blocks > 0)
        expected = f"be >= {each(1) * least}, for {least} calibration samples and {what}"
        raise ConfigurationError(error_message("scan_samples", expected, samples, "scan=False leaves the scan out."))
    note = f"{count} of {len(shares)} shares of each group, on {left} of {held} calibration samples"
    return Extent(
        keep_shares=_fewer(shares, count),
        samples=left,
        forward=each(count) * left,
        note=f"{note}, to see no more than {samples:,} samples",
    )


def _fewer(shares: tuple[float, ...], count: int) -> tuple[float, ...]:
    """So many of the shares, leaving out the widest, which says least, and the narrowest in turn."""
    while len(shares) > count:
        shares = shares[1:] if (len(shares) - count) % 2 else shares[:-1]
    return shares


@user_code("The sensitivity scan")
def scan(
    bench: Bench,
    criterion: str,
    keep_shares: Sequence[float] = KEEP_SHARES,
    *,
    samples: int | None = None,
    on_part: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Cut each group and leave out each block alone, recalibrate, and take the loss on the calibration batches.

    samples: most samples seen by forwards, see `extent`; None for no limit. on_part: called after each group and each
    block with how many are done and how many there are.
    Only training data is used, so that the search split is not spent on it.
    """
    start, task, topology = time.monotonic(), bench.task, bench.topology
    size = extent(bench, criterion, keep_shares, samples)
    batches = take(iter(task.calibration), size.samples, task.least_batch)
    whole = KeptChannels.whole(topology)
    needed = signals_for((criterion,))
    signals = gather_signals(task.dense, needed, (topology, whole), batches, task.objective, task.seed)
    base = _loss(bench, task.dense, batches)
    trial = _Trial(bench, batches, base)
    added: dict[str, tuple[float, ...]] = {}
    dropped: list[Dropped] = []
    count = parts(topology)
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


def parts(topology: Topology) -> int:
    """Count what a scan looks at one by one: groups, and blocks and layers that a study decides on."""
    return len(topology.groups) + len(prunable_blocks(topology))


@dataclass(slots=True)
class _Trial:
    """Cuts of the dense model, and what they add to its loss.

    base: the loss of the dense model. forward: samples seen until now.
    """

    bench: Bench
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
        """The rise of the loss."""
        task = self.bench.task
        model = cut(task.dense, self.bench.topology, kept)
        self.forward += recalibrate(model, self.batches, task.least_batch) + self.held
        return _loss(self.bench, model, self.batches) - self.base

    def without(self, block: str) -> Dropped:
        """The loss and the costs without one block or layer."""
        topology = self.bench.topology
        parameters, multiply_adds = topology.cost({}).shares_gone(topology.cost({}, dropped=(block,)))
        return Dropped(
            name=block,
            added_loss=self.added(KeptChannels(groups={}, dropped=(block,))),
            parameters=parameters,
            multiply_adds=multiply_adds,
        )


def spent(sensitivity: Sensitivity) -> Samples:
    """What a scan took, as samples."""
    return Samples(forward=sensitivity.samples_forward, trained=sensitivity.samples_trained)


def _nested(group: ChannelGroup, criterion: str, signals: Signals, shares: Sequence[float]) -> list[KeptChannels]:
    order = torch.argsort(score(criterion, group, signals), descending=True, stable=True)
    counts = [width_of(group, 1.0 - share) for share in shares]
    return [KeptChannels(groups={group.name: tuple(order[:count].tolist())}) for count in counts]


@torch.no_grad()
def _loss(bench: Bench, model: nn.Module, batches: Sequence[Batch]) -> float:
    loss, total, count = bench.task.objective, 0.0, 0
    with in_mode_of(loss, model):
        for batch in batches:
            total += float(loss(call(model, batch.inputs), batch.targets)) * batch.size
            count += batch.size
    value = total / max(count, 1)
    return value if np.isfinite(value) else 1e6
