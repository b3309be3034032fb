"""Defaults that vary from point to point, so that a sampler sees every choice."""

from __future__ import annotations

import math

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from autoprune.search.space.encode import choice_at, distributions
from autoprune.search.space.parameter import ParameterValue
from autoprune.search.space.parameters import row_of
from autoprune.search.space.settings import SpaceSettings
from autoprune.structure.topology import Topology


def varied_defaults(settings: SpaceSettings, topology: Topology, number: int) -> dict[str, ParameterValue]:
    """Return values other than the defaults for the training parameters, each in turn.

    A sampler that has seen a single choice hardly ever tries another. Neighbouring points differ, and ranges are filled
    evenly (van der Corput, Verteilungsfunktionen, 1935).

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.
        number: Number of the point, >= 0.
    """
    found: dict[str, ParameterValue] = {}
    drawn = distributions(settings, topology)
    for place, name in enumerate(name for name in drawn if row_of(name).varies):
        distribution = drawn[name]
        if isinstance(distribution, CategoricalDistribution):
            found[name] = choice_at(distribution, number + place)
        elif isinstance(distribution, FloatDistribution | IntDistribution):
            share = _van_der_corput(number + place + 1)
            value = math.exp(math.log(distribution.low) * (1 - share) + math.log(distribution.high) * share)
            found[name] = round(value) if isinstance(distribution, IntDistribution) else value
    return found


def _van_der_corput(number: int) -> float:
    """Return number `number` of the van der Corput sequence in base 2: 1/2, 1/4, 3/4, 1/8, ..."""
    found, digit = 0.0, 0.5
    while number:
        number, rest = divmod(number, 2)
        found, digit = found + rest * digit, digit / 2
    return found
