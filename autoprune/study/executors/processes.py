"""ProcessExecutor: worker processes of this machine, each of which may die without harm to the others."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

from autoprune.errors import AutopruneError
from autoprune.study.executors.nursery import Nursery, WorkerProcess
from autoprune.study.executors.worker import read_message, write_message

P = ParamSpec("P")
R = TypeVar("R")
#: Log of the process that starts workers.
NURSERY_LOG = "workers.log"
#: A call that waits for a worker: function, arguments, and where its result goes.
_Call = tuple[Callable[..., object], tuple[object, ...], "Future[object]"]


class WorkerDiedError(AutopruneError):
    """A worker process ended in the middle of a call."""


class ProcessExecutor(Executor):
    """Runs calls in worker processes. A worker that dies fails its own call, and is replaced for the next one.

    In the pools of the standard library and of loky, the death of one worker fails the calls of all. Workers end with
    this process, whatever ends it. Functions and arguments are pickled; functions of the main script are not found in
    a worker.

    Args:
        count: Number of workers.
        logs: Folder of the logs `worker-N.log`, in which lies what workers print.
        environments: Further environment variables, taken in turn by the workers.
        imports: Name of a module that is imported once for all workers; "" for none.

    Raises:
        ConfigurationError: The system cannot fork.

    Example:
        >>> import tempfile
        >>> with ProcessExecutor(1, Path(tempfile.mkdtemp())) as executor:
        ...     executor.submit(len, "four").result()
        4
    """

    def __init__(
        self, count: int, logs: Path, environments: Sequence[Mapping[str, str]] = (), imports: str = ""
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._nursery = Nursery(logs / NURSERY_LOG, imports)
        self._nursery.begin()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closed = False
        given = list(environments) or [{}]
        self._workers = [
            _Worker(self._nursery, logs / f"worker-{number + 1}.log", given[number % len(given)])
            for number in range(count)
        ]
        self._threads = [
            threading.Thread(target=self._serve, args=(worker,), daemon=True, name=f"worker-{number + 1}")
            for number, worker in enumerate(self._workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run a function in a worker.

        Args:
            fn: Function of an importable module.
            *args: Its arguments.
            **kwargs: None: functions are called with positional arguments.

        Returns:
            The future. Its exception is WorkerDiedError where the worker died.

        Raises:
            RuntimeError: The executor has been shut down.
            TypeError: There are keyword arguments.
        """
        if kwargs:
            raise TypeError("functions are called with positional arguments alone")
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[R] = Future()
        self._calls.put((fn, args, cast("Future[object]", future)))
        return future

    def end(self, future: Future[object]) -> None:
        """End the worker that runs a call, at once; cancel a call that has not begun.

        Args:
            future: Future that `submit` returned.
        """
        if not future.cancel():
            for worker in self._workers:
                worker.end(future)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers: after their calls, or at once.

        Args:
            wait: Wait for calls that run; without, workers are ended at once.
            cancel_futures: Cancel the calls that have not begun.
        """
        self._closed = True
        if cancel_futures or not wait:
            with contextlib.suppress(queue.Empty):
                while True:
                    call = self._calls.get_nowait()
                    if call is not None:
                        call[2].cancel()
        for _ in self._threads:
            self._calls.put(None)
        if not wait:
            self._nursery.abort()
            for worker in self._workers:
                worker.end()
        for thread in self._threads:
            thread.join()
        self._nursery.close()

    def _serve(self, worker: _Worker) -> None:
        """Give calls to a worker, one after the other."""
        for function, arguments, future in iter(self._calls.get, None):
            worker.run(function, arguments, future)
        worker.close()


class _Worker:
    """The place of one worker: its process, which is replaced where it died, and its log.

    One thread calls `run` and `close`; any thread may call `end`.
    """

    def __init__(self, nursery: Nursery, log: Path, environment: Mapping[str, str]) -> None:
        self._nursery, self._log, self._environment = nursery, log, environment
        self._process: WorkerProcess | None = None
        self._future: Future[object] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def run(self, function: Callable[..., object], arguments: tuple[object, ...], future: Future[object]) -> None:
        """Run a call in the process, and set its future."""
        with self._lock:  # `end` finds a running call with its process, or none
            if self._closed or not future.set_running_or_notify_cancel():
                future.cancel()
                return
            try:
                process = self._process = self._process or self._nursery.start(self._log, self._environment)
            except OSError as error:
                future.set_exception(
                    WorkerDiedError(
                        f"no worker process could be started ({error}); see {self._log.parent / NURSERY_LOG}"
                    )
                )
                return
            self._future = future
        try:
            write_message(process.calls, (function, arguments))
            succeeded, found = cast("tuple[bool, object]", read_message(process.answers))
        except (EOFError, OSError):
            self._bury(process)
        except BaseException as error:  # the call cannot be pickled, or its answer not read here
            self._settle().set_exception(error)
        else:
            settled = self._settle()
            if succeeded:
                settled.set_result(found)
            else:
                settled.set_exception(cast("BaseException", found))

    def end(self, future: Future[object] | None = None) -> None:
        """End the process at once, if it runs this call; for None whatever it runs, and run nothing more."""
        with self._lock:
            self._closed = self._closed or future is None
            if self._process is not None and future in (None, self._future):
                self._process.kill()

    def close(self) -> None:
        """End the process after its last call."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.close()

    def _settle(self) -> Future[object]:
        """Return the future of the call that has ended."""
        with self._lock:
            future, self._future = self._future, None
        assert future is not None
        return future

    def _bury(self, process: WorkerProcess) -> None:
        """Fail the call of a process that has ended; another one takes its place."""
        with self._lock:
            process.kill()  # its channel may have broken before it is gone
            code, self._process = process.close(), None
        died = f"the worker process {process.number} {_ended(code)}"
        with contextlib.suppress(OSError), self._log.open("a") as log:  # which is all that tells of it, and often empty
            log.write(f"autoprune: {died}\n")
        self._settle().set_exception(WorkerDiedError(f"{died}; its log is {self._log}"))


def _ended(code: int | None) -> str:
    """Say how a process ended."""
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    why = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{why}"


def one_gpu_each() -> Iterator[dict[str, str]]:
    """Share the GPUs of this machine out: one for each worker, in turn.

    Yields:
        Environment of a worker; nothing where there is no GPU.
    """
    import torch

    for number in range(torch.cuda.device_count()):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        yield {"CUDA_VISIBLE_DEVICES": visible[number] if len(visible) > number and visible[0] else str(number)}
