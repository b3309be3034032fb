"""Calls for worker processes; as a program, a driver whose worker waits forever."""

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
    print(text, flush=True)  # noqa: T201


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


if __name__ == "__main__":
    from tests.unit.study.executors import calls  # a worker does not find functions of a main script

    with ProcessExecutor(1, Path(sys.argv[1])) as executor:
        executor.submit(calls.write_process_and_wait, sys.argv[1]).result()
