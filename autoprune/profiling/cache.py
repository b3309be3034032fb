"""Device profiles of a user, kept from one study to the next."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from autoprune.codec import to_plain
from autoprune.errors import StorageError
from autoprune.records.device_profile import Device, DeviceProfile
from autoprune.records.profile import LatencyProfile
from autoprune.records.user_cache import cache_folder
from autoprune.search.allocation.timing_design import DESIGN_VERSION


def cached_path(structure: str, device: Device, profile: LatencyProfile) -> Path | None:
    """Return the file of a profile in the cache.

    Args:
        structure: Name of the model's structure.
        device: The machine and the runtime.
        profile: Latency profile; its name does not matter.

    Returns:
        The file, which need not exist; None without a cache.
    """
    folder = cache_folder()
    if folder is None:
        return None
    plain = to_plain(profile)
    assert isinstance(plain, dict)
    key = json.dumps([structure, to_plain(device), {**plain, "name": ""}, DESIGN_VERSION], sort_keys=True)
    return folder / "device_profiles" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def read_cached(structure: str, device: Device, profile: LatencyProfile) -> DeviceProfile | None:
    """Read a profile from the cache.

    Args:
        structure: Name of the model's structure.
        device: The machine and the runtime.
        profile: Latency profile.

    Returns:
        The profile; None where there is none, or only one that cannot be read, which is made anew.
    """
    path = cached_path(structure, device, profile)
    if path is None or not path.is_file():
        return None
    try:
        found = DeviceProfile.read(path)
    except StorageError:
        return None
    return found if found.structure == structure else None


def write_cached(found: DeviceProfile) -> Path | None:
    """Write a profile to the cache. A cache that cannot be written is no fault: the run folder has the profile, too.

    Args:
        found: The profile.

    Returns:
        The file; None where it was not written.
    """
    path = cached_path(found.structure, found.device, found.latency_profile)
    if path is None:
        return None
    try:
        found.write(path)
    except StorageError:
        return None
    return path
