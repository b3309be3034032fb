"""The other side of ProcessExecutor: a nursery, which has imported what workers need, and the workers that it forks."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pickle
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO, NoReturn

#: Bytes of the length in front of a message.
_LENGTH = 8
#: Longest request to a nursery, in bytes.
LONGEST_REQUEST = 65536

_Calls = queue.SimpleQueue[tuple[Callable[..., object], tuple[object, ...]]]


def write_message(stream: BinaryIO, message: object) -> None:
    """Write a pickled message with its length in front.

    Args:
        stream: Stream to write to.
        message: Any object that can be pickled.

    Raises:
        OSError: The other process has ended.
    """
    data = pickle.dumps(message)
    stream.write(len(data).to_bytes(_LENGTH, "big") + data)
    stream.flush()


def read_message(stream: BinaryIO) -> object:
    """Read a message that `write_message` wrote.

    Args:
        stream: Stream to read from, between two processes of one program.

    Returns:
        The message.

    Raises:
        EOFError: The other process has ended.
    """
    size = int.from_bytes(_read(stream, _LENGTH), "big")
    return pickle.loads(_read(stream, size))


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the other process has ended")
    return data


def main() -> None:
    """Fork workers on request until the process that started this one ends.

    Arguments of the program: the descriptor of the socket on which requests come, and the module to import first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process of the study, which ends its workers
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    workers: set[int] = set()
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, LONGEST_REQUEST, 2)
        if not data:
            _end_all(workers)
        request = json.loads(data)
        if "ended" in request:
            _, status = os.waitpid(request["ended"], 0)
            workers.remove(request["ended"])
            control.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        process = os.fork()
        if process == 0:
            control.close()
            _work(socket.socket(fileno=descriptors[0]), descriptors[1], request["environment"])
        workers.add(process)
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(str(process).encode())


def _end_all(workers: set[int]) -> NoReturn:
    """End workers and this process. Workers end by themselves where they can, which one that was stopped cannot."""
    for worker in workers:  # not waited for yet, so that no other process has the number
        os.kill(worker, signal.SIGKILL)
    os._exit(0)


def _work(channel: socket.socket, log: int, environment: dict[str, str]) -> None:
    """Run calls in a forked process, and never return."""
    os.environ.update(environment)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for standard in (1, 2):
        os.dup2(log, standard)
    if isinstance(sys.stdout, io.TextIOWrapper):  # lines reach the log even where the process is killed
        sys.stdout.reconfigure(line_buffering=True)
    _keep_to_this_process(channel)
    calls: _Calls = queue.SimpleQueue()
    answers = channel.makefile("wb")
    threading.Thread(target=_receive, args=(channel.makefile("rb"), calls), daemon=True).start()
    while True:
        function, arguments = calls.get()
        with contextlib.suppress(BrokenPipeError):  # the other thread ends the process
            write_message(answers, _answer(function, arguments))


def _keep_to_this_process(channel: socket.socket) -> None:
    """Close a channel in processes that this one starts: they would hold it open when this one has died."""
    os.set_inheritable(channel.fileno(), False)
    os.register_at_fork(after_in_child=lambda: os.close(channel.detach()))


def _answer(function: Callable[..., object], arguments: tuple[object, ...]) -> tuple[bool, object]:
    """Call a function; return whether it succeeded, and its result or exception."""
    try:
        found: tuple[bool, object] = True, function(*arguments)
        pickle.dumps(found)
    except BaseException as error:
        try:
            pickle.dumps(error)
        except Exception:
            return False, RuntimeError(f"{type(error).__name__}: {error}")
        return False, error
    return found


def _receive(stream: BinaryIO, calls: _Calls) -> None:
    """Pass calls on; end the whole process, in the middle of a call as well, when the one that sends them has ended."""
    try:
        while True:
            calls.put(read_message(stream))  # type: ignore[arg-type]
    except (EOFError, ConnectionError):
        pass
    except Exception as error:  # such as a module that is not found here
        sys.stderr.write(f"The worker cannot read a call: {error!r}\n")
        sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
