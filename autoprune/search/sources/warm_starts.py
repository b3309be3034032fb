"""Warm starts: trials before the sampler's first proposal."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from autoprune.search.allocation.latency_model import LatencyModel
from autoprune.search.settings import StudySettings
from autoprune.search.space.parameter import Parameters
from autoprune.search.space.settings import SpaceSettings
from autoprune.search.space.space import Space, budgets
from autoprune.search.space.varied_defaults import varied_defaults
from autoprune.search.state import SearchState
from autoprune.structure.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """A trial to queue.

    Attributes:
        key: Unique key in the study.
        origin: Origin of the candidate.
        parameters: Parameters of the trial.
    """

    key: str
    origin: str
    parameters: Parameters

    @property
    def attributes(self) -> Mapping[str, str]:
        """Return the user attributes of the trial."""
        return {"warm_start": self.key, "origin": self.origin}


def warm_starts(
    space: Space,
    settings: StudySettings,
    topology: Topology,
    begun: tuple[Collection[str], int],
    latency: LatencyModel | None = None,
) -> list[WarmStart]:
    """Return the dense model, solved allocations from wide to narrow, and the uniform sweep if requested, in this
    order.

    Each allocation starts from the one before it. The solved allocations take turns through the choices of every
    training parameter, so that the sampler has seen each choice; the uniform sweep has the first choices.

    Args:
        space: Search space.
        settings: Number of points. If the space cannot solve, the solved points are uniform.
        topology: Structure of the dense model.
        begun: Keys of the warm starts that the study holds, and the trials of the whole study. Points are shared out
            over the whole study; a series that has begun keeps its number of points.
        latency: Latency model of the device; None without one.

    Returns:
        At most `settings.trials`, so that a run with fewer trials than planned does the first of them.
    """
    found = [WarmStart(key="dense", origin="dense", parameters=space.uniform(1.0))]
    for origin, points, ending in _series(space, settings, begun):
        for number, budget in enumerate(budgets(settings, topology, points, latency)):
            point = space.solved(budget) if origin == "solved" else space.uniform(budget)
            assert point is not None
            others = varied_defaults(settings, topology, number) if origin == "solved" else {}
            own = {**others, **_threshold(settings, number / max(points - 1, 1))}
            known = {name: value for name, value in own.items() if name in space.distributions}
            key = f"{origin} {number}{ending}"
            found.append(WarmStart(key=key, origin=origin, parameters={**point, **known}))
    return found[: settings.trials]


def _series(space: Space, settings: StudySettings, begun: tuple[Collection[str], int]) -> list[tuple[str, int, str]]:
    """Return origin, number of points and end of the keys, for the solved points and the baseline.

    There are at most as many points as the study has trials. Keys of older studies hold no number of points.
    """
    keys, planned = begun
    solvable = space.solved(1.0) is not None
    asked = {
        "solved": settings.search.solved_points if solvable else 0,
        "uniform": settings.search.uniform_points or (0 if solvable else settings.search.solved_points),
    }
    found, left = [], planned - 1
    for origin, points in asked.items():
        first = [key for key in keys if key == f"{origin} 0" or key.startswith(f"{origin} 0 of ")]
        _, of, number = first[0].partition(" of ") if first else ("", " of ", str(min(points, max(left, 0))))
        count = int(number or points)
        found.append((origin, count, of + number))
        left -= count
    return found


def _threshold(space: SpaceSettings, way: float) -> Parameters:
    """Return the threshold of a point, in that pruning mode. way: from 0, the widest point, to 1, the narrowest."""
    low, high = space.structure.threshold
    return {"threshold": low * (high / low) ** way} if space.structure.modes[0] == "threshold" and low < high else {}


def enqueue_warm_starts(state: SearchState) -> bool:
    """Queue the warm starts that the study does not hold yet.

    Args:
        state: State of the search.

    Returns:
        Whether any was queued.
    """
    present = state.ledger.warm_starts
    model, begun = state.model, (present, state.planned)
    found = warm_starts(state.space, state.settings, model.topology, begun, model.latency)
    fresh = [start for start in found if start.key not in present]
    with state.ledger.transaction():
        for start in fresh:
            state.ledger.enqueue(start.parameters, start.attributes)
    return bool(fresh)
