"""The sensitivity scan: loss after cutting one group alone, for a few shares of its channels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from autoprune.candidate import Bench
from autoprune.criteria.amounts import width_of
from autoprune.criteria.gathering import gather, passes
from autoprune.criteria.kept import KeptChannels
from autoprune.criteria.registry import score, signals_for
from autoprune.criteria.signals import Signals
from autoprune.errors import StorageError, fault
from autoprune.recovery.batch_norm import recalibrate
from autoprune.recovery.fine_tune import Samples
from autoprune.surgery.cut import cut
from autoprune.task.data import call
from autoprune.trace.topology import ChannelGroup

#: Shares of a group's channels that stay when it is scanned.
KEEP_SHARES = (0.75, 0.5, 0.25, 0.1)
#: Share of the dense loss that losing half a group is taken to cost at the least, so that no group is free.
_FLOOR = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Loss added by keeping only a share of one group's channels, all others whole.

    keep_shares: descending, in (0, 1). added_loss: group name -> added loss per share, non-decreasing.
    criterion: what ranked the channels. samples_forward, samples_trained: what the scan took.
    """

    keep_shares: tuple[float, ...]
    added_loss: Mapping[str, tuple[float, ...]]
    criterion: str
    samples_forward: int
    samples_trained: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "added_loss", MappingProxyType({k: tuple(v) for k, v in self.added_loss.items()}))

    def added(self, group: str, keep_share: float) -> float:
        """Added loss at any share, interpolated in the logarithm of the share."""
        shares = [1.0, *self.keep_shares]
        losses = [0.0, *self.added_loss[group]]
        x = -np.log(np.clip(shares, 1e-6, 1.0))
        at = float(-np.log(max(keep_share, 1e-6)))
        if at <= x[-1]:
            return float(np.interp(at, x, losses))
        slope = (losses[-1] - losses[-2]) / (x[-1] - x[-2])
        return float(losses[-1] + slope * (at - x[-1]))

    def to_json(self) -> str:
        """JSON that `from_json` reads."""
        return json.dumps(
            {"version": 1, **{n: getattr(self, n) for n in self.__slots__}, "added_loss": dict(self.added_loss)}
        )

    @classmethod
    def from_json(cls, text: str) -> Sensitivity:
        """Raises StorageError for text that is no scan."""
        try:
            data = json.loads(text)
            if data["version"] != 1:
                raise StorageError(fault("a sensitivity file's version", "be 1", data["version"], "Upgrade autoprune."))
            return cls(
                keep_shares=tuple(data["keep_shares"]),
                added_loss={name: tuple(losses) for name, losses in data["added_loss"].items()},
                criterion=data["criterion"],
                samples_forward=data["samples_forward"],
                samples_trained=data["samples_trained"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                fault("a sensitivity file", "hold a scan", f"{type(error).__name__}: {error}")
            ) from error


def scan(bench: Bench, criterion: str, keep_shares: Sequence[float] = KEEP_SHARES) -> Sensitivity:
    """Cut each group alone, recalibrate, and take the loss on the calibration batches.

    Only training data is used, so that the search split is not spent on it.
    """
    task, topology = bench.task, bench.topology
    whole = KeptChannels.whole(topology)
    needed = signals_for((criterion,))
    signals = gather(task.dense, needed, (topology, whole), task.calibration, task.loss, task.seed)
    base = _loss(bench, task.dense)
    held = sum(batch.size for batch in task.calibration)
    forward, added = held, {}
    for group in topology.groups:
        losses, highest = [], 0.0
        for number, kept in enumerate(_nested(group, criterion, signals, keep_shares)):
            model = cut(task.dense, topology, kept)
            forward += recalibrate(model, task.calibration) + held
            floor = _FLOOR * abs(base) * (number + 1)
            highest = max(highest, floor, _loss(bench, model) - base)
            losses.append(highest)
        added[group.name] = tuple(losses)
    return Sensitivity(
        keep_shares=tuple(keep_shares),
        added_loss=added,
        criterion=criterion,
        samples_forward=forward + held * passes(needed)[0],
        samples_trained=held * passes(needed)[1],
    )


def spent(sensitivity: Sensitivity) -> Samples:
    """What a scan took, as samples."""
    return Samples(forward=sensitivity.samples_forward, trained=sensitivity.samples_trained)


def _nested(group: ChannelGroup, criterion: str, signals: Signals, shares: Sequence[float]) -> list[KeptChannels]:
    order = torch.argsort(score(criterion, group, signals), descending=True, stable=True)
    counts = [width_of(group, 1.0 - share) for share in shares]
    return [KeptChannels(groups={group.name: tuple(order[:count].tolist())}) for count in counts]


@torch.no_grad()
def _loss(bench: Bench, model: nn.Module) -> float:
    model.eval()
    total, count = 0.0, 0
    for batch in bench.task.calibration:
        total += float(bench.task.loss(call(model, batch.inputs), batch.targets)) * batch.size
        count += batch.size
    value = total / max(count, 1)
    return value if np.isfinite(value) else 1e6
