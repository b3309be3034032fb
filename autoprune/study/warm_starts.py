"""Warm starts: what a study tries before the sampler proposes anything."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from autoprune.space.parameters import Parameters
from autoprune.space.settings import SpaceSettings
from autoprune.space.space import Space, budgets
from autoprune.space.varied_defaults import varied_defaults
from autoprune.study.settings import StudySettings
from autoprune.trace.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """A trial to enqueue.

    key: unique in a study. origin: of the candidate.
    """

    key: str
    origin: str
    parameters: Parameters

    @property
    def attributes(self) -> Mapping[str, str]:
        """What the trial says of itself."""
        return {"warm_start": self.key, "origin": self.origin}


def warm_starts(
    space: Space, settings: StudySettings, topology: Topology, begun: tuple[Collection[str], int]
) -> list[WarmStart]:
    """List the dense model, a chain of solved allocations, and a uniform sweep where one is asked for, in this order.

    Wide to narrow, so that each starts from the one before it. The solved allocations take turns through the choices of
    every knob, so that the sampler has seen each; the uniform sweep has the first choice.

    Args:
        space: What plans are written in.
        settings: How many of each. Where the space cannot solve, the chain is a uniform sweep.
        topology: Of the model.
        begun: Keys of the warm starts that the study holds, and how many trials it is to have in all, whatever this run
            asks for: as many are shared out, and a series that has been begun keeps its number of points.

    Returns:
        No more than `settings.trials`, so that a run of fewer trials than planned does the first of them.

    """
    found = [WarmStart(key="dense", origin="dense", parameters=space.uniform(1.0))]
    for origin, points, ending in _series(space, settings, begun):
        for number, budget in enumerate(budgets(settings.space, topology, points)):
            point = space.solved(budget) if origin == "solved" else space.uniform(budget)
            assert point is not None
            others = varied_defaults(settings.space, topology, number) if origin == "solved" else {}
            own = {**others, **_threshold(settings.space, number / max(points - 1, 1))}
            known = {name: value for name, value in own.items() if name in space.distributions}
            key = f"{origin} {number}{ending}"
            found.append(WarmStart(key=key, origin=origin, parameters={**point, **known}))
    return found[: settings.trials]


def _series(space: Space, settings: StudySettings, begun: tuple[Collection[str], int]) -> list[tuple[str, int, str]]:
    """Origin and number of points of the chain and of the baseline, and what their keys end in.

    As many points as the study has trials for. Keys of a study that was begun before series could be of any length say
    no number.
    """
    keys, planned = begun
    solvable = space.solved(1.0) is not None
    asked = {
        "solved": settings.solved_points if solvable else 0,
        "uniform": settings.uniform_points or (0 if solvable else settings.solved_points),
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
    """A threshold in place of the budget, where it says how much goes. way: from the widest point to the narrowest."""
    low, high = space.threshold
    return {"threshold": low * (high / low) ** way} if space.amounts[0] == "threshold" and low < high else {}
