"""Return freed memory to the system."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

_STATM = Path("/proc/self/statm")


def resident() -> int:
    """Count the bytes of this process that are in memory.

    Returns:
        The number; 0 if the system does not tell.
    """
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def give_back(above: float) -> None:
    """Return freed memory to the system if much is resident.

    The GNU C library keeps freed memory between blocks in use. Copies of a model leave such gaps, and the process would
    grow to several times what it needs. Returning memory takes a little time, so it is not done every time.

    Args:
        above: Bytes of resident memory above which freed memory is returned.
    """
    trim = malloc_trim()
    if trim is not None and resident() > above:
        trim(0)


@cache
def malloc_trim() -> Callable[[int], int] | None:
    """Find the function of the C library that returns freed memory.

    Returns:
        The function; None if the library is not that of GNU.
    """
    try:
        found: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return None
    return found
