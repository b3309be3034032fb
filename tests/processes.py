"""Processes that end in the middle of their work: children of the tests' process, which has imported everything."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable


def start(work: Callable[[], object]) -> int:
    """The process id of a child that does the work, and ends with 0, its exit code, or 1 after any exception."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
        except SystemExit as end:
            os._exit(int(end.code or 0))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def forked(work: Callable[[], object]) -> int:
    """The status of a child that does the work, as `os.waitpid` gives it."""
    return os.waitpid(start(work), 0)[1]


def is_killed(work: Callable[[], object]) -> bool:
    """Whether a child that does the work is killed by SIGKILL."""
    status = forked(work)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
