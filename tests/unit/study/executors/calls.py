"""Calls for worker processes; as a program, a driver whose worker does one of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from autoprune.study.executors.processes import ProcessExecutor


class UnpicklableError(Exception):
    def __reduce__(self) -> str:
        raise TypeError("not this one")


def raise_what_cannot_be_pickled() -> None:
    raise UnpicklableError("no pickle of this")


def say(text: str) -> None:
    print(text)  # noqa: T201


def leave_processes_and_die(folder: str) -> None:
    """Die like a worker whose data loader, and whose shell, go on."""
    os.system(f"sleep 600 & echo $! > {folder}/shell")
    process = os.fork()
    if process == 0:
        wait_for(f"{folder}/go")
        os._exit(0)
    (Path(folder) / "fork").write_text(str(process))
    os.kill(os.getpid(), signal.SIGKILL)


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def wait_for(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.01)
    return "went"


def stop_after_writing(path: str) -> None:
    Path(path).touch()
    os.kill(os.getpid(), signal.SIGSTOP)


def write_process_and_wait(folder: str) -> None:
    (Path(folder) / "worker").write_text(str(os.getpid()))
    wait_for(f"{folder}/never")


def stop_after_writing_process(folder: str) -> None:
    (Path(folder) / "worker").write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    from tests.unit.study.executors import calls  # a worker does not find functions of a main script

    with ProcessExecutor(1, Path(sys.argv[1])) as executor:
        executor.submit(getattr(calls, sys.argv[2]), sys.argv[1]).result()
