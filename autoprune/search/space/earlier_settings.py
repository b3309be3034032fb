"""Settings before they were grouped: where each field went, for messages and for stored studies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TypeVar

from autoprune.errors import ConfigurationError

Settings = TypeVar("Settings")

#: Field of a group that has another name now -> its name before.
_RENAMED: Mapping[str, str] = {
    "search.space": "kind",
    "structure.modes": "amounts",
    "schedule.names": "schedules",
    "schedule.end": "schedule_end",
    "recovery.recalibration": "batch_norm_samples",
}
#: Group -> fields that kept their names.
_KEPT: Mapping[str, tuple[str, ...]] = {
    "structure": (
        *("kinds", "protect", "max_ratio", "round_to", "tie", "threshold", "criteria"),
        *("criterion_per_group", "block_criteria"),
    ),
    "masks": ("patterns", "sparsity", "spreads", "weight_criteria"),
    "schedule": ("updates", "regrowth"),
    "recovery": (
        *("steps", "length_exponent", "learning_rate", "optimizers", "schedulers", "weight_decay", "precision"),
        *("reconstruction", "max_norm", "max_norm_per", "distillation", "averaging"),
    ),
    "search": (
        *("cost", "min_budget", "scan", "scan_samples", "scan_criterion", "sampler", "solved_points"),
        *("uniform_points", "lineage", "lineage_slack", "polish", "early_stopping", "rungs", "rung_samples"),
    ),
    "measure": ("latency_rounds", "latency_backend", "threads"),
    "storage": ("collect_garbage", "checkpoint_epochs"),
}
#: Name before -> group and field of today.
MOVED: Mapping[str, str] = {
    **{name: f"{group}.{name}" for group, names in _KEPT.items() for name in names},
    **{before: now for now, before in _RENAMED.items()},
}
#: Fields of the space that the oldest studies did not store, and the behaviour they had then.
_OLDEST: Mapping[str, object] = {
    "scan_samples": None,
    "length_exponent": 0.0,
    "schedulers": ["one_cycle"],
    "averaging": [0.0],
    "reconstruction": [0],
}


def grouped(data: Mapping[str, object]) -> Mapping[str, object]:
    """Group the fields of stored settings that are flat; others pass unchanged.

    Args:
        data: Parsed JSON of settings.

    Returns:
        The fields of today.
    """
    space = data.get("space", {})
    if not isinstance(space, Mapping) or not ("space" in data or any(_is_flat(name, data[name]) for name in data)):
        return data
    flat = {**_OLDEST, **space, **{name: value for name, value in data.items() if name != "space"}}
    found: dict[str, object] = {}
    groups: dict[str, dict[str, object]] = {}
    for name, value in flat.items():
        group, _, field = MOVED.get(name, "").rpartition(".")
        if not group:
            found[name] = value
        else:
            groups.setdefault(group, {})[field] = [value] if name == "batch_norm_samples" else value
    return {**found, **groups}


def _is_flat(name: str, value: object) -> bool:
    return name in MOVED and not isinstance(value, Mapping)


def tell_moved_fields(kind: type[Settings]) -> type[Settings]:
    """Make a class of settings say where a field went that it is given under its name from before.

    Args:
        kind: Dataclass of settings.

    Returns:
        The same class.
    """
    build: Callable[..., None] = kind.__init__

    @functools.wraps(build)
    def init(self: Settings, *args: object, **given: object) -> None:
        faults = [moved_message(kind.__name__, name) for name in given if is_moved(kind.__name__, name)]
        if faults:
            raise ConfigurationError(" ".join(faults))
        build(self, *args, **given)

    setattr(kind, "__init__", init)  # noqa: B010  # mypy takes a plain assignment for an error
    return kind


def is_moved(owner: str, name: str) -> bool:
    """Tell whether a field of a class of settings lies in a group now.

    Args:
        owner: Name of the class.
        name: Name of the field.

    Returns:
        True for a field that moved.
    """
    return name in MOVED or (owner == "StudySettings" and name == "space")


def moved_message(owner: str, name: str) -> str:
    """Say where a field of settings went.

    Args:
        owner: Name of the class that had the field.
        name: Name that the field had.

    Returns:
        One sentence.
    """
    if name == "space":
        return f"{owner} has no field space: structure, masks, schedule, recovery and search are its own groups."
    group, _, field = MOVED[name].rpartition(".")
    now = f"{owner}({group}={_CLASSES[group]}({field}=...))"
    return f"{owner} has no field {name}: it is {MOVED[name]} now, so write {now}."


_CLASSES = {
    "structure": "StructureSettings",
    "masks": "MaskSettings",
    "schedule": "ScheduleSettings",
    "recovery": "RecoverySettings",
    "search": "SearchSettings",
    "measure": "MeasureSettings",
    "storage": "StorageSettings",
}
