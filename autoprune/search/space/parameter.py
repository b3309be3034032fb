"""One row of the parameter table: what a parameter may be, and where it lies in settings and plans."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autoprune.plan.plan import PruningPlan
from autoprune.search.space.settings import SpaceSettings
from autoprune.structure.topology import Topology

ParameterValue = float | int | str | bool
Parameters = Mapping[str, ParameterValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Values of a categorical parameter.

    Attributes:
        values: The values, at least one; the first is the default.
    """

    values: tuple[ParameterValue, ...]

    @property
    def distribution(self) -> BaseDistribution | None:
        """The distribution; None for a single value."""
        return CategoricalDistribution(self.values) if len(self.values) > 1 else None

    @property
    def default(self) -> ParameterValue:
        """The first value."""
        return self.values[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Values of a numeric parameter.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Whether it is drawn in the logarithm.
        integer: Whether it is an integer.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    @property
    def distribution(self) -> BaseDistribution | None:
        """The distribution; None for a single value."""
        if self.low >= self.high:
            return None
        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    @property
    def default(self) -> ParameterValue:
        """The middle of the range; the lowest of integers that are not drawn in the logarithm."""
        if self.integer:
            return round(math.sqrt(self.low * self.high)) if self.log else int(self.low)
        return math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2


Domain = Choices | Range


def always(settings: SpaceSettings, topology: Topology) -> bool:
    """Apply to every space and model.

    Args:
        settings: Settings of the space.
        topology: Structure of the dense model.

    Returns:
        True.
    """
    del settings, topology
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """Row of the parameter table. Distribution, default, encoding, decoding and docs follow from it.

    Attributes:
        name: Name in journals. A parameter of several members is called "name/member".
        setting: Field of the settings that holds its choices or its range.
        field: Field of the plan that it decides, such as "recovery.optimizer"; "" where several fields depend on it.
        when: When it has an effect, in words for the docs.
        applies: Whether it has an effect on a space and a model; else it keeps its default.
        log: Whether a range is drawn in the logarithm.
        varies: Whether warm starts take its values in turn. A range must be drawn in the logarithm then.
        of_training: Whether plans that train nothing keep its default.
        domains: Values by full name, where they are not what the setting holds.
        read: (plan, topology, member) -> value, where it is not what `field` holds. None where the plan does not say.
    """

    name: str
    setting: str
    field: str = ""
    when: str = "always"
    applies: Callable[[SpaceSettings, Topology], bool] = always
    log: bool = False
    varies: bool = False
    of_training: bool = False
    domains: Callable[[SpaceSettings, Topology], Mapping[str, Domain]] | None = None
    read: Callable[[PruningPlan, Topology, str], ParameterValue | None] | None = None

    def values(self, settings: SpaceSettings, topology: Topology) -> Mapping[str, Domain]:
        """List what the parameter may be, whether it applies or not.

        Args:
            settings: Settings of the space.
            topology: Structure of the dense model.

        Returns:
            Full name -> values.
        """
        if self.domains is not None:
            return self.domains(settings, topology)
        return {self.name: Choices(values=cast("tuple[ParameterValue, ...]", value_at(settings, self.setting)))}

    def value_in(self, plan: PruningPlan, topology: Topology, name: str) -> ParameterValue | None:
        """Read the parameter from a plan.

        Args:
            plan: Any plan for the model.
            topology: Structure of the dense model.
            name: Full name of the parameter.

        Returns:
            The value; None where the plan does not say.
        """
        if self.read is not None:
            return self.read(plan, topology, name.partition("/")[2])
        return cast("ParameterValue | None", value_at(plan, self.field))


def value_at(value: object, path: str) -> object:
    """Read a field of nested dataclasses.

    Args:
        value: The outermost object.
        path: Names of fields, joined by dots.

    Returns:
        The value of the field; None below a field that is None.
    """
    return reduce(lambda found, name: None if found is None else getattr(found, name), path.split("."), value)
