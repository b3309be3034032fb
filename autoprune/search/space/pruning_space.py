"""PruningSpace: the search space alone, for an Optuna study of your own."""

from __future__ import annotations

from collections.abc import Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import BaseTrial

from autoprune.display import shorten
from autoprune.errors import error_message, raise_all
from autoprune.plan.plan import PruningPlan
from autoprune.plan.validation import is_finite
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.space.optimizers import resolve_optimizers
from autoprune.search.space.parameter import ParameterValue
from autoprune.search.space.settings import SpaceSettings
from autoprune.search.space.space import build_space, dense_plan, suggest
from autoprune.structure.stored import Structure
from autoprune.structure.topology import Topology


class PruningSpace:
    """The parameters of a pruning plan, for people who keep their own Optuna study, storage and sampler.

    Args:
        structure: Structure of the model, such as `autoprune.discover(model, inputs).describe()`.
        settings: Settings of the space; the defaults when None. Widths in grains of a device need a number in
            `structure.round_to`.
        sensitivity: Scan of the dense model, around whose allocations the space is laid; None without one.

    Raises:
        ConfigurationError: The settings do not fit the structure.

    Example:
        >>> from autoprune import Group, Layer, structure_of_layers
        >>> groups = [Group(name="a", channels=16), Group(name="b", channels=32)]
        >>> layers = [Layer(name="ab", groups=("a", "b"), weights=9), Layer(name="b", groups=("b",), weights=10)]
        >>> space = PruningSpace(structure_of_layers(groups, layers))
        >>> import optuna
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        >>> sorted(space.suggest(study.ask()).groups)
        ['a', 'b']
    """

    def __init__(
        self,
        structure: Structure,
        settings: SpaceSettings | None = None,
        *,
        sensitivity: Sensitivity | None = None,
    ) -> None:
        chosen = settings if settings is not None else SpaceSettings()
        topology = Topology.of(structure).protected(chosen.structure.protect).only(chosen.structure.kinds)
        chosen = chosen.changed({"search.scan": chosen.search.scan and sensitivity is not None})
        self.settings = resolve_optimizers(chosen, topology, "")
        self.topology = topology
        self._space = build_space(self.settings, topology, sensitivity)

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Distribution of each parameter, as `study.ask(fixed_distributions=...)` takes them."""
        return self._space.distributions

    def suggest(self, trial: BaseTrial) -> PruningPlan:
        """Let a trial choose every parameter, and build the plan of its choices.

        Args:
            trial: Trial of any study, also one that was asked for, or a fixed or frozen one.

        Returns:
            The plan. Its seed is the number of the trial.
        """
        suggest(trial, self._space)
        return self.plan(trial.params, seed=trial.number)

    def plan(self, parameters: Mapping[str, ParameterValue], *, seed: int = 0) -> PruningPlan:
        """Build the plan of a set of parameters, such as those of a finished trial.

        Args:
            parameters: Name -> value of every parameter of the space.
            seed: Seed of the plan.

        Returns:
            The plan.

        Raises:
            ConfigurationError: A parameter of the space is missing, or its value is none of its kind.
        """
        given = parameters if isinstance(parameters, Mapping) else {}
        faults = [
            error_message(f"the parameter {name!r}", wants, shorten(repr(given[name])) if name in given else "none")
            for name, distribution in self.distributions.items()
            if (wants := _wanted(distribution, given.get(name)))
        ]
        raise_all("the parameters of a plan", faults)
        return self._space.decode(parameters, seed=seed)

    def parameters(self, plan: PruningPlan) -> dict[str, ParameterValue]:
        """Find the parameters nearest to a plan, for `study.enqueue_trial`.

        Args:
            plan: Any plan for the structure.

        Returns:
            Name -> value of every parameter of the space.
        """
        return self._space.encode(plan)

    def dense(self) -> PruningPlan:
        """Make the plan that prunes and trains nothing, with which others are compared.

        Returns:
            The plan.
        """
        return dense_plan(self.settings, self.topology, 0)


def _wanted(distribution: BaseDistribution, value: object) -> str:
    """Say what a wrong value must be; "" for a right one. Numbers out of their range are clipped."""
    if isinstance(distribution, CategoricalDistribution):
        return "" if value in distribution.choices else f"be one of {', '.join(map(repr, distribution.choices))}"
    return "" if is_finite(value) else "be a finite number"
