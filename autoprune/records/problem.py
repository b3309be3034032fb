"""Problem: what a study optimises, under which limits, and the metrics that its task knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from autoprune.errors import ConfigurationError, UnknownNameError, error_message, raise_all
from autoprune.records.candidate import CandidateRecord
from autoprune.records.columns import Columns
from autoprune.records.limits import Limit, Limits, limit_names
from autoprune.records.metric_objectives import metric_objective
from autoprune.records.objectives import COSTS, QUALITY, Objective, timed_cost

#: Objectives of a study that names none.
DEFAULT_OBJECTIVES = (QUALITY, "size_bytes", "latency_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Objectives, limits and metrics of a study, which turn measurements into losses in one place.

    Attributes:
        objectives: Names of the objectives: QUALITY, costs of `records.objectives.COSTS`, and metrics of the task.
        metric: Name of the metric behind QUALITY.
        higher_is_better: Direction of that metric.
        limits: Limits of the search.
        metrics: Every metric of the task -> whether higher is better; None where that is unknown. Such a metric can be
            limited and shown, and be no objective.
        profiles: Names of the latency profiles beside the default one.
        unmeasured: Name of a cost that was asked for and could not be measured -> why, in sentences.

    Raises:
        UnknownNameError: The task has no such objective or limit.
        ConfigurationError: A metric is limited from the wrong side, or an objective is the quality again, or there is
            none.

    Example:
        >>> problem = Problem(
        ...     objectives=("quality", "recall", "parameters"),
        ...     metric="accuracy",
        ...     higher_is_better=True,
        ...     limits=Limits(min_recall=0.8),
        ...     metrics={"recall": True},
        ... )
        >>> [objective.better for objective in problem.rows]
        ['higher', 'higher', 'lower']
    """

    objectives: tuple[str, ...]
    metric: str
    higher_is_better: bool
    limits: Limits = field(default_factory=Limits)
    metrics: Mapping[str, bool | None] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    unmeasured: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        metrics = {**self.metrics, self.metric: self.higher_is_better}
        object.__setattr__(self, "metrics", MappingProxyType(metrics))
        if not self.objectives:
            raise ConfigurationError(error_message("objectives", "name the quality and what it costs", "none"))
        if self.metric in self.objectives and self.metric not in (QUALITY, *self.costs):
            raise ConfigurationError(error_message("objectives", f"name the quality as {QUALITY!r}", self.metric))
        for name in self.objectives:
            self.objective(name)
        self.check_limits(self.limits)

    @property
    def quality(self) -> Objective:
        """Objective of the quality."""
        return metric_objective(QUALITY, self.metric, self.higher_is_better)

    @property
    def rows(self) -> tuple[Objective, ...]:
        """Objectives in their order."""
        return tuple(self.objective(name) for name in self.objectives)

    @property
    def further_metrics(self) -> tuple[str, ...]:
        """Names of the metrics beside the quality."""
        return tuple(name for name in self.metrics if name != self.metric)

    @property
    def costs(self) -> dict[str, Objective]:
        """Name -> cost, in the order of tables."""
        return {**COSTS, **{cost.name: cost for cost in map(timed_cost, self.profiles)}}

    @property
    def known(self) -> dict[str, Objective]:
        """Name -> objective of everything that can be an objective or chosen by."""
        named = {
            name: metric_objective(name, name, higher) for name, higher in self.metrics.items() if higher is not None
        }
        return {QUALITY: self.quality, **named, **self.costs}

    def objective(self, name: str, what: str = "an objective") -> Objective:
        """Look up an objective.

        Args:
            name: Its name.
            what: Name of its place, for the message.

        Returns:
            The objective.

        Raises:
            UnknownNameError: The task has no such objective.
        """
        if name in self.costs:
            return self.costs[name]
        if name == QUALITY:
            return self.quality
        higher = self.metrics.get(name)
        if higher is None:
            raise UnknownNameError(what, name, self.known)
        return metric_objective(name, name, higher)

    def is_quality(self, name: str) -> bool:
        """Tell whether a name is that of the quality.

        Args:
            name: Name of an objective or a metric.

        Returns:
            Whether it is "quality" or the name of the metric behind it.
        """
        return name in (QUALITY, self.metric)

    def limited(self, limit: Limit) -> Objective:
        """Look up the objective that a limit bounds. Of a metric whose direction is unknown, the limit tells it.

        Args:
            limit: Limit of the problem.

        Returns:
            The objective.
        """
        name = limit.objective
        if name not in self.costs and name in self.metrics and self.metrics[name] is None:
            return metric_objective(name, name, limit.lowest)
        return self.objective(name)

    def losses(self, records: Sequence[CandidateRecord], names: Sequence[str] | None = None) -> np.ndarray:
        """Collect the losses that dominance compares.

        Args:
            records: Candidates of a study.
            names: Names of objectives; those of the problem when None.

        Returns:
            Float [records, objectives]; lower is better.
        """
        return self.losses_of(Columns(records), np.arange(len(records)), names)

    def losses_of(
        self,
        columns: Columns,
        places: np.ndarray,
        names: Sequence[str] | None = None,
        *,
        as_measured: bool = False,
    ) -> np.ndarray:
        """Collect the losses of some candidates, see `losses`.

        Args:
            columns: Numbers of candidates.
            places: Positions of the candidates that decide together which costs count as equal.
            names: Names of objectives; those of the problem when None.
            as_measured: Whether numbers in doubt count, too.

        Returns:
            Float [places, objectives]; lower is better.
        """
        names = self.objectives if names is None else names
        if not len(places) or not names:
            return np.empty((len(places), len(names)))
        return np.stack(
            [self.objective(name).losses_of(columns, places, as_measured=as_measured) for name in names], axis=1
        )

    def bound(self, limit: Limit, record: CandidateRecord) -> float:
        """Return the number of a candidate that a limit of a metric bounds.

        Args:
            limit: Limit of the quality or of a metric.
            record: Candidate.

        Returns:
            The number; NaN where the metric was not measured.
        """
        if self.is_quality(limit.objective):
            return record.search.quality
        return record.search.metrics.get(limit.objective, float("nan"))

    def check_limits(self, limits: Limits) -> None:
        """Check that the task has what is limited, and that no metric is limited from its better side.

        Args:
            limits: Limits to check.

        Raises:
            UnknownNameError: A metric is not of the task.
            ConfigurationError: A metric is limited from its better side.
        """
        faults = []
        for name, limit in limits.each.items():
            if limit.drop:
                continue
            if limit.is_cost:
                if limit.objective not in self.costs:
                    raise UnknownNameError("a limit", name, limit_names(tuple(self.metrics), self.profiles))
                continue
            metric = self.metric if limit.objective == QUALITY else limit.objective
            if metric not in self.metrics:
                raise UnknownNameError("a limit", name, limit_names(tuple(self.metrics), self.profiles))
            higher = self.metrics[metric]
            if higher is not None and higher != limit.lowest:
                side = "min" if higher else "max"
                expected = f"be {side}_{limit.objective}, as {'higher' if higher else 'lower'} is better"
                faults.append(error_message("the limit", expected, name))
        raise_all("the limits", faults)
