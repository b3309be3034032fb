"""Solver of stored runs: widths for any budget and cost, without running anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoprune.errors import NotFoundError, UnknownNameError, error_message
from autoprune.front.run import Run
from autoprune.records.cost_table import CostTable
from autoprune.records.device_profile import DeviceProfile
from autoprune.records.layer_table import LayerTable
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.allocation.correction import correct_scan, observe
from autoprune.search.allocation.cost_model import CostModel
from autoprune.search.allocation.latency_model import LatencyModel, fit_latency, latency_model_of, timed_models
from autoprune.search.allocation.rounding import TOLERANCE
from autoprune.search.allocation.solver import Allocation, allocate
from autoprune.search.space.setting_groups import LATENCY_COST
from autoprune.search.space.settings import SpaceSettings
from autoprune.structure.cost import STRUCTURE_COSTS

#: Costs that a budget can refer to.
SOLVE_COSTS = (*STRUCTURE_COSTS, LATENCY_COST)
#: Most further solutions where the first one misses its budget.
_CORRECTIONS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvedAllocation:
    """An allocation and its basis.

    Attributes:
        allocation: Widths of every group.
        cost: Cost that the budget is a share of.
        shares: Cost -> share of dense, for costs that follow from widths, and for latency if requested.
        channels: Group name -> dense width.
        notes: Remarks for the user, in sentences.
    """

    allocation: Allocation
    cost: str
    shares: Mapping[str, float]
    channels: Mapping[str, int]
    notes: tuple[str, ...]


def solve_stored(run: Run, space: SpaceSettings, budget: float, cost: str | None = None) -> SolvedAllocation:
    """Find the widths that lose the least at a budget, by the scan as the finished trials correct it.

    Args:
        run: Run with the costs of its model.
        space: Settings of its space.
        budget: Share of the dense cost, in (0, 1].
        cost: One of SOLVE_COSTS; that of the space when None.

    Returns:
        The allocation, its costs and remarks.

    Raises:
        UnknownNameError: The cost is unknown.
        ConfigurationError: The budget is out of range, or too few candidates have a measured latency.
        NotFoundError: The run folder is of an earlier version.
    """
    cost = space.search.cost if cost is None else cost
    if cost not in SOLVE_COSTS:
        raise UnknownNameError("--cost", cost, SOLVE_COSTS)
    table, ties = _read(run)
    notes: list[str] = []
    sensitivity = _sensitivity(run, table, notes)
    tied = table.tied(ties)
    names = [[name for name, one in zip(table.names, ties, strict=True) if one == leader] for leader in sorted({*ties})]
    groups = dict(zip(tied.names, names, strict=True))
    profile = run.folder.read_device_profile()
    latency = _latency(run, profile, notes) if cost == LATENCY_COST else None
    model = CostModel.of_table(tied, cost) if latency is None else latency.cost_model(leaders=ties)
    allowed = space.structure.allowed_widths(tied, None if profile is None else profile.grains)

    def spread(found: Allocation) -> dict[str, int]:
        return {name: found.widths[leader] for leader, tie in groups.items() for name in tie}

    summed = None if sensitivity is None else sensitivity.summed(groups)

    def solved(aim: float) -> Allocation:
        found = allocate(model, summed, aim, allowed)
        return found if latency is None else replace(found, share=latency.ratio(spread(found)) / latency.ratio({}))

    found = _at_budget(solved, budget)
    if not found.exact:
        notes.append(f"No widths cost {budget:.1%} of dense to within 1 %: this is the nearest that was found.")
    as_array, widths = model.as_array(found.widths), spread(found)
    shares = {axis: CostModel.of_table(tied, axis).share(as_array) for axis in STRUCTURE_COSTS}
    if cost not in shares:
        shares[cost] = found.share
    return SolvedAllocation(
        allocation=replace(found, widths={name: widths[name] for name in table.names}),
        cost=cost,
        shares=shares,
        channels=dict(zip(table.names, table.channels, strict=True)),
        notes=tuple(notes),
    )


def _at_budget(solve: Callable[[float], Allocation], budget: float) -> Allocation:
    """Solve for a budget of a cost that a solver knows approximately, as that of latency off the grain of widths."""
    aim, best = budget, solve(budget)
    found = best
    for _ in range(_CORRECTIONS):
        if abs(found.share - budget) <= TOLERANCE * budget:
            break
        aim = min(max(aim * budget / found.share, 1e-3), 1.0)
        found = solve(aim)
        best = min(best, found, key=lambda one: abs(one.share - budget))
    return replace(best, budget=budget, exact=abs(best.share - budget) <= TOLERANCE * budget)


def _read(run: Run) -> tuple[CostTable, Sequence[int]]:
    stored = run.manifest
    if stored.costs is None:
        raise NotFoundError(
            error_message(
                "a run folder to solve in", "hold the costs of the model", "one of an earlier version", "Run anew."
            )
        )
    return stored.costs, stored.ties


def _sensitivity(run: Run, table: CostTable, notes: list[str]) -> Sensitivity | None:
    """Return the scan as the trials correct it; None without one."""
    scanned = run.sensitivity()
    if scanned is None:
        notes.append("There is no scan in the run folder: every group keeps the same share.")
        return None
    dense = dict(zip(table.names, table.channels, strict=True))
    found = correct_scan(scanned, observe(run.records, dense, run.problem.quality))
    if any(factor != 1.0 for factor in found.factors.values()):
        notes.append(f"The scan is corrected by {found.observations} finished candidates.")
    return found.sensitivity


def _latency(run: Run, profile: DeviceProfile | None, notes: list[str]) -> LatencyModel:
    """Return the latency model, from the device profile and the measured candidates."""
    measured = timed_models(run.records)
    if profile is None:
        fit = fit_latency(LayerTable.of_costs(_read(run)[0]), [one for one in measured if not one.dropped])
    else:
        fit = latency_model_of(profile, measured)
    notes.append(
        f"Latency by a model of {fit.models} timed models: off by {fit.error:.1%} in the median and {fit.worst:.1%} at "
        "most on those that it has not seen."
    )
    return fit
