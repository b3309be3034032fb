"""Which widths are fast: classes of groups, the widths to time, and the grain that explains the times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.records.layer_table import LayerTable

#: Grains that are looked for; the last one is a multiple of all.
GRAINS = (1, 2, 4, 8, 16)
#: Channels that each group loses, in turn; the same for classes of narrow groups.
LOST: tuple[int, ...] = (0, 1, 2, 3, 4, 6, 8, 12, 16)
_LOST_IF_NARROW = LOST[:7]
#: Most classes with a staircase of their own: those with the most work.
_MOST_CLASSES = 4
#: Smallest share of a group's multiply-adds in one kind of layers that counts.
_SHARE = 0.1
#: A smaller grain explains the times as well as a larger one if its error is larger by at most this share, or by this
#: share of the latency.
_AS_GOOD, _ANYWAY = 1.1, 0.003
#: Standard errors between two times that count as a difference: of few comparisons, and of two multiples, with up to 36
#: pairs.
_FREE, _RISES = 2.0, 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupClass:
    """Groups whose channels are made and read by the same kinds of layers.

    Attributes:
        layers: The kinds, for people.
        anchors: Group name -> width from which channels are lost, a multiple of the largest grain; only of groups that
            are wide enough.
        lost: Numbers of channels that each of them loses.
        groups: Names of all groups of the class.
    """

    layers: str
    anchors: Mapping[str, int]
    lost: tuple[int, ...]
    groups: tuple[str, ...]

    def widths(self, lost: int) -> dict[str, int]:
        """Return the widths after each group has lost channels.

        Args:
            lost: Number of channels.

        Returns:
            Group name -> width.
        """
        return {name: anchor - lost for name, anchor in self.anchors.items()}


def group_classes(table: LayerTable) -> list[GroupClass]:
    """Sort the groups of channels into classes with a staircase each. Attention heads have grain 1 and none.

    Args:
        table: Work of the layers.

    Returns:
        The classes, that with the most multiply-adds first. A group of a rarer class joins the one with which it has
        the most kinds of layers in common, if any.
    """
    made = _multiply_adds(table)
    keys = {group: _key(table, group, kinds) for group, kinds in made.items() if kinds}
    work: dict[tuple[str, ...], float] = {}
    for group, key in keys.items():
        if _anchor(table, group, _LOST_IF_NARROW):
            work[key] = work.get(key, 0.0) + sum(made[group].values())
    main = sorted(work, key=lambda key: -work[key])[:_MOST_CLASSES]
    members: dict[tuple[str, ...], list[int]] = {key: [] for key in main}
    for group, key in keys.items():
        nearest = max(main, key=lambda other: (key[0] == other[0], len({*key[1:]} & {*other[1:]})), default=None)
        if nearest is not None and key[0] == nearest[0] and {*key[1:]} & {*nearest[1:]}:
            members[key if key in members else nearest].append(group)
    return [_class_of(table, ", ".join(key[1:]), groups) for key, groups in members.items()]


def _class_of(table: LayerTable, layers: str, groups: Sequence[int]) -> GroupClass:
    anchors, lost = {}, LOST
    for lost in (LOST, _LOST_IF_NARROW):
        anchors = {table.names[group]: anchor for group in groups if (anchor := _anchor(table, group, lost))}
        if anchors:
            break
    return GroupClass(layers=layers, anchors=anchors, lost=lost, groups=tuple(table.names[group] for group in groups))


def _multiply_adds(table: LayerTable) -> dict[int, dict[str, float]]:
    """Multiply-adds of the layers around each group that is no group of heads, by kind of layer."""
    costs = table.costs()
    found: dict[int, dict[str, float]] = {
        group: {} for group in range(len(table.names)) if table.kinds[group] != "heads"
    }
    for entry, one in enumerate(table.work):
        if one.unit != "multiply_adds":
            continue
        size = costs.terms[entry].multiply_adds
        for length in one.lengths:
            size *= table.lengths[length].whole
        for group in table.groups_of(entry):
            if group in found:
                found[group][one.kind] = found[group].get(one.kind, 0.0) + size
    return found


def _key(table: LayerTable, group: int, kinds: Mapping[str, float]) -> tuple[str, ...]:
    """The kind of a group and the kinds of its layers that count."""
    least = _SHARE * sum(kinds.values())
    return (table.kinds[group], *sorted(kind for kind, size in kinds.items() if size >= least))


def _anchor(table: LayerTable, group: int, lost: Sequence[int]) -> int:
    """The widest multiple of the largest grain from which so many channels can be lost; 0 for a narrow group."""
    channels, most = table.channels[group], GRAINS[-1]
    anchor = channels // most * most
    return anchor if anchor - lost[-1] >= max(table.least[group], 1) else 0


def find_grain(lost: Sequence[int], ratios: Sequence[float], half_widths: Sequence[float]) -> int:
    """Find the smallest grain that explains the times of widths below a multiple of all grains.

    With grain g, a width takes as long as the next multiple of g, or longer where it is off the grain: ratio = a - b
    floor(lost / g) g + c [lost is no multiple of g], with b, c >= 0, fitted by least squares. By these times, beyond
    their noise, rounding up to a multiple of the grain is never slower, and no multiple is slower than a wider one.

    Args:
        lost: Channels lost, ascending.
        ratios: Latency for each, as a share of the dense model's.
        half_widths: Half the 95 % interval of each, as a share of it.

    Returns:
        One of GRAINS.
    """
    gone, times = np.array(lost, dtype=np.float64), np.array(ratios)
    spread = np.hypot(np.array(half_widths) / 2, 0.005) * times
    errors = {grain: _error(gone, times, spread, grain) for grain in GRAINS}
    free = [grain for grain in GRAINS if _is_free(gone, times, spread, grain)]
    allowed = [grain for grain in free if _never_rises(gone, times, spread, grain)] or free
    best = min(errors[grain] for grain in allowed)
    return next(grain for grain in allowed if errors[grain] <= max(best * _AS_GOOD, best + _ANYWAY))


def _error(gone: np.ndarray, times: np.ndarray, spread: np.ndarray, grain: int) -> float:
    """Root of the mean squared error of the fit, as a share of the latency, weighted by certainty."""
    from scipy.optimize import nnls  # heavy, and needed here alone

    columns = [np.ones(len(gone)), gone.max() - np.floor(gone / grain) * grain, (gone % grain != 0) * 1.0]
    certainty = 1.0 / spread
    scaled = np.stack(columns, axis=1) * certainty[:, None]
    residual = nnls(scaled, times * certainty)[1]
    return float(residual / np.sqrt((certainty**2).sum()) / np.average(times, weights=certainty**2))


def _is_free(gone: np.ndarray, times: np.ndarray, spread: np.ndarray, grain: int) -> bool:
    """Whether no width off the grain is quicker than the next multiple of the grain, beyond noise."""
    for place in np.flatnonzero(gone % grain != 0):
        up = np.flatnonzero(gone == np.floor(gone[place] / grain) * grain)
        if len(up) and times[up[0]] - times[place] > _FREE * np.hypot(spread[up[0]], spread[place]):
            return False
    return True


def _never_rises(gone: np.ndarray, times: np.ndarray, spread: np.ndarray, grain: int) -> bool:
    """Whether no multiple of the grain is slower than a wider one, beyond noise: it would be pruned for nothing.

    Nor may the multiples between those of a coarser grain be slower than these in the mean, which less noise hides.
    """
    on = np.flatnonzero(gone % grain == 0)
    wider, narrower = (on[places] for places in np.triu_indices(len(on), 1))
    if (times[narrower] - times[wider] > _RISES * np.hypot(spread[narrower], spread[wider])).any():
        return False
    for coarser in (one for one in GRAINS if one > grain):
        shares = np.zeros(len(gone))
        for place in on[gone[on] % coarser != 0].tolist():
            shares[place] += 1.0
            shares[gone == np.floor(gone[place] / coarser) * coarser] -= 1.0
        if shares @ times > _FREE * np.linalg.norm(shares * spread):
            return False
    return True
