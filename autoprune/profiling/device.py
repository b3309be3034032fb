"""The machine and the runtime that latency is measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from autoprune.records.device_profile import Device

#: Backend -> packages whose versions decide on latency, beside torch.
_PACKAGES = {"onnxruntime": ("onnxruntime",), "openvino": ("openvino",)}


def this_device(backend: str) -> Device:
    """Describe this machine.

    Args:
        backend: Name of the runtime.

    Returns:
        The device.
    """
    packages = ("torch", *_PACKAGES.get(backend, ()))
    return Device(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        backend=backend,
        versions={name: _version(name) for name in packages},
    )


def _processor() -> str:
    """Name the processor, on Linux as the kernel does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine() or "unknown"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
