"""Distributions, defaults and encoding of the parameters, as their table has them."""

from __future__ import annotations

from collections.abc import Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autoprune.plan.plan import PruningPlan
from autoprune.search.space.parameter import Domain, ParameterValue
from autoprune.search.space.parameters import PARAMETERS, row_of
from autoprune.search.space.settings import SpaceSettings
from autoprune.structure.topology import Topology


def distributions(settings: SpaceSettings, topology: Topology) -> dict[str, BaseDistribution]:
    """Return the distribution of each parameter; a choice among one value is no parameter.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.
    """
    space: dict[str, BaseDistribution] = {}
    for row in PARAMETERS.values():
        if row.applies(settings, topology):
            drawn = {name: domain.distribution for name, domain in row.values(settings, topology).items()}
            space |= {name: distribution for name, distribution in drawn.items() if distribution is not None}
    return space


def defaults(settings: SpaceSettings, topology: Topology) -> dict[str, ParameterValue]:
    """Return the default of every parameter of the space.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.
    """
    values: dict[str, Domain] = {}
    for row in PARAMETERS.values():
        values |= row.values(settings, topology)
    return {name: values[name].default for name in distributions(settings, topology)}


def parameters_of(settings: SpaceSettings, topology: Topology, plan: PruningPlan) -> dict[str, ParameterValue]:
    """Return the parameters of a plan other than widths, as far as the space has them.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.
        plan: Any plan for the model.
    """
    found: dict[str, ParameterValue] = {}
    for name, default in defaults(settings, topology).items():
        said = row_of(name).value_in(plan, topology, name)
        found[name] = default if said is None else said
    return found


def clip_to(point: Mapping[str, ParameterValue], space: Mapping[str, BaseDistribution]) -> dict[str, ParameterValue]:
    """Clip every value to its distribution; an unknown choice becomes the first one.

    Args:
        point: Parameters of a trial.
        space: Distribution of each parameter.
    """
    moved = dict(point)
    for name, distribution in space.items():
        if isinstance(distribution, FloatDistribution):
            moved[name] = min(max(float(point[name]), distribution.low), distribution.high)
        elif isinstance(distribution, IntDistribution):
            moved[name] = min(max(int(point[name]), distribution.low), distribution.high)
        elif isinstance(distribution, CategoricalDistribution) and point[name] not in distribution.choices:
            moved[name] = choice_at(distribution, 0)
    return moved


def choice_at(distribution: CategoricalDistribution, number: int) -> ParameterValue:
    """Return a choice of a categorical distribution.

    Args:
        distribution: Distribution over strings, numbers and booleans.
        number: Number of the choice, >= 0; counting starts again behind the last one.
    """
    choice = distribution.choices[number % len(distribution.choices)]
    assert isinstance(choice, str | int | float | bool)
    return choice
