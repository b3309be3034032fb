"""Moves: how a child is made of members of the front."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.study.surrogate import Surrogate
from autoprune.study.vectors import Coordinates

#: Spread of the logarithm of a step. How often a mutation moves a run of the family, and how often a choice is drawn
#: again.
_SPREAD, _RUNS, REDRAWN = 0.7, 0.3, 0.15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
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
        return float(self.step * np.exp(_SPREAD * self.rng.normal()))


def mutate(scene: Scene) -> np.ndarray:
    """A parent with some numbers moved, from one to all of them evenly in the logarithm, or a run of the family."""
    child = scene.vectors[scene.parent()].copy()
    family, rng = scene.coordinates.family, scene.rng
    if len(family) > 1 and rng.random() < _RUNS:
        length = _count(2, len(family), rng)
        start = int(rng.integers(0, len(family) - length + 1))
        child[family[start : start + length]] += scene.size() * rng.normal()
        return np.asarray(child)
    numbers = scene.coordinates.numbers
    if len(numbers):
        chosen = rng.choice(numbers, _count(1, len(numbers), rng), replace=False)
        child[chosen] += scene.size() * len(chosen) ** -0.25 * rng.normal(size=len(chosen))
    return _redrawn(scene, child)


def exchange(scene: Scene) -> np.ndarray:
    """A parent with some of the family up and others down by as much: budget moves between groups."""
    family = scene.coordinates.family
    if len(family) < 2:
        return mutate(scene)
    child = scene.vectors[scene.parent()].copy()
    chosen = scene.rng.choice(family, _count(2, len(family), scene.rng), replace=False)
    moved = scene.size() * len(chosen) ** -0.25 * scene.rng.normal(size=len(chosen))
    child[chosen] += moved - moved.mean()
    return np.asarray(child)


def interpolate(scene: Scene) -> np.ndarray:
    """A point between two neighbours on the front, in half of the cases with budget moved between groups."""
    child = _between(scene, scene.parent())
    if scene.rng.random() < 0.5:
        child[scene.coordinates.numbers] += 0.5 * scene.size() * scene.rng.normal(size=len(scene.coordinates.numbers))
    return child


def carry(scene: Scene) -> np.ndarray:
    """How one parent shares its budget, at another place of the front, and on from there down the model's slope."""
    coordinates, family, rng = scene.coordinates, scene.coordinates.family, scene.rng
    child = _between(scene, int(rng.integers(len(scene.vectors))))
    if not len(family):
        return child
    shares = coordinates.fine(scene.vectors[[scene.parent()]])[0] * rng.uniform(0.8, 1.2)
    child[family] = child[family].mean() + shares
    if rng.random() < 0.6:
        slopes = scene.model.slopes(coordinates.rough(child[None])[0], shares)
        slope = slopes @ rng.dirichlet(np.ones(slopes.shape[1]))
        length = float(np.linalg.norm(slope))
        child[family] -= scene.size() * len(family) ** 0.5 * slope / (length if length > 0 else 1.0)
    if rng.random() < 0.5:
        child[family] += 0.5 * scene.size() * rng.normal(size=len(family))
    return child


#: Moves and how often each is made.
MOVES: Mapping[str, tuple[Callable[[Scene], np.ndarray], float]] = {
    "mutate": (mutate, 0.25),
    "exchange": (exchange, 0.2),
    "interpolate": (interpolate, 0.15),
    "carry": (carry, 0.4),
}


def _between(scene: Scene, parent: int) -> np.ndarray:
    """A point between a parent and the next one along the front; choices are those of either."""
    if len(scene.vectors) < 2:
        return np.asarray(scene.vectors[parent].copy())
    other = parent + (1 if scene.rng.random() < 0.5 else -1)
    other = parent - 1 if other == len(scene.vectors) else abs(other)
    child = scene.vectors[parent] + scene.rng.random() * (scene.vectors[other] - scene.vectors[parent])
    for position in scene.coordinates.choices:
        child[position] = scene.vectors[parent if scene.rng.random() < 0.5 else other, position]
    return np.asarray(child)


def _redrawn(scene: Scene, child: np.ndarray) -> np.ndarray:
    """Choices drawn again now and then; always where there is nothing but choices."""
    often = REDRAWN if len(scene.coordinates.numbers) else 0.5
    for position, count in scene.coordinates.choices.items():
        if scene.rng.random() < often:
            child[position] = scene.rng.integers(count)
    return child


def _count(least: int, most: int, rng: np.random.Generator) -> int:
    """A whole number in [least, most], evenly in the logarithm."""
    return round(float(np.exp(rng.uniform(np.log(least), np.log(max(most, least))))))
