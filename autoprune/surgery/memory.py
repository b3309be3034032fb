"""Return freed memory to the system."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

_STATM = Path("/proc/self/statm")


def resident() -> int:
    """Count the bytes of this process that are in memory, zero where the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def give_back(above: float) -> None:
    """Return freed memory to the system where more than `above` bytes are resident.

    The C library of GNU keeps what lies between blocks in use. Copies of a model that come and go leave such gaps, and
    the process would grow to several times what it needs. To return them takes a little time, so it is not done always.
    """
    trim = _trim()
    if trim is not None and resident() > above:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """The function of the C library, None where it is another one."""
    try:
        found: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return None
    return found
