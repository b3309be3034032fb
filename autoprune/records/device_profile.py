"""DeviceProfile: what latencies of one model were measured on one device, as plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from autoprune.codec import Format, load_dataclass, stored, to_plain
from autoprune.errors import StorageError, error_message
from autoprune.records.atomic import write_atomically
from autoprune.records.layer_table import LayerTable
from autoprune.records.profile import LatencyProfile
from autoprune.structure.topology import Topology


@stored(Format(what="a device", optional=None))
@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The machine and the runtime that latency was measured on.

    Attributes:
        processor: Name of the processor.
        cores: Number of its cores.
        system: Operating system.
        backend: Name of the runtime; where it does not run the model, doubts of the profile say what was timed.
        versions: Package -> version.
    """

    processor: str
    cores: int
    system: str
    backend: str
    versions: Mapping[str, str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", MappingProxyType(dict(self.versions)))


@stored(Format(what="a timed model"))
@dataclass(frozen=True, slots=True, kw_only=True)
class TimedModel:
    """A model of given widths, and its latency.

    Attributes:
        widths: Group name -> width. A group that is not named is whole.
        dropped: Names of the blocks that are dropped.
        ratio: Latency as a share of the dense model's.
        half_width: Half the width of the ratio's 95 % interval, as a share of the ratio.
    """

    widths: Mapping[str, int]
    dropped: tuple[str, ...] = ()
    ratio: float
    half_width: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", MappingProxyType(dict(self.widths)))


@stored(Format(what="a staircase"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Staircase:
    """Latency of the model while groups with the same kinds of layers lose channels, all of them equally many.

    Attributes:
        layers: Kinds of the layers that make and read the channels.
        groups: Names of the groups.
        anchors: Width of each group before it loses channels: a multiple of the largest grain that was looked for.
        lost: Numbers of channels that each group lost.
        ratios: Latency as a share of the dense model's, for each number.
        half_widths: Half the width of the 95 % interval of each, as a share of it.
        grain: Smallest distance between the widths that explains the latencies.
    """

    layers: str
    groups: tuple[str, ...]
    anchors: tuple[int, ...]
    lost: tuple[int, ...]
    ratios: tuple[float, ...]
    half_widths: tuple[float, ...]
    grain: int


@stored(Format(what="a device profile", version=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """Latencies of a model and of cuts of it on one device, from which the latency of any cut is predicted.

    Attributes:
        structure: Fingerprint of the model's groups and tensors.
        device: Machine and runtime.
        latency_profile: Threads, batch size, number type and sizes of the inputs.
        layers: Work of the layers of the model.
        dense_ms: Milliseconds of the dense model.
        staircases: Which widths are fast.
        models: Models that were timed, those of the staircases among them.
        error: Median relative error of predictions for models that were held out.
        rank: Rank correlation of these predictions with the measurements.
        doubts: Reasons not to trust the measurements, in sentences; and why another backend was timed.
        trusted: Whether most models were timed while the machine was quiet.
        seconds: Time that the measurements took.
    """

    structure: str
    device: Device
    latency_profile: LatencyProfile
    layers: LayerTable
    dense_ms: float
    staircases: tuple[Staircase, ...]
    models: tuple[TimedModel, ...]
    error: float
    rank: float
    doubts: tuple[str, ...] = ()
    trusted: bool = True
    seconds: float = 0.0

    @property
    def grains(self) -> dict[str, int]:
        """Group name -> distance between fast widths, 1 for a group without a staircase."""
        found = dict.fromkeys(self.layers.names, 1)
        for staircase in self.staircases:
            found.update(dict.fromkeys(staircase.groups, staircase.grain))
        return found

    @property
    def beside_grain(self) -> int:
        """Number of timed models with a width that is no multiple of its grain, that of the dense model not counted."""
        grains, whole = self.grains, dict(zip(self.layers.names, self.layers.channels, strict=True))
        return sum(
            any(width % grains[name] and width != whole[name] for name, width in one.widths.items())
            for one in self.models
        )

    def check(self, structure: str, where: str) -> None:
        """Check that the profile is one of a model.

        Args:
            structure: Fingerprint of the model.
            where: Source of the profile, for the message.

        Raises:
            StorageError: It is a profile of another model.
        """
        if self.structure != structure:
            remedy = "Make one with `autoprune profile STUDY.py`."
            raise StorageError(
                error_message(where, "be a device profile of this model", "one of another model", remedy)
            )

    def to_json(self) -> str:
        """Convert to JSON.

        Returns:
            Text that `from_json` reads.
        """
        return json.dumps(to_plain(self), separators=(",", ":"))

    def write(self, path: Path) -> None:
        """Write a file, whole or not at all.

        Args:
            path: The file.

        Raises:
            StorageError: The file cannot be written.
        """
        write_atomically(path, self.to_json().encode())

    @classmethod
    def read(cls, path: Path) -> DeviceProfile:
        """Read a file.

        Args:
            path: The file.

        Returns:
            The profile.

        Raises:
            StorageError: The file is missing or holds no profile.
        """
        return _checked(load_dataclass(cls, path), str(path))


def structure_of(topology: Topology) -> str:
    """Name the structure of a model and the work of its layers: profiles hold for models of one name.

    Args:
        topology: Structure of the model, as a study prunes it.

    Returns:
        A digest.
    """
    work = json.dumps(to_plain(LayerTable.of(topology)), sort_keys=True).encode()
    return f"{topology.fingerprint()}-{hashlib.sha256(work).hexdigest()[:8]}"


def _checked(profile: DeviceProfile, where: str) -> DeviceProfile:
    fault = profile.layers.inconsistency() or _fault(profile)
    if fault:
        raise StorageError(error_message(where, "hold a consistent device profile", f"one in which {fault}"))
    return profile


def _fault(profile: DeviceProfile) -> str:
    known, blocks = set(profile.layers.names), set(profile.layers.blocks)
    if any(set(one.widths) - known or set(one.dropped) - blocks for one in profile.models):
        return "a timed model has unknown groups or blocks"
    if not profile.dense_ms > 0 or any(not (one.ratio > 0 and one.half_width >= 0) for one in profile.models):
        return "a latency is not above 0"
    if any(set(one.groups) - known or one.grain < 1 for one in profile.staircases):
        return "a staircase has unknown groups, or a grain below 1"
    return ""
