"""The user's cache: files that are quicker to read from there than to make or to fetch again."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from autoprune.errors import StorageError
from autoprune.records.atomic import write_atomically

#: Environment variable with the folder of the cache; empty for no cache.
CACHE_VARIABLE = "AUTOPRUNE_CACHE_DIR"
#: Most bytes of weights in the cache; those that were not read for the longest time go.
_MOST_BYTES = 2 << 30


def cache_folder() -> Path | None:
    """Choose the folder of the cache.

    Returns:
        `$AUTOPRUNE_CACHE_DIR`, else `$XDG_CACHE_HOME/autoprune`, else `~/.cache/autoprune`; None where the first is set
        and empty, or there is no home.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "autoprune"
    except RuntimeError:  # there is no home
        return None


def read_cached_weights(digest: str) -> bytes | None:
    """Read weights from the cache.

    Args:
        digest: Their SHA-256, in hexadecimal digits.

    Returns:
        The content of their file; None where the cache does not hold it whole.
    """
    folder = _weights_folder()
    if folder is None:
        return None
    path = folder / digest
    try:
        data = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == digest else None


def cache_weights(digest: str, data: bytes, most_bytes: int = _MOST_BYTES) -> None:
    """Write weights to the cache, and delete others from it where they are too many. A failure is no fault.

    Args:
        digest: Their SHA-256, in hexadecimal digits.
        data: Content of their file.
        most_bytes: Most bytes of all weights in the cache.
    """
    folder = _weights_folder()
    if folder is None or len(data) > most_bytes:
        return
    with contextlib.suppress(StorageError, OSError):  # another process may delete, too
        write_atomically(folder / digest, data)
        latest_first = sorted(((path.stat(), path) for path in folder.iterdir()), key=lambda one: -one[0].st_mtime_ns)
        total = 0
        for state, path in latest_first:
            total += state.st_size
            if total > most_bytes:
                path.unlink(missing_ok=True)


def _weights_folder() -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "weights"
