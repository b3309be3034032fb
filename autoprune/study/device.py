"""The device profile of a study: read from its folder or the user's cache, or made."""

from __future__ import annotations

from autoprune.errors import ConfigurationError, error_message, user_code
from autoprune.measure.latency.backends import backend_of
from autoprune.profiling.cache import read_cached, write_cached
from autoprune.profiling.device import this_device
from autoprune.profiling.make import OnTimed, ProfileRequest, make_profile
from autoprune.records.device_profile import DeviceProfile, structure_of
from autoprune.records.profile import LatencyProfile
from autoprune.records.run_folder import RunFolder
from autoprune.search.allocation.latency_model import LatencyModel, latency_model_of
from autoprune.search.settings import StudySettings
from autoprune.trial.context import TrialContext


def study_latency(
    context: TrialContext, folder: RunFolder, settings: StudySettings, on_timed: OnTimed | None = None
) -> LatencyModel | None:
    """Return the latency model of a study, by the device profile in its folder, which stays the same.

    Args:
        context: Context of the trials.
        folder: Run folder.
        settings: Settings of the study, which say whether a profile is needed.
        on_timed: Called after each timed model where the profile has to be made.

    Returns:
        The model; None where there is no profile and none is needed, as where only masks can be laid.

    Raises:
        ConfigurationError: The dense model does not run under the latency profile.
    """
    found = folder.read_device_profile()
    is_cut = bool(context.topology.groups or context.topology.blocks)
    if found is None and settings.needs_device_profile and is_cut:
        found = device_profile(context, settings.measure.timed_profiles[0], on_timed)
        folder.write_device_profile(found)
    if found is None:
        return None
    found.check(structure_of(context.topology), str(folder.path))
    return latency_model_of(found)


def store_profile(context: TrialContext, folder: RunFolder, profile: DeviceProfile) -> None:
    """Store a device profile in a run folder that has none.

    Args:
        context: Context of the trials.
        folder: Run folder, locked by this process.
        profile: The profile.

    Raises:
        ConfigurationError: The folder has another profile.
        StorageError: It is a profile of another model.
    """
    profile.check(structure_of(context.topology), "the device profile")
    stored = folder.read_device_profile()
    if stored is None:
        folder.write_device_profile(profile)
    elif stored != profile:
        remedy = "A study keeps its profile: name another folder for another device."
        raise ConfigurationError(error_message("the device profile", "be that of the study", "another one", remedy))


def device_profile(
    context: TrialContext, profile: LatencyProfile, on_timed: OnTimed | None = None, *, anew: bool = False
) -> DeviceProfile:
    """Return the device profile of a model on this machine: from the user's cache, or made and stored there.

    Args:
        context: Context with the model.
        profile: Latency profile.
        on_timed: Called after each timed model.
        anew: Make it even where the cache holds one.

    Returns:
        The profile.

    Raises:
        ConfigurationError: The dense model does not run under the latency profile.
    """
    cached = None if anew else read_cached(structure_of(context.topology), this_device(backend_of(profile)), profile)
    if cached is not None:
        return cached
    task = context.task
    request = ProfileRequest(dense=task.dense, inputs=task.example_inputs, topology=context.topology, profile=profile)
    with user_code("The device profile"):
        found = make_profile(request, on_timed=on_timed)
    write_cached(found)
    return found
