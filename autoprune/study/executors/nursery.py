"""Nursery: a process that has imported what workers need and forks them, so that a worker begins in milliseconds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, cast

from autoprune.errors import ConfigurationError, error_message
from autoprune.study.executors.worker import LONGEST_REQUEST

#: Seconds that a nursery may take to import and to fork, on a busy machine and a slow file system; it is replaced then.
SLOWEST_START = 300.0
#: Seconds that it may take to tell how a worker ended that was killed.
SLOWEST_END = 10.0


class WorkerProcess:
    """A worker that a nursery has forked.

    Args:
        number: Its process number.
        channel: Socket to it.
        nursery: Nursery that forked it.
        parent: Process number of the nursery then.

    Attributes:
        number: Its process number.
        calls: Stream to write calls to.
        answers: Stream to read answers from.
    """

    def __init__(self, number: int, channel: socket.socket, nursery: Nursery, parent: int) -> None:
        self.number, self._channel, self._nursery, self._parent = number, channel, nursery, parent
        self.calls = cast("BinaryIO", channel.makefile("wb"))
        self.answers = cast("BinaryIO", channel.makefile("rb"))

    def kill(self) -> None:
        """End it at once. Its number is not given to another process before `close`."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.number, signal.SIGKILL)
        with contextlib.suppress(OSError):  # processes that it has started may hold the other end open
            self._channel.shutdown(socket.SHUT_RDWR)

    def close(self) -> int | None:
        """End it, and wait until it has ended.

        Returns:
            Its exit code, negative for the number of a signal; None where it is not known.
        """
        for stream in (self.calls, self.answers, self._channel):
            with contextlib.suppress(OSError):  # of a process that is gone
                stream.close()
        return self._nursery.ended(self.number, self._parent)


class Nursery:
    """Starts workers. It is started with the first one, and again where it has died.

    Args:
        log: File to which it writes.
        imports: Module that it imports; "" for none.

    Raises:
        ConfigurationError: The system cannot fork.
    """

    def __init__(self, log: Path, imports: str) -> None:
        if not hasattr(os, "fork") or not hasattr(socket, "send_fds"):
            remedy = "Run without --workers, or with --ray."
            raise ConfigurationError(error_message("worker processes", "run on Linux or macOS", sys.platform, remedy))
        self._log, self._imports = log, imports
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock, self._aborted = threading.Lock(), False

    def begin(self) -> None:
        """Start it, so that it imports while there is nothing to do yet."""
        with self._lock:
            self._open()

    def start(self, log: Path, environment: Mapping[str, str]) -> WorkerProcess:
        """Fork a worker.

        Args:
            log: File to which it writes.
            environment: Environment variables beside those of this process.

        Returns:
            The worker.

        Raises:
            OSError: It cannot be forked.
        """
        own, others = socket.socketpair()
        request = json.dumps({"environment": dict(environment)}).encode()
        with contextlib.ExitStack() as failed, others, log.open("ab") as file, self._lock:
            failed.callback(own.close)
            try:
                answer = self._ask(request, [others.fileno(), file.fileno()], SLOWEST_START)
            except OSError:  # it has died since the last request, or was stopped
                self._close()
                answer = self._ask(request, [others.fileno(), file.fileno()], SLOWEST_START)
            assert self._process is not None
            failed.pop_all()
            return WorkerProcess(int(answer), own, self, self._process.pid)

    def ended(self, number: int, parent: int) -> int | None:
        """Wait until a worker has ended.

        Args:
            number: Process number of the worker.
            parent: Process number of the nursery that forked it.

        Returns:
            Its exit code; None where that nursery is gone, which alone could tell, or does not answer.
        """
        with self._lock:
            if self._process is None or self._process.pid != parent:
                return None
            try:
                return int(self._ask(json.dumps({"ended": number}).encode(), [], SLOWEST_END))
            except OSError:
                self._close()
                return None

    def abort(self) -> None:
        """End it at once, also while another thread waits for its answer; no worker is started any more."""
        self._aborted = True
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End it. Workers end when their channels are closed."""
        with self._lock:
            self._close()

    def _ask(self, request: bytes, descriptors: list[int], patience: float) -> bytes:
        """Send a request; OSError where there is no answer in time."""
        control = self._open()
        control.settimeout(patience)
        socket.send_fds(control, [request], descriptors)
        answer = control.recv(LONGEST_REQUEST)
        if not answer:
            raise ConnectionError("the process that starts workers has ended")
        return answer

    def _open(self) -> socket.socket:
        if self._aborted:
            raise ConnectionError("no workers are started any more")
        if self._control is None:
            self._control, others = socket.socketpair()
            with others, self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "autoprune.study.executors.worker", str(others.fileno()), *self._modules],
                    pass_fds=[others.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(one).absolute()) for one in sys.path)},
                )
        return self._control

    @property
    def _modules(self) -> list[str]:
        return [self._imports] if self._imports else []

    def _close(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._control = self._process = None
