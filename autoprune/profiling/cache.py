"""Device profiles of a user, kept from one study to the next."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from autoprune.codec import to_plain
from autoprune.errors import StorageError
from autoprune.records.device_profile import Device, DeviceProfile
from autoprune.records.profile import LatencyProfile
from autoprune.search.allocation.timing_design import DESIGN_VERSION

#: Environment variable with the folder of the cache; empty for no cache.
CACHE_VARIABLE = "AUTOPRUNE_CACHE_DIR"


def cache_folder() -> Path | None:
    """Choose the folder of the cache.

    Returns:
        `$AUTOPRUNE_CACHE_DIR`, else `$XDG_CACHE_HOME/autoprune`, else `~/.cache/autoprune`; None where the first is set
        and empty, or there is no home.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "autoprune"
    except RuntimeError:  # there is no home
        return None


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
