"""Match classes of channels across rows, and pairs of nodes that do not overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt


def match_rows(rows: Sequence[Mapping[int, list[int]]]) -> tuple[list[list[int]], list[int]]:
    """Find sets of classes that lie equally often in every row.

    Equally frequent classes are matched first, in order.

    Args:
        rows: For each row its classes, by how often they lie in it.

    Returns:
        The sets, and the classes that are left.
    """
    sets: list[list[int]] = []
    left: list[list[tuple[int, int]]] = [[] for _ in rows]
    for count in sorted({count for row in rows for count in row}):
        alike = [row.get(count, []) for row in rows]
        matched = min(map(len, alike))
        sets += [list(together) for together in zip(*(nodes[:matched] for nodes in alike), strict=True)]
        for own, nodes in zip(left, alike, strict=True):
            own += [(count, node) for node in nodes[matched:]]
    sums, open_ = [0] * len(rows), list[int]()
    while left[shortest := sums.index(min(sums))]:
        count, node = left[shortest].pop(0)
        sums[shortest] += count
        open_.append(node)
        if len(set(sums)) == 1:
            sets.append(open_)
            open_ = []
    return sets, open_ + [node for row in left for _, node in row]


def disjoint_pairs(
    a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Choose pairs of which no two share a node.

    Args:
        a: First nodes of the pairs, [pairs].
        b: Second nodes of the pairs, [pairs].

    Returns:
        First and second nodes of the chosen pairs, the first pair among them.
    """
    nodes = np.stack((a, b), axis=1)
    _, first, place = np.unique(nodes.reshape(-1), return_index=True, return_inverse=True)
    earliest = (first // 2)[place.reshape(nodes.shape)]
    chosen = (earliest == np.arange(len(nodes))[:, None]).all(axis=1)
    return a[chosen], b[chosen]
