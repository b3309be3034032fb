"""Choice of the counter of energy that a model's calls are measured by."""

from __future__ import annotations

from torch import nn

from autoprune.measure.energy.counter import CounterError, EnergyCounter
from autoprune.measure.energy.nvml import NvmlCounter
from autoprune.measure.energy.rapl import RaplCounter
from autoprune.measure.latency.backends import LATENCY_BACKENDS, backend_of
from autoprune.measure.latency.eager import device_of
from autoprune.measure.latency.host import Host
from autoprune.records.profile import LatencyProfile


def counter_of(dense: nn.Module, profile: LatencyProfile) -> EnergyCounter | None:
    """Choose the counter of the device that a model runs on.

    Args:
        dense: The dense model.
        profile: Latency profile whose backend calls it.

    Returns:
        RAPL for the CPU, NVML for a GPU; None for a device elsewhere.

    Raises:
        UnknownNameError: There is no such backend.
        ConfigurationError: The backend cannot run here.
    """
    place = LATENCY_BACKENDS[backend_of(profile)].device
    device = device_of(dense)
    if place == "cuda" or (place == "model" and device.type == "cuda"):
        return NvmlCounter(device.index or 0 if device.type == "cuda" else 0)
    return None if place == "elsewhere" else RaplCounter()


def lacks_energy(counter: EnergyCounter | None, host: Host | None = None) -> str:
    """Say why energy cannot be measured here, and what to do.

    Args:
        counter: Result of `counter_of`.
        host: Clocks of the machine; a test gives its own.

    Returns:
        Sentences; "" where it can be measured.
    """
    if counter is None:
        return "The model runs on another device, whose counters are not read."
    reason = counter.lacks()
    if reason:
        return reason
    try:
        before = counter.joules()
        (host or Host()).sleep(counter.seconds)
        stands = counter.joules() <= before
    except CounterError as error:
        return f"The counter {counter.name} cannot be used: {error}."
    return f"The counter {counter.name} stands still." if stands else ""
