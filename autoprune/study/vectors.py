"""Trials of an Optuna search space as vectors, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

#: Distance between two choices of a categorical in rough coordinates.
_CHOICE = 0.5

OptunaValue = float | int | str | bool | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coordinates:
    """How the parameters of a space lie in a vector.

    space: name -> distribution; a vector has one entry for each, in this order: numbers as a place in [0, 1] between
        their bounds (in the logarithm where the distribution is), categoricals as the number of the choice.
    prefixes: parameters whose name starts with one of them are the family: shares of one budget, exchangeable.
    numbers, family, others: positions of all numeric entries, of the family, of the numeric rest. stepped: of those
        that may not lie anywhere. choices: position of each categorical and how many choices it has.
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
        stepped = [i for i, (_, d) in entries if getattr(d, "step", None) is not None]  # integers have one
        object.__setattr__(self, "stepped", tuple(stepped))
        object.__setattr__(self, "numbers", np.array(numbers, dtype=np.int64))
        object.__setattr__(self, "allocation_block", np.array(allocation_block, dtype=np.int64))
        object.__setattr__(self, "other_numbers", np.setdiff1d(numbers, allocation_block).astype(np.int64))

    def encode(self, trials: Sequence[FrozenTrial]) -> np.ndarray:
        """Vectors float [trials, entries]; every trial has every parameter of the space."""
        found = np.empty((len(trials), len(self.space)))
        for column, (name, distribution) in enumerate(self.space.items()):
            if isinstance(distribution, CategoricalDistribution):
                found[:, column] = [distribution.to_internal_repr(trial.params[name]) for trial in trials]
            else:
                values = np.array([trial.params[name] for trial in trials], dtype=np.float64)
                found[:, column] = _place(distribution, values)
        return found

    def decode(self, vector: np.ndarray) -> dict[str, OptunaValue]:
        """Parameters of a vector [entries]; numbers are moved into their bounds and onto their steps."""
        return {
            name: _value(distribution, float(place))
            for (name, distribution), place in zip(self.space.items(), vector, strict=True)
        }

    def reflected(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors [..., entries] with numbers that left their bounds by as much inside, and on their steps."""
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
        """A vector drawn uniformly."""
        vector = rng.random(len(self.space))
        for position, count in self.choices.items():
            vector[position] = rng.integers(count)
        return vector

    def context_features(self, vectors: np.ndarray) -> np.ndarray:
        """What decides where on the front a point lies, float [n, r]: other numbers, the family's mean, choices."""
        columns = [vectors[:, self.other_numbers]]
        if len(self.allocation_block):
            columns.append(vectors[:, self.allocation_block].mean(axis=1, keepdims=True))
        columns += [
            _CHOICE * (vectors[:, position, None] == np.arange(count)) for position, count in self.choices.items()
        ]
        return np.concatenate(columns, axis=1)

    def allocation_features(self, vectors: np.ndarray) -> np.ndarray:
        """How the family shares it, float [n, family]: deviations from the family's mean."""
        members = vectors[:, self.allocation_block]
        return np.asarray(members - members.mean(axis=1, keepdims=True)) if len(self.allocation_block) else members


def _bounds(distribution: BaseDistribution) -> tuple[float, float, bool]:
    """(low, high, logarithmic) on the scale that the places are linear in."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    return (math.log(low), math.log(high), True) if distribution.log else (low, high, False)


def _place(distribution: BaseDistribution, values: object) -> np.ndarray:
    """Places of numbers in [0, 1]."""
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
