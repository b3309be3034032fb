"""Identity of a study: its manifest, and the check that a folder holds the same study. Without torch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoprune.codec import from_plain, to_plain
from autoprune.errors import ConfigurationError, StudyConflictError, error_message
from autoprune.plan.widths import prunable_blocks
from autoprune.records.cost_table import CostTable
from autoprune.records.manifest import BlockRow, GroupRow, UnprunableModule
from autoprune.records.objectives import COSTS
from autoprune.records.problem import Problem
from autoprune.records.run_folder import RunFolder
from autoprune.search.settings import OWN_OPTIONS, StudySettings
from autoprune.search.space.context import SpaceContext
from autoprune.structure.blocks import DroppableBlock
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.topology import Topology

#: Settings that may change from one run of a study to the next.
CHANGEABLE = ("trials", "seconds", "samples", "threads", "workers")


def manifest_of(
    name: str, topology: Topology, settings: StudySettings, problem: Problem, own: Mapping[str, object]
) -> dict[str, object]:
    """Return the manifest of a study, which suffices for the front, the report and `solve` without the script.

    Args:
        name: Name for people.
        topology: Structure of the dense model.
        settings: Settings of the study.
        problem: Objectives and metrics of the study.
        own: Further fields that identify the study, such as fingerprints.

    Returns:
        JSON-ready data, see `Manifest`.
    """
    return {
        "name": name,
        "settings": settings.to_dict(),
        **own,
        "quality": problem.metric,
        "metrics": list(problem.metrics),
        "directions": dict(problem.metrics),
        "higher_is_better": problem.higher_is_better,
        "groups": to_plain(group_rows(topology)),
        "blocks": to_plain(block_rows(topology)),
        "costs": CostTable.of(topology).to_dict(),
        "ties": list(SpaceContext(settings=settings, topology=topology).leaders),
        "unprunable": to_plain(unprunable_rows(topology)),
    }


def make_problem(
    settings: StudySettings, metric: str, higher_is_better: bool, metrics: Mapping[str, bool | None]
) -> Problem:
    """Return the problem of a new study.

    Args:
        settings: Settings of the study.
        metric: Name of the metric behind the quality.
        higher_is_better: Its direction.
        metrics: Every metric -> whether higher is better; None where that is unknown.

    Returns:
        The problem.

    Raises:
        UnknownNameError: There is no such objective or limit.
        ConfigurationError: No cost is an objective, or a metric is limited from its better side.
    """
    found = Problem(
        objectives=settings.objectives,
        metric=metric,
        higher_is_better=higher_is_better,
        limits=settings.limits,
        metrics=metrics,
        profiles=settings.measure.profile_names,
    )
    if not any(objective.is_cost for objective in found.rows):
        known = ", ".join(COSTS)
        got = ", ".join(settings.objectives)
        raise ConfigurationError(error_message("objectives", f"name one or more costs ({known})", got))
    return found


def group_rows(topology: Topology) -> list[GroupRow]:
    """Return name, channels, layers and the savings of halving each group.

    Args:
        topology: Structure of the dense model.
    """
    whole = topology.cost({})
    rows: list[GroupRow] = []
    for group in topology.groups:
        half = topology.cost({group.name: group.half})
        parameters, multiply_adds = whole.shares_gone(half)
        rows.append(
            GroupRow(
                name=group.name,
                channels=group.channels,
                kind=group.kind.replace("_", " "),
                layers=tuple(layers_of(group)),
                tensors=len({member.tensor for member in group.members}),
                parameters_saved_by_half=parameters,
                multiply_adds_saved_by_half=multiply_adds,
            )
        )
    return rows


def layers_of(group: ChannelGroup) -> list[str]:
    """Return the modules that produce the channels of a group, in the order of the model.

    Args:
        group: Group of coupled channels.
    """
    makers = (member.tensor.rpartition(".")[0] or member.tensor for member in group.members if member.role == "out")
    return list(dict.fromkeys(makers))


def block_rows(topology: Topology) -> list[BlockRow]:
    """Return name, kind, whether trials choose it, and the savings of dropping each block.

    Args:
        topology: Structure of the dense model.
    """
    whole, chosen = topology.cost({}), prunable_blocks(topology)
    rows: list[BlockRow] = []
    for block in topology.blocks:
        parameters, multiply_adds = whole.shares_gone(topology.cost({}, dropped=(block.name,)))
        rows.append(
            BlockRow(
                name=block.name,
                kind=_kind(block),
                chosen=block.name in chosen,
                parameters_saved=parameters,
                multiply_adds_saved=multiply_adds,
            )
        )
    return rows


def _kind(block: DroppableBlock) -> str:
    """Return the kind of a block in words. "not exact": not proved equal to weights of zero."""
    if block.exact:
        return "layer" if block.repeated else "block"
    return "layer, not exact"


def unprunable_rows(topology: Topology) -> list[UnprunableModule]:
    """Return the modules with channels that cannot be pruned, why, where, and what to do about it.

    Args:
        topology: Structure of the dense model.
    """
    spent: dict[str, int] = defaultdict(int)
    for product in topology.products:
        spent[product.weight.rpartition(".")[0]] += product.positions * math.prod(
            topology.tensors[product.weight].shape
        )
    whole = max(topology.cost({}).multiply_adds, 1)
    return [
        UnprunableModule(
            module=left.module,
            channels=left.channels,
            of=left.of,
            reason=left.reason,
            kind=left.why.kind.name,
            title=left.why.kind.title,
            why=left.why.words,
            remedy=left.why.kind.remedy,
            docs=left.why.kind.anchor,
            operator=left.why.operator,
            at=left.why.module,
            line=left.why.line,
            group=left.group,
            parts=(left.kind or "channels").replace("_", " "),
            multiply_adds=spent[left.module] * left.channels / max(left.of, 1) / whole,
        )
        for left in topology.unprunable
    ]


def check_same(folder: RunFolder, new: Mapping[str, object], also: Sequence[str] = ()) -> None:
    """Check that a folder holds the same study.

    Args:
        folder: Run folder.
        new: Manifest of the study that is asked for.
        also: Further fields of the manifest that have to be equal.

    Raises:
        StudyConflictError: The studies differ; the message names the differences.
    """
    stored = folder.read_study()
    known = ("structure", "weights", "quality", "metrics", "higher_is_better", *also)
    differences = [key for key in known if to_plain(getattr(stored, key)) != new[key]]
    asked, found = new["settings"], new["blocks"]
    assert isinstance(asked, Mapping)
    assert isinstance(found, Sequence)
    blocks = [from_plain(BlockRow, row, "blocks") for row in found]
    differences += [] if _same_blocks(stored.blocks, blocks) else ["blocks"]
    apart = _differing_settings(_completed(stored.settings), asked)
    differences += apart
    if differences:
        raise StudyConflictError(
            error_message(
                "the output folder",
                "be new or hold this very study",
                f"{folder.path} with another one (other {', '.join(differences)})",
                f"Name another --out, or remove the folder.{_how_to_continue(apart)}",
            )
        )


def _same_blocks(stored: Sequence[BlockRow], found: Sequence[BlockRow]) -> bool:
    """Return whether both have the same names and choices, and dropping each saves the same."""
    return len(stored) == len(found) and all(
        (old.name, old.chosen) == (new.name, new.chosen)
        and math.isclose(old.parameters_saved, new.parameters_saved, abs_tol=1e-9)
        and math.isclose(old.multiply_adds_saved, new.multiply_adds_saved, abs_tol=1e-9)
        for old, new in zip(stored, found, strict=True)
    )


def _how_to_continue(apart: Mapping[str, object]) -> str:
    """Return the settings with which the stored study goes on; a default may have changed since it began."""
    said = ", ".join(_as_set(name, value) for name, value in apart.items())
    return f" To continue the stored study, start it with {said}." if said else ""


def _as_set(name: str, value: object) -> str:
    """Write a setting as `--set` and `--limit` take it."""
    group, _, field = name.partition(".")
    if group == "limits":
        return f"no limit {field}" if value is None else f"--limit {field}={value}"
    values = value if isinstance(value, list) else [value]
    if name in OWN_OPTIONS:
        names = [str(one["name"]) for one in values if isinstance(one, Mapping)]
        return f"{name} {', '.join(names)}" if names else f"no {name}"
    return f"--set {name}={','.join('none' if one is None else str(one) for one in values)}"


def _completed(settings: Mapping[str, object]) -> Mapping[str, object]:
    """Return stored settings with the defaults of newer fields; unchanged if they cannot be read."""
    try:
        return StudySettings.from_dict(settings).to_dict()
    except ConfigurationError:
        return settings


def _differing_settings(old: Mapping[str, object], asked: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return name and stored value of each differing field; nested fields one by one."""
    found: dict[str, object] = {}
    for key in dict.fromkeys((*asked, *old)):
        value, before = asked.get(key), old.get(key)
        if key in CHANGEABLE:
            continue
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            found |= _differing_settings(before, value, f"{prefix}{key}.")
        elif before != value:
            found[f"{prefix}{key}"] = before
    return found


def check_unused(path: Path) -> None:
    """Check that a folder does not exist, is empty, or holds temporary files alone.

    Args:
        path: Path of the folder.

    Raises:
        StudyConflictError: The folder holds other files.
    """
    if path.exists() and not path.is_dir():
        raise StudyConflictError(error_message("the output folder", "be a folder", f"the file {path}"))
    if path.is_dir() and any(not entry.match(".*.tmp") for entry in path.iterdir()):
        raise StudyConflictError(
            error_message(
                "the output folder",
                "be new, empty or hold this study",
                f"{path} with other files",
                "Name another --out.",
            )
        )
