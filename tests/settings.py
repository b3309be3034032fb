"""Settings in short: fields by their names, in the groups that have them."""

from __future__ import annotations

from dataclasses import fields

import autoprune
from autoprune.records.measurement import DEFAULT_PROFILE
from autoprune.records.profile import LatencyProfile
from autoprune.search.space.earlier_settings import MOVED
from autoprune.search.space.settings import SpaceSettings, field_types

#: Name of a field -> "group.field", or the name for a field outside the groups. Names are unique but for "space".
PATHS = {path.rpartition(".")[2]: path for path in field_types(autoprune.StudySettings) if "limits." not in path}


def space_of(**changes: object) -> SpaceSettings:
    """Settings of a space, such as space_of(steps=3, max_ratio=0.5)."""
    return SpaceSettings().changed(paths(changes))


def study_of(*, space: SpaceSettings | None = None, **changes: object) -> autoprune.StudySettings:
    """Settings of a study, such as study_of(trials=3, sampler="random"); `space` has groups to begin with."""
    groups = {} if space is None else {one.name: getattr(space, one.name) for one in fields(SpaceSettings)}
    return autoprune.StudySettings(**groups).changed(paths(changes))


def paths(changes: dict[str, object]) -> dict[str, object]:
    """Changes by "group.field"."""
    return {PATHS.get(name, name): value for name, value in changes.items()}


def flat(data: dict[str, object]) -> dict[str, object]:
    """Stored settings in the form of before the groups."""
    space, found = {}, {}
    for group, value in data.items():
        if group not in FLAT_GROUPS or not isinstance(value, dict):
            found[group] = value
            continue
        for name, one in value.items():
            before = _BEFORE.get(f"{group}.{name}")
            if before is None:  # a field that there was not before the groups
                continue
            kept = one[0] if before == "batch_norm_samples" else one
            (found if before in OUTSIDE_SPACE else space)[before] = kept
    return {**found, "space": space}


def timed(bursts: int) -> dict[str, object]:
    """What a context takes to time plain PyTorch calls, briefly and so without trust."""
    from autoprune.measure.latency.timing import Timing  # knows torch; tests of the search do without

    return {"profiles": (LatencyProfile(name=DEFAULT_PROFILE, backend="eager"),), "timing": Timing(bursts=bursts)}


FLAT_GROUPS = {path.partition(".")[0] for path in MOVED.values()}
_BEFORE = {now: before for before, now in MOVED.items()}
#: Fields of earlier that the study had, and not its space.
OUTSIDE_SPACE = {
    *("sampler", "solved_points", "uniform_points", "lineage", "lineage_slack", "polish", "early_stopping", "rungs"),
    *("rung_samples", "latency_rounds", "latency_backend", "threads", "collect_garbage", "checkpoint_epochs"),
}
