"""State of a search: everything that its sources of proposals look at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from autoprune.front.front import Front
from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.measurement import DEFAULT_PROFILE, Measurement
from autoprune.records.origins import Origin
from autoprune.records.problem import Problem
from autoprune.records.sensitivity import Sensitivity
from autoprune.records.work import Work
from autoprune.search.allocation.latency_model import LatencyModel
from autoprune.search.known import Known
from autoprune.search.ledger import Ledger
from autoprune.search.settings import StudySettings
from autoprune.search.space.setting_groups import LATENCY_COST
from autoprune.search.space.space import Space
from autoprune.structure.topology import Topology

#: Plan as asked for -> the resolved plan, and the work of resolving it.
Resolve = Callable[[PruningPlan], tuple[ResolvedPlan, Work]]
#: (resolved plan, whether its latency counts) -> its expected costs, with NaN as the quality.
ExpectedCosts = Callable[[ResolvedPlan, bool], Measurement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The model that is searched, as plain data and functions.

    Attributes:
        topology: Structure of the dense model.
        problem: Objectives, limits and metrics of the study.
        sensitivity: Scan of the dense model; None without one.
        resolve: Resolves plans; None where no plan needs scores, so that widths follow from the plan alone.
        costs: Expected costs of a plan; None where they follow from the widths alone.
        latency: Latency model of the device; None without one.
        has_weights: Number of a candidate -> whether a trial may start from its weights.
    """

    topology: Topology
    problem: Problem
    sensitivity: Sensitivity | None = None
    resolve: Resolve | None = None
    costs: ExpectedCosts | None = None
    latency: LatencyModel | None = None
    has_weights: Callable[[int], bool] = lambda _: True

    def resolved(self, plan: PruningPlan) -> tuple[ResolvedPlan, Work]:
        """Resolve a plan.

        Args:
            plan: Plan as asked for.

        Returns:
            The resolved plan, and the work of resolving it.

        Raises:
            ConfigurationError: The plan does not fit the model.
        """
        return self.resolve(plan) if self.resolve is not None else (ResolvedPlan.of(plan, self.topology), Work())

    def expected_costs(self, plan: ResolvedPlan, timed: Collection[str] = ()) -> Measurement:
        """Work out the costs of a plan without training.

        Args:
            plan: Resolved plan.
            timed: Names of the latencies that count. "latency_ms" is predicted where there is a latency model.

        Returns:
            Costs with NaN as the quality.
        """
        measured = [name for name in timed if not self.predicts(name)]
        found = self.costs(plan, bool(measured)) if self.costs is not None else costs_of_widths(plan, self.topology)
        if self.latency is None or len(measured) == len(timed):
            return found
        predicted = self.latency.predict(plan.widths, plan.dropped)
        return replace(found, latencies={**found.latencies, DEFAULT_PROFILE: predicted})

    def predicts(self, name: str) -> bool:
        """Tell whether a cost is predicted by the latency model of the device.

        Args:
            name: Name of the cost.

        Returns:
            True for "latency_ms" where there is a model.
        """
        return self.latency is not None and name == LATENCY_COST

    def error_of(self, name: str) -> float:
        """Return the median relative error of what is predicted; 0 for other costs.

        Args:
            name: Name of the cost.
        """
        return self.latency.error if self.latency is not None and self.predicts(name) else 0.0


def costs_of_widths(plan: ResolvedPlan, topology: Topology) -> Measurement:
    """Work out the costs that follow from widths and dropped blocks alone.

    Args:
        plan: Resolved plan.
        topology: Structure of the dense model.

    Returns:
        Costs with NaN as the quality and no latency; every parameter counts as non-zero.
    """
    cost = topology.cost(plan.widths, plan.dropped)
    return Measurement(
        split="search",
        quality=float("nan"),
        quality_error=0.0,
        metrics={},
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        size_bytes=cost.size_bytes,
    )


@dataclass(slots=True, kw_only=True)
class SearchState:
    """State of a search.

    Attributes:
        ledger: Trials of the study.
        settings: Settings of the run.
        model: Model that is searched.
        space: Search space.
        records: Every finished candidate, in the order of their numbers; grows in place.
        planned: Trials of the whole study; this run may do fewer.
        known: The same candidates, indexed.
    """

    ledger: Ledger
    settings: StudySettings
    model: Model
    space: Space
    records: list[CandidateRecord]
    planned: int
    known: Known = field(init=False)

    def __post_init__(self) -> None:
        self.known = Known(self.records, self.model.topology, self.model.problem)

    def front(self) -> Front:
        """Return the front of all candidates so far."""
        return self.known.front()

    def seed(self, number: int) -> int:
        """Return the seed of a trial; it follows from the number alone.

        Args:
            number: Number of the trial.
        """
        return (self.settings.seed * 100_003 + number) % 2**31

    def containing(self, plan: ResolvedPlan) -> Sequence[CandidateRecord]:
        """Return the candidates as wide as a plan that a trial may start from, if their weights are stored.

        Args:
            plan: Plan to start.
        """
        lineage = self.settings.search.lineage
        found = self.known.widths.containing(plan.widths)
        return [record for record in found if lineage or record.origin is Origin.DENSE]


#: Queues a proposal where one is due; returns whether it did.
Source = Callable[[SearchState], bool]
