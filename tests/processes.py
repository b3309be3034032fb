"""Processes that end in the middle of their work: children of the tests' process, which has imported everything."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


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


def is_running(process: int) -> bool:
    """Whether a process runs; an ended one may wait for its parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children_of(process: int) -> list[int]:
    """The processes that the main thread of a process has started; none of one that has ended."""
    try:
        return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def command_line(process: int) -> bytes:
    """The command line of a process; empty for one that has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
