"""Checks of what the caller of a search alone gives: classes, metrics, and settings that need no weights."""

from __future__ import annotations

from collections.abc import Mapping

from autoprune.display import shorten
from autoprune.errors import ConfigurationError, error_message, raise_all
from autoprune.search.settings import StudySettings
from autoprune.search.space.setting_groups import DEVICE, LATENCY_COST, SCORED_MODES
from autoprune.structure.cost import STRUCTURE_COSTS
from autoprune.structure.stored import Structure
from autoprune.structure.topology import Topology


def check_kind(what: str, value: object, kind: type, remedy: str) -> None:
    """Refuse a value of another class.

    Args:
        what: Name of the value.
        value: The value.
        kind: Class that it must have.
        remedy: What to do about it.

    Raises:
        ConfigurationError: It has another class.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(error_message(what, f"be of the class {kind.__name__}", shorten(repr(value)), remedy))


def check_metrics(metrics: object) -> None:
    """Check that metrics have names and directions.

    Args:
        metrics: Metrics as a caller gives them.

    Raises:
        ConfigurationError: They have not.
    """
    wants = "map each name to whether higher is better, such as {'accuracy': True}"
    if not isinstance(metrics, Mapping) or not all(
        isinstance(name, str) and name and isinstance(higher, bool) for name, higher in metrics.items()
    ):
        raise ConfigurationError(error_message("metrics", wants, shorten(repr(metrics))))


def searched_topology(structure: Structure, settings: StudySettings) -> Topology:
    """Take from a structure the part that is searched; refuse settings that need weights or a device.

    Args:
        structure: Structure of the model.
        settings: Settings of the search.

    Returns:
        The structure of that part.

    Raises:
        ConfigurationError: The settings need weights or a device, or nothing can be pruned.
    """
    search, found = settings.search, settings.structure
    scored = [mode for mode in found.modes if mode in SCORED_MODES]
    raise_all(
        "the settings",
        [
            error_message(name, wants, got)
            for wrong, name, wants, got in (
                (scored, "structure.modes", "be ratio or count, as a backend scores no channels", scored),
                (found.block_criteria, "structure.block_criteria", "be empty, as a backend scores no blocks", "some"),
                (found.round_to == DEVICE, "structure.round_to", "be a number, as a backend has no device", "device"),
                (
                    search.cost == LATENCY_COST,
                    "search.cost",
                    "follow from widths, as a backend has no device",
                    "latency_ms",
                ),
                (settings.measure.energy, "measure.energy", "be off, as a backend has no device: tell energy_mj", "on"),
                (settings.measure.predicts, "measure.latency_when", "be 'always', as a backend has no device", "front"),
            )
            if wrong
        ],
    )
    topology = Topology.of(structure, "the structure")
    if not topology.products and not topology.contractions:
        remedy = "Run folders of earlier versions have none: discover the model again."
        raise ConfigurationError(error_message("the structure", "hold multiply-adds", "none", remedy))
    whole = topology.cost({})
    free = [name for name in STRUCTURE_COSTS if getattr(whole, name) <= 0]
    raise_all("the structure", [error_message("the structure", f"hold {name}", "none") for name in free])
    topology = topology.protected(found.protect).only(found.kinds)
    if not topology.groups and not topology.blocks:
        wants = f"have something of the kinds {', '.join(found.kinds)}"
        raise ConfigurationError(error_message("the structure", wants, "nothing", "Set structure.kinds."))
    return topology
