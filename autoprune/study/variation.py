"""Moves: how a child is made of members of the front."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.study.surrogate import Surrogate
from autoprune.study.vectors import Coordinates

#: Spread of the logarithm of a step. How often a mutation moves a run of the family, and how often a choice is drawn
#: again.
_STEP_SPREAD, _SPAN_PROBABILITY, REDRAW_PROBABILITY = 0.7, 0.3, 0.15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParentPool:
    """What moves work on. vectors [k, entries], losses [k, objectives] of the parents, ordered along the last loss."""

    coordinates: Coordinates
    vectors: np.ndarray
    losses: np.ndarray
    gaps: np.ndarray
    model: Surrogate
    step: float
    rng: np.random.Generator

    def parent(self) -> int:
        """One of two, that beside the larger gap."""
        one, other = self.rng.integers(0, len(self.vectors), 2)
        return int(one if self.gaps[one] >= self.gaps[other] else other)

    def size(self) -> float:
        """A step, log-normal, so that small and large ones are among the children to choose from."""
        return float(self.step * np.exp(_STEP_SPREAD * self.rng.normal()))


def mutate(pool: ParentPool) -> np.ndarray:
    """A parent with some numbers moved, from one to all of them evenly in the logarithm, or a run of the family."""
    child = pool.vectors[pool.parent()].copy()
    allocation_block, rng = pool.coordinates.allocation_block, pool.rng
    if len(allocation_block) > 1 and rng.random() < _SPAN_PROBABILITY:
        length = _log_uniform_count(2, len(allocation_block), rng)
        start = int(rng.integers(0, len(allocation_block) - length + 1))
        child[allocation_block[start : start + length]] += pool.size() * rng.normal()
        return np.asarray(child)
    numbers = pool.coordinates.numbers
    if len(numbers):
        chosen = rng.choice(numbers, _log_uniform_count(1, len(numbers), rng), replace=False)
        child[chosen] += pool.size() * len(chosen) ** -0.25 * rng.normal(size=len(chosen))
    return _with_redrawn_choices(pool, child)


def exchange(pool: ParentPool) -> np.ndarray:
    """A parent with some of the family up and others down by as much: budget moves between groups."""
    allocation_block = pool.coordinates.allocation_block
    if len(allocation_block) < 2:
        return mutate(pool)
    child = pool.vectors[pool.parent()].copy()
    chosen = pool.rng.choice(allocation_block, _log_uniform_count(2, len(allocation_block), pool.rng), replace=False)
    moved = pool.size() * len(chosen) ** -0.25 * pool.rng.normal(size=len(chosen))
    child[chosen] += moved - moved.mean()
    return np.asarray(child)


def interpolate(pool: ParentPool) -> np.ndarray:
    """A point between two neighbours on the front, in half of the cases with budget moved between groups."""
    child = _between(pool, pool.parent())
    if pool.rng.random() < 0.5:
        child[pool.coordinates.numbers] += 0.5 * pool.size() * pool.rng.normal(size=len(pool.coordinates.numbers))
    return child


def transplant_allocation(pool: ParentPool) -> np.ndarray:
    """How one parent shares its budget, at another place of the front, and on from there down the model's slope."""
    coordinates, allocation_block, rng = pool.coordinates, pool.coordinates.allocation_block, pool.rng
    child = _between(pool, int(rng.integers(len(pool.vectors))))
    if not len(allocation_block):
        return child
    shares = coordinates.allocation_features(pool.vectors[[pool.parent()]])[0] * rng.uniform(0.8, 1.2)
    child[allocation_block] = child[allocation_block].mean() + shares
    if rng.random() < 0.6:
        slopes = pool.model.slopes(coordinates.context_features(child[None])[0], shares)
        slope = slopes @ rng.dirichlet(np.ones(slopes.shape[1]))
        length = float(np.linalg.norm(slope))
        child[allocation_block] -= pool.size() * len(allocation_block) ** 0.5 * slope / (length if length > 0 else 1.0)
    if rng.random() < 0.5:
        child[allocation_block] += 0.5 * pool.size() * rng.normal(size=len(allocation_block))
    return child


#: Moves and how often each is made.
VARIATIONS: Mapping[str, tuple[Callable[[ParentPool], np.ndarray], float]] = {
    "mutate": (mutate, 0.25),
    "exchange": (exchange, 0.2),
    "interpolate": (interpolate, 0.15),
    "transplant": (transplant_allocation, 0.4),
}


def _between(pool: ParentPool, parent: int) -> np.ndarray:
    """A point between a parent and the next one along the front; choices are those of either."""
    if len(pool.vectors) < 2:
        return np.asarray(pool.vectors[parent].copy())
    other = parent + (1 if pool.rng.random() < 0.5 else -1)
    other = parent - 1 if other == len(pool.vectors) else abs(other)
    child = pool.vectors[parent] + pool.rng.random() * (pool.vectors[other] - pool.vectors[parent])
    for position in pool.coordinates.choices:
        child[position] = pool.vectors[parent if pool.rng.random() < 0.5 else other, position]
    return np.asarray(child)


def _with_redrawn_choices(pool: ParentPool, child: np.ndarray) -> np.ndarray:
    """Choices drawn again now and then; always where there is nothing but choices."""
    often = REDRAW_PROBABILITY if len(pool.coordinates.numbers) else 0.5
    for position, count in pool.coordinates.choices.items():
        if pool.rng.random() < often:
            child[position] = pool.rng.integers(count)
    return child


def _log_uniform_count(least: int, most: int, rng: np.random.Generator) -> int:
    """A whole number in [least, most], evenly in the logarithm."""
    return round(float(np.exp(rng.uniform(np.log(least), np.log(max(most, least))))))
