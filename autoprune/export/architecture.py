"""Architecture of an exported candidate, as plain data without torch: all that the weights are loaded with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.codec import Format, stored, to_plain
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.records.measurement import Measurement
from autoprune.structure.stored import Structure

ARCHITECTURE_VERSION = 3
#: Where the header of a weights file holds the architecture, for a file that comes alone.
METADATA_KEY = "autoprune_architecture"


@stored(Format(what="an architecture", version=ARCHITECTURE_VERSION, optional=("dropped", "topology")))
@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Architecture of an exported candidate, as far as loading reads it.

    Attributes:
        structure: Fingerprint of the model definition.
        kept: Group -> channels that stay, in dense indices.
        dropped: Blocks that are dropped.
        topology: Positions of the channels; None in a file or of a run of an earlier version.
    """

    structure: str
    kept: Mapping[str, tuple[int, ...]]
    dropped: tuple[str, ...] = ()
    topology: Structure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Study, plan and measurements of an exported candidate, for people who read its architecture.

    Attributes:
        study: Name of the study; "" without one.
        candidate: Number of the candidate; None without a study.
        plan: Plan of the trial.
        search: Measurement on the search split.
        test: Measurement on the test split; None without.
    """

    study: str
    candidate: int | None
    plan: PruningPlan
    search: Measurement
    test: Measurement | None


def architecture_data(
    structure: str, kept: KeptChannels, topology: Structure | None, origin: Provenance
) -> dict[str, object]:
    """Make the data of an architecture.

    Args:
        structure: Fingerprint of the model definition.
        kept: Channels and blocks that stay.
        topology: Positions of the channels; None in a run of a version that did not store them.
        origin: Where the candidate comes from.

    Returns:
        JSON-ready data, which `Architecture` reads.
    """
    return {
        "version": ARCHITECTURE_VERSION,
        "study": origin.study,
        "candidate": origin.candidate,
        "structure": structure,
        "kept": {name: list(indices) for name, indices in kept.groups.items()},
        "dropped": list(kept.dropped),
        "topology": to_plain(topology),
        "plan": origin.plan.to_dict(),
        "search": origin.search.to_dict(),
        "test": None if origin.test is None else origin.test.to_dict(),
    }
