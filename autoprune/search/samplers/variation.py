"""Variation operators: make a child of members of the front."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.search.samplers.surrogate import Surrogate
from autoprune.search.samplers.vectors import Coordinates

#: Standard deviation of a step's logarithm; probability that a mutation moves a span of the allocation block;
#: probability that a choice is drawn again.
_STEP_SPREAD, _SPAN_PROBABILITY, REDRAW_PROBABILITY = 0.7, 0.3, 0.15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParentPool:
    """Parents and tools of the variation operators.

    Attributes:
        coordinates: Map between parameters and vectors.
        vectors: Parents, float [k, entries], ordered along the last loss.
        losses: Losses of the parents, float [k, objectives].
        gaps: Crowding distances of the parents, float [k].
        model: Surrogate of the losses.
        step: Step size in units of a parameter's range, > 0.
        rng: Random numbers.
    """

    coordinates: Coordinates
    vectors: np.ndarray
    losses: np.ndarray
    gaps: np.ndarray
    model: Surrogate
    step: float
    rng: np.random.Generator

    def parent(self) -> int:
        """Return the number of a parent: of two random ones, that beside the larger gap."""
        one, other = self.rng.integers(0, len(self.vectors), 2)
        return int(one if self.gaps[one] >= self.gaps[other] else other)

    def size(self) -> float:
        """Return a log-normal step size, so that the children have small and large steps."""
        return float(self.step * np.exp(_STEP_SPREAD * self.rng.normal()))


def mutate(pool: ParentPool) -> np.ndarray:
    """Change some numbers of a parent, from one to all (log-uniform), or a span of the allocation block.

    Args:
        pool: Parents and tools.

    Returns:
        Child, float [entries].
    """
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
    """Move budget between groups: raise some entries of the allocation block and lower others by as much.

    Args:
        pool: Parents and tools.

    Returns:
        Child, float [entries].
    """
    allocation_block = pool.coordinates.allocation_block
    if len(allocation_block) < 2:
        return mutate(pool)
    child = pool.vectors[pool.parent()].copy()
    chosen = pool.rng.choice(allocation_block, _log_uniform_count(2, len(allocation_block), pool.rng), replace=False)
    moved = pool.size() * len(chosen) ** -0.25 * pool.rng.normal(size=len(chosen))
    child[chosen] += moved - moved.mean()
    return np.asarray(child)


def interpolate(pool: ParentPool) -> np.ndarray:
    """Interpolate between two neighbours on the front; half of the children also have their numbers changed.

    Args:
        pool: Parents and tools.

    Returns:
        Child, float [entries].
    """
    child = _between(pool, pool.parent())
    if pool.rng.random() < 0.5:
        child[pool.coordinates.numbers] += 0.5 * pool.size() * pool.rng.normal(size=len(pool.coordinates.numbers))
    return child


def transplant_allocation(pool: ParentPool) -> np.ndarray:
    """Transplant one parent's allocation to another budget, then step along the surrogate's gradient.

    Args:
        pool: Parents and tools.

    Returns:
        Child, float [entries].
    """
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


#: Variation operators and their probabilities.
VARIATIONS: Mapping[str, tuple[Callable[[ParentPool], np.ndarray], float]] = {
    "mutate": (mutate, 0.25),
    "exchange": (exchange, 0.2),
    "interpolate": (interpolate, 0.15),
    "transplant": (transplant_allocation, 0.4),
}


def _between(pool: ParentPool, parent: int) -> np.ndarray:
    """Return a point between a parent and its neighbour along the front, with choices of either."""
    if len(pool.vectors) < 2:
        return np.asarray(pool.vectors[parent].copy())
    other = parent + (1 if pool.rng.random() < 0.5 else -1)
    other = parent - 1 if other == len(pool.vectors) else abs(other)
    child = pool.vectors[parent] + pool.rng.random() * (pool.vectors[other] - pool.vectors[parent])
    for position in pool.coordinates.choices:
        child[position] = pool.vectors[parent if pool.rng.random() < 0.5 else other, position]
    return np.asarray(child)


def _with_redrawn_choices(pool: ParentPool, child: np.ndarray) -> np.ndarray:
    """Draw some choices again; more of them where the space has only choices."""
    often = REDRAW_PROBABILITY if len(pool.coordinates.numbers) else 0.5
    for position, count in pool.coordinates.choices.items():
        if pool.rng.random() < often:
            child[position] = pool.rng.integers(count)
    return child


def _log_uniform_count(least: int, most: int, rng: np.random.Generator) -> int:
    """Return an integer in [least, most], log-uniform."""
    return round(float(np.exp(rng.uniform(np.log(least), np.log(max(most, least))))))
