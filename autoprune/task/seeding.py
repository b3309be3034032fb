"""Seed the generators of torch."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def seed_torch(seed: int, devices: Iterable[torch.device] = ()) -> None:
    """Seed the generator of the CPU and those of the devices in use, and leave others alone.

    `torch.manual_seed` seeds every device that there is or may be later. For the latter it formats the call stack three
    times, which takes longer than a forward of a small model.

    Args:
        seed: The seed.
        devices: Devices in use.
    """
    torch.default_generator.manual_seed(seed)
    for device in devices:
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type not in ("cpu", "meta"):
            torch.get_device_module(device).manual_seed(seed)
