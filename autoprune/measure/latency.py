"""Latency of a model against the dense model, measured in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from autoprune.errors import UnknownNameError
from autoprune.records.measurement import Latency
from autoprune.task.data import Inputs, call, eval_mode

#: Shortest time that is measured; faster models are called several times in a round.
_STRETCH_SECONDS = 0.001
_WARM_UP = 3

#: (model, inputs) -> function without arguments that runs the model once.
PrepareBackend = Callable[[nn.Module, Inputs], Callable[[], None]]


def _torch_eager(model: nn.Module, inputs: Inputs) -> Callable[[], None]:
    """Run plain eager calls in inference mode."""
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))

    def run() -> None:
        with torch.inference_mode():
            call(model, inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


LATENCY_BACKENDS: Mapping[str, PrepareBackend] = {"torch": _torch_eager}


def check_backend(name: str) -> None:
    """Check the name of a latency backend.

    Args:
        name: Name of the backend.

    Raises:
        UnknownNameError: For another name than those of LATENCY_BACKENDS.
    """
    if name not in LATENCY_BACKENDS:
        raise UnknownNameError("the latency backend", name, LATENCY_BACKENDS)


class LatencyReference:
    """A model that others are timed against. The backend prepares it once, when it is first used.

    Args:
        reference: Model to compare with, mostly the dense one.
        inputs: Inputs of a call.
        backend: Name in LATENCY_BACKENDS of the runtime.

    Raises:
        UnknownNameError: For an unknown backend.
    """

    def __init__(self, reference: nn.Module, inputs: Inputs, *, backend: str = "torch") -> None:
        check_backend(backend)
        self._reference, self._inputs, self._backend = reference, inputs, backend
        self._run: Callable[[], None] | None = None

    def compare(self, model: nn.Module, *, rounds: int = 30) -> Latency:
        """Time a model and the reference in turn.

        Args:
            model: Model to time.
            rounds: Number of pairs of measurements, >= 1.

        Returns:
            Medians, with 95 % intervals from order statistics.
        """
        prepare = LATENCY_BACKENDS[self._backend]
        with eval_mode(model), eval_mode(self._reference):
            if self._run is None:
                self._run = prepare(self._reference, self._inputs)
            times = _in_turn([prepare(model, self._inputs), self._run], rounds)
        ratios = [a / b for a, b in zip(*times, strict=True)]
        low, high = median_interval(times[0])
        ratio_low, ratio_high = median_interval(ratios)
        return Latency(
            latency_ms=median(times[0]),
            low_ms=low,
            high_ms=high,
            dense_ms=median(times[1]),
            ratio=median(ratios),
            ratio_low=ratio_low,
            ratio_high=ratio_high,
            backend=self._backend,
            rounds=rounds,
        )


def _in_turn(runs: Sequence[Callable[[], None]], rounds: int) -> tuple[list[float], ...]:
    """Measure seconds of one run of each, round by round; the first one alternates."""
    repeats = [_repeats(run) for run in runs]
    times: tuple[list[float], ...] = tuple([] for _ in runs)
    for number in range(rounds):
        for which in range(len(runs)) if number % 2 == 0 else reversed(range(len(runs))):
            times[which].append(_time(runs[which], repeats[which]))
    return times


def median(values: Sequence[float]) -> float:
    """Compute the median.

    Args:
        values: One or more numbers.

    Returns:
        The middle value, or the mean of the two middle values.
    """
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Compute the 95 % interval of the median without assuming a distribution (binomial order statistics).

    Args:
        values: One or more numbers.

    Returns:
        (low, high).
    """
    ordered = sorted(values)
    count = len(ordered)
    cumulative, rank = 0.0, 0
    while rank < count // 2:
        cumulative += math.comb(count, rank) / 2**count
        if cumulative > 0.025:
            break
        rank += 1
    return ordered[max(rank - 1, 0)], ordered[min(count - rank, count - 1)]


def _repeats(run: Callable[[], None]) -> int:
    for _ in range(_WARM_UP):
        run()
    start = time.perf_counter()
    run()
    return max(1, math.ceil(_STRETCH_SECONDS / max(time.perf_counter() - start, 1e-9)))


def _time(run: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats * 1000.0
