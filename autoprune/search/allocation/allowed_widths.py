"""AllowedWidths: which widths a group may have. The one definition that spaces, solver, repair and profiles share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

from autoprune.records.cost_table import CostTable

#: Rounding errors of computed widths.
_TINY = 1e-7


def allowed_ladder(least: int, grain: int, channels: int) -> np.ndarray:
    """List the widths that one group may have.

    These are the multiples of the grain, and all channels. Below one grain they are its half, its quarter and so on: a
    runtime that computes eight channels at once does four or two at once as well, and a network of whole grains would
    never be narrow.

    Args:
        least: Fewest channels, >= 1.
        grain: Distance between fast widths, >= 1.
        channels: Dense width, >= least.

    Returns:
        Widths from `least` on, ascending, float.

    Example:
        >>> allowed_ladder(2, 8, 20).astype(int).tolist()
        [2, 4, 8, 16, 20]
    """
    halves = [grain >> step for step in reversed(range(1, grain.bit_length()))]
    found = np.array([*halves, *range(grain, channels, grain), channels], dtype=np.float64)
    return np.unique(found[(found >= least) & (found <= channels)])


class AllowedWidths:
    """Allowed widths of some groups. All arrays are float [groups].

    Args:
        ladders: Widths of each group, ascending, the dense one last, see `allowed_ladder`.

    Attributes:
        base: Narrowest widths.
        top: Dense widths.
    """

    def __init__(self, ladders: Sequence[np.ndarray]) -> None:
        self.base = np.array([ladder[0] for ladder in ladders], dtype=np.float64)
        self.top = np.array([ladder[-1] for ladder in ladders], dtype=np.float64)
        self._ladders = tuple(ladders)
        # All ladders in one ascending array, each moved beyond the one before.
        self._moved = np.arange(len(ladders)) * (self.top.max(initial=0.0) + 1.0)
        self._first = np.array([0, *accumulate(len(ladder) for ladder in ladders)][: len(ladders)], dtype=np.int64)
        moved = [ladder + offset for ladder, offset in zip(ladders, self._moved, strict=True)]
        self._all = np.concatenate(moved) if moved else np.zeros(0)

    @classmethod
    def of(cls, least: Sequence[int], grains: Sequence[int], channels: Sequence[int]) -> AllowedWidths:
        """Build the allowed widths of some groups.

        Args:
            least: Fewest channels of each group.
            grains: Grain of each group.
            channels: Dense widths.

        Returns:
            The allowed widths.
        """
        return cls([allowed_ladder(*one) for one in zip(least, grains, channels, strict=True)])

    def down(self, exact: np.ndarray) -> np.ndarray:
        """Find the largest allowed width at or below each width.

        Args:
            exact: Float [..., groups].

        Returns:
            Float [..., groups]; the base where there is none below.
        """
        places = np.searchsorted(self._all, self._inside(exact) + _TINY, side="right") - 1
        return np.asarray(self._all[places] - self._moved)

    def up(self, exact: np.ndarray) -> np.ndarray:
        """Find the smallest allowed width at or above each width.

        Args:
            exact: Float [..., groups].

        Returns:
            Float [..., groups]; dense where there is none above.
        """
        return np.asarray(self._all[np.searchsorted(self._all, self._inside(exact) - _TINY)] - self._moved)

    def nearest(self, exact: np.ndarray) -> np.ndarray:
        """Find the nearest allowed width, the narrower of two that are equally near.

        Args:
            exact: Float [..., groups].

        Returns:
            Float [..., groups].
        """
        low, high = self.down(exact), self.up(exact)
        return np.where(exact - low <= high - exact, low, high)

    def steps(self, widths: np.ndarray) -> np.ndarray:
        """Count the allowed widths below each width; fractions lie between two.

        Args:
            widths: Float [..., groups].

        Returns:
            Float [..., groups]: differences say how far widths are apart, however wide the steps of a group are.
        """
        return np.asarray(np.interp(self._inside(widths), self._all, np.arange(len(self._all))) - self._first)

    def neighbours(self, widths: np.ndarray, group: int, reach: int) -> np.ndarray:
        """List the allowed widths of one group near its current one.

        Args:
            widths: Allowed widths, [groups].
            group: Number of the group.
            reach: Most steps away.

        Returns:
            Widths, ascending.
        """
        ladder = self._ladders[group]
        here = int(np.searchsorted(ladder, widths[group] - _TINY))
        return ladder[max(here - reach, 0) : here + reach + 1]

    def rounding_interval(self, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the fractional widths that round to given allowed ones.

        Args:
            widths: Allowed widths, [groups].

        Returns:
            Lower and upper ends, each [groups]; 0 below the narrowest width and infinity above dense.
        """
        below, above = self.down(widths - 1e-3), self.up(widths + 1e-3)
        low = np.where(widths <= self.base, 0.0, (widths + below) / 2)
        return low, np.where(widths >= self.top, np.inf, (widths + above) / 2)

    def _inside(self, exact: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(exact, self.base, self.top) + self._moved)


def allowed_widths(table: CostTable, max_ratio: float, round_to: int | Mapping[str, int]) -> AllowedWidths:
    """Find the widths that the groups of a table may have. Attention heads have grain 1.

    Args:
        table: Table of costs.
        max_ratio: Largest share of one group that may be removed, in (0, 1).
        round_to: Grain of widths, >= 1, or one for each group by name.

    Returns:
        The allowed widths: at least what `max_ratio` and the group itself want.
    """
    grains = round_to if isinstance(round_to, Mapping) else dict.fromkeys(table.names, round_to)
    fewest = np.maximum(1.0, np.ceil(np.array(table.channels, dtype=np.float64) * (1.0 - max_ratio) - 1e-9))
    return AllowedWidths.of(
        np.maximum(fewest, table.least).astype(int).tolist(),
        [1 if kind == "heads" else grains.get(name, 1) for name, kind in zip(table.names, table.kinds, strict=True)],
        table.channels,
    )
