"""Interface of a latency backend: a model is prepared once, loaded into memory as often as needed, and called."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from autoprune.records.profile import LatencyProfile
from autoprune.task.data import Inputs


class BackendError(Exception):
    """A model that a backend cannot run, or runs with other outputs. The message is the reason, in one line."""


def _nothing() -> None:
    pass


def _available() -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model in the memory of a runtime.

    Attributes:
        run: Runs the model once and returns when it has finished. Called without arguments.
        device_ms: For a backend with a clock of its own (a GPU, another machine): returns milliseconds of single calls,
            when it is warm; None where the clocks of this process count.
    """

    run: Callable[[], object]
    device_ms: Callable[[], Sequence[float]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A model that a backend has made ready, such as an exported file, and checked.

    Attributes:
        load: Loads the model into memory at a new place, and returns a timed call.
        outputs: Runs the model once and returns the tensors of its outputs.
        close: Deletes files and frees memory.
        compared: Whether its outputs were found equal to PyTorch's already.
    """

    load: Callable[[], Loaded]
    outputs: Callable[[], list[Tensor]]
    close: Callable[[], None] = _nothing
    compared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A runtime that latency is measured on.

    Attributes:
        prepare: (model in eval mode, inputs of a call, profile) -> the prepared model. Raises BackendError.
        title: Description for the docs.
        lacks: Returns why the backend cannot run here and what to install, as a sentence; "" where it can.
        clock: "processor" where one thread of the runtime is the calling thread, whose processor time can then be read;
            "device" for a clock of its own, on a GPU or another machine; else "wall".
        device: Where models run: "cpu", "cuda", "model" for the device of the model, or "elsewhere".
        exact: Whether it runs PyTorch's own operators, so that there are no outputs to compare.
        falls_back: Whether eager PyTorch stands in for it where it cannot run the dense model.
        between_processes: Standard deviation of the logarithm of a ratio between processes, which no bursts of one
            process show; `benchmarks/latency_coverage.py` measures it.
    """

    prepare: Callable[[nn.Module, Inputs, LatencyProfile], Prepared]
    title: str
    lacks: Callable[[], str] = _available
    clock: str = "wall"
    device: str = "cpu"
    exact: bool = False
    falls_back: bool = True
    between_processes: float = 0.016


def lacks_packages(extra: str, *packages: str) -> Callable[[], str]:
    """Make the function that says which packages of an extra are missing.

    Args:
        extra: Name of the extra of pip that has them.
        packages: Names of the packages.

    Returns:
        Function that returns the sentence, or "" where all are installed.
    """

    def lacks() -> str:
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if not missing:
            return ""
        return f"{', '.join(missing)} cannot be imported. pip install 'autoprune[{extra}]' installs what it needs."

    return lacks


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and remarks of exporters and compilers from the user: what matters comes as an error.

    Yields:
        Nothing.
    """
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
