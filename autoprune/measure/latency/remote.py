"""The backend that hands an ONNX file to a command or function, which times it elsewhere, such as on a phone."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.errors import describe_exception, plain_text
from autoprune.measure.latency.backend import BackendError, Loaded, Prepared
from autoprune.measure.latency.exported import arrays_of
from autoprune.measure.latency.onnx_file import export_onnx, onnx_outputs
from autoprune.records.profile import LatencyProfile
from autoprune.task.data import Inputs

#: Longest time of a command.
_SECONDS = 600.0
#: Milliseconds that a call can take: a picosecond to a day.
_SHORTEST, _LONGEST = 1e-9, 86_400_000.0


def prepare_remote(model: nn.Module, inputs: Inputs, profile: LatencyProfile) -> Prepared:
    """Export a model, and prepare runs of the profile's command or function on the file.

    In a command, `{model}` stands for the path of the ONNX file, or the path comes last; `{inputs}` stands for the path
    of an .npz file of the inputs. It prints a JSON list of milliseconds of single calls as its last line. A function,
    named `module:function`, is called with the path and returns such numbers.

    Args:
        model: Model in eval mode.
        inputs: Inputs of a call.
        profile: Its command.

    Returns:
        The prepared model. Its outputs are those of the file on this machine.

    Raises:
        BackendError: The model cannot be exported, or the command or function gives no times.
    """
    folder = Path(tempfile.mkdtemp(prefix="autoprune-onnx-"))

    def close() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    try:
        file = export_onnx(model, inputs, folder / "model.onnx")[0]
        arrays = arrays_of(inputs)
        np.savez(folder / "inputs.npz", *arrays)
        times = device_times(profile.command, file, folder / "inputs.npz")
        times()
    except BaseException:
        close()
        raise

    def outputs() -> list[Tensor]:
        return [torch.from_numpy(array) for array in onnx_outputs(file, arrays)]

    return Prepared(load=lambda: Loaded(run=times, device_ms=times), outputs=outputs, close=close)


def device_times(command: str, file: Path, inputs: Path) -> Callable[[], list[float]]:
    """Make the function that runs a command or function on a file.

    Args:
        command: Command line or `module:function`, see `prepare_remote`.
        file: ONNX file.
        inputs: File of the inputs.

    Returns:
        Function that returns milliseconds of single calls; it raises BackendError with the reason where it gets none.
    """
    if re.fullmatch(r"[\w.]+:\w+", command):
        return lambda: _call(command, file)
    words = [word.replace("{model}", str(file)).replace("{inputs}", str(inputs)) for word in shlex.split(command)]
    if "{model}" not in command:
        words.append(str(file))
    return lambda: _run(words)


def _call(name: str, file: Path) -> list[float]:
    module, _, function = name.partition(":")
    try:
        return _checked(getattr(importlib.import_module(module), function)(file), name)
    except BackendError:
        raise
    except (Exception, SystemExit) as error:  # the user's function may raise anything
        raise BackendError(f"{name} failed: {describe_exception(error, 300)}") from error


def _run(words: Sequence[str]) -> list[float]:
    name = plain_text(words[0], 100)
    try:
        done = _finished(words)
    except (OSError, ValueError) as error:
        raise BackendError(f"the command {name} does not start: {describe_exception(error, 200)}") from error
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"the command {name} took more than {_SECONDS:.0f} seconds") from error
    if done.returncode != 0:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it printed no error")
        raise BackendError(f"the command {name} ended with {done.returncode}: {plain_text(last, 300)}")
    last = next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "")
    try:
        return _checked(json.loads(last), f"the command {name}")
    except (ValueError, RecursionError) as error:
        told = repr(plain_text(last, 100))
        raise BackendError(
            f"the last line of the command {name} must be a JSON list of milliseconds, not {told}"
        ) from error


def _finished(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command; where it takes too long, or the run is ended meanwhile, what it has started is ended, too."""
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,  # a command that waits for the keyboard would hang
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=_SECONDS)
        except BaseException:
            _end(process)
            raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and those of its session."""
    process.kill()
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def _checked(times: object, name: str) -> list[float]:
    """Times as numbers, if they are such."""
    right = (
        isinstance(times, Sequence)
        and len(times) > 0
        and all(
            isinstance(one, int | float) and not isinstance(one, bool) and _SHORTEST <= one <= _LONGEST for one in times
        )
    )
    if not right:
        raise BackendError(
            f"{name} must give one or more milliseconds > 0 and below a day, not {plain_text(repr(times), 100)}"
        )
    return [float(one) for one in times]  # type: ignore[attr-defined]  # a sequence by then
