"""Advice for a run folder that cannot be read."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

from autoprune.errors import LaterVersionError, StorageError, plain_text

_COMMAND = "autoprune doctor"


@contextlib.contextmanager
def advises_doctor(folder: Path) -> Iterator[None]:
    """Name the command that repairs a run folder in the errors of what reads it.

    Args:
        folder: Run folder.

    Raises:
        StorageError: As inside the block, with the advice.
    """
    try:
        yield
    except LaterVersionError:  # nothing is broken
        raise
    except StorageError as error:
        if _COMMAND in str(error):
            raise
        command = f"{_COMMAND} {plain_text(shlex.quote(str(folder)))}"
        raise StorageError(f"{error} Run `{command}`: it says what is broken, and moves it aside.") from error
