"""The device profile of a study: read from its folder or the user's cache, or made."""

from __future__ import annotations

import warnings

from autoprune.errors import AutopruneError, AutopruneWarning, ConfigurationError, error_message, user_code
from autoprune.measure.latency.backends import backend_of
from autoprune.profiling.cache import read_cached, write_cached
from autoprune.profiling.device import this_device
from autoprune.profiling.make import OnTimed, ProfileRequest, has_staircases, make_profile
from autoprune.records.device_profile import DeviceProfile, structure_of
from autoprune.records.profile import LatencyProfile
from autoprune.records.run_folder import RunFolder
from autoprune.search.allocation.latency_model import LatencyModel, latency_model_of
from autoprune.search.settings import StudySettings
from autoprune.search.space.setting_groups import AUTO, LATENCY_COST, SCORED_MODES
from autoprune.trial.context import TrialContext

#: Shortest time limit of a study, in seconds, that leaves a tenth for a device profile.
_LONG = 600.0


def study_latency(
    context: TrialContext, folder: RunFolder, settings: StudySettings, on_timed: OnTimed | None = None
) -> LatencyModel | None:
    """Return the latency model of a study, by the device profile in its folder, which stays the same.

    Where the settings do not ask for a profile, but latency decides, it is made for its grains before the first trial.
    If that fails, a warning says so, and the study goes on without.

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
    if lacks_profile(context, folder, settings):
        make = device_profile if settings.needs_device_profile else _profile_if_possible
        made = make(context, settings.measure.timed_profiles[0], on_timed)
        if made is not None:
            folder.write_device_profile(made)
    found = folder.read_device_profile()
    if found is None:
        return None
    found.check(structure_of(context.topology), str(folder.path))
    return latency_model_of(found)


def lacks_profile(context: TrialContext, folder: RunFolder, settings: StudySettings) -> bool:
    """Return whether a run makes a device profile, or takes it from the cache, before its first trial.

    Args:
        context: Context of the trials.
        folder: Run folder.
        settings: Settings of the study.
    """
    if not (context.topology.groups or context.topology.blocks) or folder.holds_device_profile:
        return False
    return settings.needs_device_profile or (rounds_by_itself(settings, context) and not folder.candidate_names())


def rounds_by_itself(settings: StudySettings, context: TrialContext) -> bool:
    """Return whether a new study makes a device profile for its grains, although no setting asks for one.

    It does where the latency of the default profile is an objective or limited, and groups are wide enough to have a
    grain. A short time limit is not spent on it, and nor is a study of the dense model alone.

    Args:
        settings: Settings of the study.
        context: Context of its trials.
    """
    decides = settings.measure.latency_rounds != 0 and LATENCY_COST in settings.deciding
    rounded = settings.structure.round_to == AUTO and not {*settings.structure.modes} <= {*SCORED_MODES}
    long_enough = settings.trials > 1 and (settings.seconds is None or settings.seconds >= _LONG)
    return decides and rounded and long_enough and has_staircases(context.topology)


def _profile_if_possible(
    context: TrialContext, profile: LatencyProfile, on_timed: OnTimed | None
) -> DeviceProfile | None:
    try:
        return device_profile(context, profile, on_timed)
    except AutopruneError as error:
        said = f"Widths are not rounded to what is fast here, as no device profile could be made: {error}"
        warnings.warn(said, AutopruneWarning, stacklevel=2)
        return None


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

    One that was measured while other work ran serves its study alone, and a warning says so.

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
    if found.trusted:
        write_cached(found)
    else:
        told = f"The device profile is in doubt, and kept for no other study. {found.doubts[-1]}"
        warnings.warn(f"{told} One that is made while the machine is idle tells more.", AutopruneWarning, stacklevel=3)
    return found
