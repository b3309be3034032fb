"""Sensitivity: loss added by cutting each group, and by dropping each block, of an otherwise whole model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from autoprune.codec import Format, from_plain, parse, stored, to_plain
from autoprune.display import describe_value
from autoprune.errors import StorageError, error_message
from autoprune.records.work import Work

#: Losses beyond it are as bad: sums and slopes of larger ones would be no numbers.
_LARGEST = 1e100


@stored(Format(what="a dropped block of a scan"))
@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSensitivity:
    """The effect of dropping one block or layer from the otherwise whole model.

    Attributes:
        name: Name of the block.
        added_loss: Rise of the loss; negative where it falls.
        parameters: Removed parameters as a share of the dense model's, in [0, 1].
        multiply_adds: Removed multiply-adds as a share of the dense model's, in [0, 1].
    """

    name: str
    added_loss: float
    parameters: float
    multiply_adds: float


@stored(Format(what="a scan", version=1, optional=("note", "seconds", "dropped")))
@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Loss added by cutting one group, or by dropping one block, of the otherwise whole model.

    Attributes:
        keep_shares: Shares of a group's channels that stay, descending, in (0, 1).
        added_loss: Group name -> added loss at each share, non-decreasing.
        criterion: Criterion that ranked the channels.
        samples_forward: Samples that the scan passed forward.
        samples_trained: Samples that it passed forward and backward.
        note: What was left out to respect a limit of samples; "" for nothing.
        seconds: Duration of the scan; not compared.
        dropped: Blocks and layers that a study decides on, each dropped alone; empty in scans of earlier versions.
    """

    keep_shares: tuple[float, ...]
    added_loss: Mapping[str, tuple[float, ...]]
    criterion: str
    samples_forward: int
    samples_trained: int
    note: str = ""
    seconds: float = field(default=0.0, compare=False)
    dropped: tuple[BlockSensitivity, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "added_loss", MappingProxyType({k: tuple(v) for k, v in self.added_loss.items()}))

    @property
    def work(self) -> Work:
        """Work of the scan."""
        return Work(forward=self.samples_forward, trained=self.samples_trained)

    def added(self, group: str, keep_share: float) -> float:
        """Interpolate the added loss of a group at any share, in the logarithm of the share.

        Args:
            group: Name of the group.
            keep_share: Share of its channels that stays, in (0, 1].

        Returns:
            The added loss.
        """
        return float(self.curve(group, np.array([keep_share]))[0])

    def curve(self, group: str, keep_shares: np.ndarray) -> np.ndarray:
        """Interpolate the added loss of a group at several shares.

        Args:
            group: Name of the group.
            keep_shares: Shares of its channels that stay, [n].

        Returns:
            Added losses [n].
        """
        losses = np.clip([0.0, *self.added_loss[group]], -_LARGEST, _LARGEST)
        x = -np.log(np.clip([1.0, *self.keep_shares], 1e-6, 1.0))
        at = -np.log(np.maximum(keep_shares, 1e-6))
        slope = (losses[-1] - losses[-2]) / (x[-1] - x[-2])
        return np.asarray(np.where(at <= x[-1], np.interp(at, x, losses), losses[-1] + slope * (at - x[-1])))

    def summed(self, ties: Mapping[str, Sequence[str]]) -> Sensitivity:
        """Sum the losses of tied groups.

        Args:
            ties: Name of a tie -> names of its groups.

        Returns:
            The scan of the ties, under their names.
        """
        added = {
            name: tuple(float(loss) for loss in np.sum([self.added_loss[member] for member in members], axis=0))
            for name, members in ties.items()
        }
        return replace(self, added_loss=added)

    def to_json(self) -> str:
        """Convert to JSON.

        Returns:
            Text that `from_json` reads.
        """
        return json.dumps(to_plain(self))

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "a sensitivity file") -> Sensitivity:
        """Read the text of `to_json`.

        Args:
            text: JSON.
            where: The file it comes from, for messages.

        Returns:
            The scan.

        Raises:
            StorageError: The text is no scan.
        """
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
