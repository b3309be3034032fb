"""NVML: the counter of energy of NVIDIA's GPUs since Volta. Not tested on a GPU."""

from __future__ import annotations

import torch

from autoprune.measure.energy.counter import CounterError, EnergyCounter


class NvmlCounter(EnergyCounter):
    """Energy of a whole GPU with its memory. The counter moves every 20 to 100 ms, and counts all processes on it.

    Args:
        device: Number of the GPU, as torch counts them.
    """

    name = "nvml"
    seconds = 2.0

    def __init__(self, device: int = 0) -> None:
        self._device = device
        self._first: int | None = None
        self._handle: object = None

    def lacks(self) -> str:
        """Say why it cannot be read here, and what to do.

        Returns:
            Sentences; "" where it can be read.
        """
        try:
            self.joules()
        except ImportError:
            return "pynvml cannot be imported. pip install 'autoprune[nvml]' installs it."
        except CounterError as error:
            return f"NVML gives no energy: {error}. GPUs of NVIDIA since Volta have a counter of energy."
        return ""

    def joules(self) -> float:
        """Read the energy of the GPU since the first reading.

        Returns:
            Joules.

        Raises:
            ImportError: pynvml is not installed.
            CounterError: The GPU has no such counter, or it cannot be read any more.
        """
        import pynvml as nvml  # of an extra

        try:
            now: int = nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu())  # millijoules since the driver's start
        except nvml.NVMLError as error:
            raise CounterError(str(error)) from error
        self._first = now if self._first is None else self._first
        return (now - self._first) / 1000.0

    def others(self) -> str:
        """Say whether other processes compute on the GPU.

        Returns:
            A sentence; "" where none does, or NVML does not tell.
        """
        import pynvml as nvml  # of an extra

        try:
            running = len(nvml.nvmlDeviceGetComputeRunningProcesses(self._gpu()))
        except nvml.NVMLError:
            return ""
        return f"{running} processes had the GPU, and what all of them used is counted." if running > 1 else ""

    def _gpu(self) -> object:
        """Return NVML's handle of the GPU: its numbers know nothing of CUDA_VISIBLE_DEVICES."""
        import pynvml as nvml  # of an extra

        if self._handle is None:
            nvml.nvmlInit()
            identity = f"GPU-{torch.cuda.get_device_properties(self._device).uuid}"
            self._handle = nvml.nvmlDeviceGetHandleByUUID(identity)
        return self._handle
