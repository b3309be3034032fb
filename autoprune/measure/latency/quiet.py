"""A quiet host: trials of several processes run at the same time, but for the moments in which one measures latency."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from autoprune.measure.latency.host import lock_path

with suppress(ImportError):  # on Windows trials do not wait for each other's measurements
    import fcntl

#: Whether the kernel's locks are there.
_LOCKS = sys.platform != "win32"
#: Descriptor with which this process shares the host while it runs a trial.
_SHARED: list[int] = []


@contextmanager
def busy_host() -> Iterator[None]:
    """Run a trial, beside those of other processes; waits while another process of the user measures.

    Yields:
        Nothing.
    """
    if not _LOCKS:
        yield
        return
    shared = _open("busy")
    try:
        _share(shared)
        _SHARED.append(shared)
        try:
            yield
        finally:
            _SHARED.remove(shared)
    finally:
        os.close(shared)


@contextmanager
def quiet_host() -> Iterator[None]:
    """Wait until the other trials of this host have ended, and keep new ones from beginning.

    The lock of a dead process is free. Inside `busy_host` the process steps aside first, so that two that want to
    measure do not wait for each other.

    Yields:
        Nothing.
    """
    if not _LOCKS:
        yield
        return
    for shared in _SHARED:
        fcntl.flock(shared, fcntl.LOCK_UN)
    gate, busy = _open("gate"), _open("busy")
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)  # no trial begins any more
        fcntl.flock(busy, fcntl.LOCK_EX)
        yield
    finally:
        os.close(busy)
        os.close(gate)
        for shared in _SHARED:
            _share(shared)


def _share(descriptor: int) -> None:
    """Share the host: behind the gate, so that those who wait for quiet come first."""
    gate = _open("gate")
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(gate)


def _open(what: str) -> int:
    path = Path(f"{lock_path().with_suffix('')}-{what}.lock")
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
