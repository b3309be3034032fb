"""Trials of an Optuna search space as vectors, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

#: Feature of the chosen value of a categorical, among zeros.
_CHOICE = 0.5

OptunaValue = float | int | str | bool | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coordinates:
    """Map between the parameters of a space and vectors.

    A vector has one entry per parameter: a number as its position in [0, 1] between its bounds (logarithmic where the
    distribution is), a categorical as the number of its choice.

    Attributes:
        space: Name -> distribution, in the order of the entries.
        allocation_prefixes: Prefixes of the parameters that share one budget among groups: the allocation block.
        numbers: Positions of all numeric entries.
        allocation_block: Positions of the allocation block; empty for fewer than two.
        other_numbers: Positions of the other numeric entries.
        stepped: Positions of the numbers with steps.
        choices: Position of each categorical -> number of its choices.
    """

    space: Mapping[str, BaseDistribution]
    allocation_prefixes: tuple[str, ...]
    numbers: np.ndarray = field(init=False, repr=False)
    allocation_block: np.ndarray = field(init=False, repr=False)
    other_numbers: np.ndarray = field(init=False, repr=False)
    stepped: tuple[int, ...] = field(init=False, repr=False)
    choices: dict[int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        entries = list(enumerate(self.space.items()))
        choices = {i: len(d.choices) for i, (_, d) in entries if isinstance(d, CategoricalDistribution)}
        allocation_block = [
            i for i, (name, _) in entries if i not in choices and name.startswith(self.allocation_prefixes)
        ]
        allocation_block = allocation_block if len(allocation_block) > 1 else []
        numbers = [i for i, _ in entries if i not in choices]
        object.__setattr__(self, "choices", choices)
        stepped = [i for i, (_, d) in entries if getattr(d, "step", None) is not None]  # integers have a step
        object.__setattr__(self, "stepped", tuple(stepped))
        object.__setattr__(self, "numbers", np.array(numbers, dtype=np.int64))
        object.__setattr__(self, "allocation_block", np.array(allocation_block, dtype=np.int64))
        object.__setattr__(self, "other_numbers", np.setdiff1d(numbers, allocation_block).astype(np.int64))

    def encode(self, trials: Sequence[FrozenTrial]) -> np.ndarray:
        """Return the vectors of trials, float [trials, entries].

        Args:
            trials: Trials that have every parameter of the space.
        """
        found = np.empty((len(trials), len(self.space)))
        for column, (name, distribution) in enumerate(self.space.items()):
            if isinstance(distribution, CategoricalDistribution):
                found[:, column] = [distribution.to_internal_repr(trial.params[name]) for trial in trials]
            else:
                values = np.array([trial.params[name] for trial in trials], dtype=np.float64)
                found[:, column] = _place(distribution, values)
        return found

    def decode(self, vector: np.ndarray) -> dict[str, OptunaValue]:
        """Return the parameters of a vector; numbers are clipped to their bounds and rounded to their steps.

        Args:
            vector: Float [entries].
        """
        return {
            name: _value(distribution, float(place))
            for (name, distribution), place in zip(self.space.items(), vector, strict=True)
        }

    def reflected(self, vectors: np.ndarray) -> np.ndarray:
        """Reflect numbers beyond their bounds back inside, and round them to their steps.

        Args:
            vectors: Float [..., entries].
        """
        inside = vectors.copy()
        places = np.abs(inside[..., self.numbers])
        inside[..., self.numbers] = np.clip(np.where(places > 1.0, 2.0 - places, places), 0.0, 1.0)
        distributions = list(self.space.values())
        for position in self.stepped:
            distribution, column = distributions[position], inside[..., position]
            values = [_value(distribution, place) for place in column.ravel().tolist()]
            inside[..., position] = _place(distribution, values).reshape(column.shape)
        return inside

    def random(self, rng: np.random.Generator) -> np.ndarray:
        """Return a vector drawn uniformly, float [entries].

        Args:
            rng: Random numbers.
        """
        vector = rng.random(len(self.space))
        for position, count in self.choices.items():
            vector[position] = rng.integers(count)
        return vector

    def context_features(self, vectors: np.ndarray) -> np.ndarray:
        """Return the features that decide where on the front a point lies, float [n, r].

        These are the other numbers, the mean of the allocation block, and the choices.

        Args:
            vectors: Float [n, entries].
        """
        columns = [vectors[:, self.other_numbers]]
        if len(self.allocation_block):
            columns.append(vectors[:, self.allocation_block].mean(axis=1, keepdims=True))
        columns += [
            _CHOICE * (vectors[:, position, None] == np.arange(count)) for position, count in self.choices.items()
        ]
        return np.concatenate(columns, axis=1)

    def allocation_features(self, vectors: np.ndarray) -> np.ndarray:
        """Return how the budget is shared: deviations from the allocation block's mean, float [n, d].

        Args:
            vectors: Float [n, entries].
        """
        members = vectors[:, self.allocation_block]
        return np.asarray(members - members.mean(axis=1, keepdims=True)) if len(self.allocation_block) else members


def _bounds(distribution: BaseDistribution) -> tuple[float, float, bool]:
    """Return (low, high, logarithmic) on the scale in which positions are linear."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    return (math.log(low), math.log(high), True) if distribution.log else (low, high, False)


def _place(distribution: BaseDistribution, values: object) -> np.ndarray:
    """Return the positions of numbers in [0, 1]."""
    low, high, log = _bounds(distribution)
    numbers = np.asarray(values, dtype=np.float64)
    return np.asarray(((np.log(numbers) if log else numbers) - low) / (high - low) if high > low else numbers * 0.0)


def _value(distribution: BaseDistribution, place: float) -> OptunaValue:
    if isinstance(distribution, CategoricalDistribution):
        choice: OptunaValue = distribution.choices[min(max(round(place), 0), len(distribution.choices) - 1)]
        return choice
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, log = _bounds(distribution)
    value = low + min(max(place, 0.0), 1.0) * (high - low)
    value = math.exp(value) if log else value
    if distribution.step is not None and not log:
        value = distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
    value = min(max(value, distribution.low), distribution.high)
    return round(value) if isinstance(distribution, IntDistribution) else float(value)
