"""Peak memory of one action, by the kernel's count."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def with_peak(action: Callable[[], T]) -> tuple[T, int]:
    """Run an action and count the memory that it needs at its peak.

    Args:
        action: A function without arguments.

    Returns:
        Its result, and the largest resident size of this process while it ran, less the size before, in bytes.

    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that was freed before is not to be used for nothing
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the memory in use now
    before = _status("VmRSS")
    result = action()
    return result, _status("VmHWM") - before


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
