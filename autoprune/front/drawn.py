"""Draws of the samples: how often a candidate is ahead of all others together that cost no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autoprune.front.pairs import Pairs, no_names, places_in
from autoprune.front.pool import Noisy, Pool
from autoprune.records.confidence import CONFIDENCE
from autoprune.records.paired import draw_change, draw_changes

#: Draws of the samples.
_DRAWS = 400
#: Rivals that a candidate is compared with at once, the best ones first: a few are enough to beat most.
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Drawn:
    """Draws of the samples at one moment, the same ones for all candidates whose folds are known.

    Attributes:
        folds: Number of folds of each metric; empty where draws cannot be kept.
        names: Names of the candidates.
        losses: For each metric the losses of the candidates, float [names, draws].
        counted: Candidates, and their rivals among `names` that `ahead` counts.
        ahead: In which draws each of these candidates is ahead of these rivals, see `_terms`; int8 [candidates, draws].
    """

    folds: tuple[int, ...] = ()
    names: np.ndarray = field(default_factory=no_names)
    losses: tuple[np.ndarray, ...] = ()
    counted: Pairs = field(default_factory=Pairs)
    ahead: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int8))


def are_likely(
    pool: Pool, places: np.ndarray, front: np.ndarray, noisy: Noisy, before: Drawn
) -> tuple[np.ndarray, Drawn]:
    """Tell which dominated candidates are non-dominated in enough draws of the samples; a tie counts half.

    Args:
        pool: All candidates.
        places: Positions of the dominated ones that no single one beats beyond noise.
        front: Positions of the non-dominated ones.
        noisy: Objectives with noise.
        before: Draws at an earlier moment of the same study.

    Returns:
        Bool [places], and the draws.
    """
    known = np.concatenate([places, front])
    folds = _folds(pool, known, noisy) if len(places) else ()
    before = before if folds == before.folds else Drawn(folds)
    losses = _draw(pool, known, noisy, before) if len(places) else ()
    if not losses:
        return np.ones(len(places), dtype=bool), Drawn()
    names, of_all = pool.names[places], pool.names[known]
    count = _Count.go_on(losses, _rivals(pool, places, known, noisy, losses), before, (names, of_all))
    count.start(np.argsort(pool.points[known, noisy.columns[noisy.first]], kind="stable"))
    count.finish()
    kept = Drawn(folds, of_all, losses, Pairs(names, of_all, count.counted), count.ahead) if folds else Drawn()
    return _are_likely(count.ahead), kept


@dataclass(frozen=True, slots=True)
class _Count:
    """Candidates, which are the first known ones, and the rivals that were counted of each so far.

    A candidate that is not likely needs no further ones: they make it ahead in no more draws.
    """

    losses: tuple[np.ndarray, ...]
    rivals: np.ndarray
    counted: np.ndarray
    ahead: np.ndarray

    @classmethod
    def go_on(
        cls, losses: tuple[np.ndarray, ...], rivals: np.ndarray, before: Drawn, names: Sequence[np.ndarray]
    ) -> _Count:
        """Take over the counts of candidates that still have all rivals that were counted.

        names: those of the candidates and of all known ones.
        """
        counted = before.counted.at(*names)
        origins = places_in(before.counted.ones, names[0])
        total = np.append(before.counted.holds.sum(axis=1), 0)[origins]
        lost = (counted & ~rivals).any(axis=1) | (counted.sum(axis=1) < total)
        counted[lost] = False
        ahead = np.ones((len(rivals), losses[0].shape[1]), dtype=np.int8)
        same = (origins >= 0) & ~lost
        if same.any():
            ahead[same] = before.ahead[origins[same]]
        return cls(losses, rivals, counted, ahead)

    def start(self, order: np.ndarray) -> None:
        """Count the rivals of candidates of which none was, in an order, the best ones first."""
        for row in np.flatnonzero(~self.counted.any(axis=1)).tolist():
            left = order[self.rivals[row, order]]
            for begin in range(0, len(left), _AT_ONCE):
                some = left[begin : begin + _AT_ONCE]
                terms = _terms([one[row] for one in self.losses], [one[some] for one in self.losses])
                self.ahead[row] = np.minimum(self.ahead[row], terms.min(axis=0))
                self.counted[row, some] = True
                if not _are_likely(self.ahead[row]):
                    break

    def finish(self) -> None:
        """Count the other rivals of candidates that are likely so far."""
        left = self.rivals & ~self.counted & _are_likely(self.ahead)[:, None]
        for column in np.flatnonzero(left.any(axis=0)).tolist():
            rows = np.flatnonzero(left[:, column])
            terms = _terms([one[rows] for one in self.losses], [one[column] for one in self.losses])
            self.ahead[rows] = np.minimum(self.ahead[rows], terms)
        self.counted[left] = True


def _are_likely(ahead: np.ndarray) -> np.ndarray:
    """Tell whether candidates are ahead in enough draws."""
    return np.asarray((ahead.sum(axis=-1, dtype=np.int64) / ahead.shape[-1] + 1) / 2 >= 1 - CONFIDENCE)


def _terms(own: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """Tell in which draws candidates are ahead of rivals: 1 where the rival is worse in some metric, 0 where it is
    equal, -1 where it is better.

    own, others: losses in each metric, float [..., draws].
    """
    if len(own) == 1:
        return np.asarray(np.sign(others[0] - own[0]).astype(np.int8))
    worse = np.sign([theirs - mine for mine, theirs in zip(own, others, strict=True)])
    return np.where((worse > 0).any(axis=0), 1, worse.min(axis=0)).astype(np.int8)


def _folds(pool: Pool, places: np.ndarray, noisy: Noisy) -> tuple[int, ...]:
    """Return the number of folds of each metric; nothing where candidates differ, or have no two folds."""
    measured = [pool.records[place].search for place in places.tolist()]
    counts = {tuple(len(one.deviations_of(name)) for name in noisy.metrics) for one in measured}
    found = counts.pop() if len(counts) == 1 else ()
    return found if all(count > 1 for count in found) else ()


def _draw(pool: Pool, places: np.ndarray, noisy: Noisy, before: Drawn) -> tuple[np.ndarray, ...]:
    """Draw the losses of candidates, for each metric float [places, draws]; nothing where no error is known."""
    origins = places_in(before.names, pool.names[places])
    new = np.flatnonzero(origins < 0)
    if not len(new):
        return tuple(one[origins] for one in before.losses)
    changes, found = _changes(pool, places[new], noisy, bool(before.folds)), []
    draws = min((one.shape[1] for one in changes if one is not None), default=0)
    for number, (column, change) in enumerate(zip(noisy.columns, changes, strict=True)):
        moved = np.zeros((len(new), draws)) if change is None else change[:, :draws]
        drawn = pool.points[places[new], column][:, None] + pool.problem.rows[column].loss(1.0) * moved
        whole = before.losses[number][origins] if before.losses else np.empty((len(places), draws))
        whole[new] = drawn
        found.append(whole)
    return tuple(found) if draws else ()


def _changes(pool: Pool, places: np.ndarray, noisy: Noisy, in_common: bool) -> list[np.ndarray | None]:
    """Draw the changes of each metric, float [places, draws]; None where no error is known.

    in_common: whether folds are known, so that the draws do not depend on the other candidates.
    """
    measured = [pool.records[place].search for place in places.tolist()]
    if in_common:
        return [np.stack([draw_change(one, _DRAWS, name) for one in measured]) for name in noisy.metrics]
    changes = [draw_changes(measured, _DRAWS, name) for name in noisy.metrics]
    return [None if one is None else one[0].T for one in changes]


def _rivals(
    pool: Pool, places: np.ndarray, known: np.ndarray, noisy: Noisy, losses: Sequence[np.ndarray]
) -> np.ndarray:
    """Tell which known candidates cost no more than some, and are not worse in a metric in every draw.

    Bool [places, known]; losses: of the known ones, the first of which are at `places`.
    """
    rivals = np.ones((len(places), len(known)), dtype=bool)
    for column in sorted({*range(pool.points.shape[1])} - {*noisy.columns}):
        own, doubt = pool.points[places, column][:, None], pool.in_doubt[places, column][:, None]
        rivals &= (pool.points[known, column] <= own) | doubt
    for one in losses:
        rivals &= one.min(axis=1) <= one[: len(places)].max(axis=1)[:, None]
    rivals[np.arange(len(places)), np.arange(len(places))] = False
    return rivals
