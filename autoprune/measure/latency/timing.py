"""Timing of a model against another one: in turn, in bursts apart in time, until the ratio is known well enough."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

from autoprune.errors import error_message, raise_all
from autoprune.measure.latency.backend import BackendError, Loaded
from autoprune.measure.latency.host import Host, HostWatch, host_lock

#: Shortest time that is measured; faster models are called several times.
_STRETCH_SECONDS = 0.001
#: Fewest bursts before the interval decides whether to stop: of fewer, the spread is not known.
LEAST_BURSTS = 6
#: Fewest bursts where the time limit is reached.
FEWEST_BURSTS = 3
#: Seconds of calls after which a burst of this many pairs ends, and most pairs.
_BURST_SECONDS = 0.06
_PAIRS = 5
_MOST_PAIRS = 25
#: Seconds between bursts.
_PAUSE = 0.1
#: A model is warm when a call takes at most this much less time than the one before.
_STEADY = 0.05
_MOST_WARM_UP = 20
#: Share of the wall time that a thread ran in its best stretch, from which on the work is known to be in that thread.
_IN_THREAD = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long latency is measured.

    Attributes:
        width: Width of the 95 % interval of the ratio at which the measurement ends, as a share of the ratio, > 0.
        seconds: Longest time of a measurement, > 0; three bursts are made in any case.
        bursts: Most bursts, >= 1.
        patient: Whether a measurement goes on where it is doubtful whatever comes, for those who use it all the same.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    width: float = 0.02
    seconds: float = 5.0
    bursts: int = 30
    patient: bool = False

    def __post_init__(self) -> None:
        wrong = [error_message(n, "be > 0", getattr(self, n)) for n in ("width", "seconds") if not getattr(self, n) > 0]
        raise_all("timing", wrong + [error_message("bursts", "be >= 1", self.bursts)] * (self.bursts < 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """A counter that is read before and after stretches of calls, beside the clocks.

    Attributes:
        read: Returns its number so far.
        seconds: Shortest stretch over which it tells.
    """

    read: Callable[[], float]
    seconds: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """One call, or the mean of several, in seconds of each clock and in units of the meter."""

    wall: float
    thread: float
    metered: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A model and the reference on inputs of one size.

    Attributes:
        weight: Share of the calls that have this size; all sum to 1.
        model: Loads the model.
        reference: Loads the reference.
    """

    weight: float
    model: Callable[[], Loaded]
    reference: Callable[[], Loaded]


@dataclass(frozen=True, slots=True)
class Burst:
    """Milliseconds of a call in one burst by one clock, or thousandths by a meter: (model, reference) of each size.

    Attributes:
        times: Medians of each size.
        weights: Weight of each size.
    """

    times: tuple[tuple[float, float], ...]
    weights: tuple[float, ...]

    @property
    def log_ratio(self) -> float:
        """Logarithm of the ratio of the weighted mean times."""
        return math.log(self.mean(0) / self.mean(1))

    def mean(self, which: int) -> float:
        """Compute the weighted mean time.

        Args:
            which: 0 for the model, 1 for the reference.

        Returns:
            Milliseconds.
        """
        return sum(weight * pair[which] for weight, pair in zip(self.weights, self.times, strict=True))


@dataclass(slots=True)
class Bursts:
    """All bursts of a measurement.

    Attributes:
        wall: By the wall clock, or the device's own.
        thread: By the processor time of the thread; empty where the device has its own clock.
        metered: By the meter, in thousandths of its unit; empty without one.
        pairs: Number of pairs of stretches.
        locked: Whether no other process of the user measured at the same time.
        ran: Processor seconds of the thread during the stretches.
        passed: Wall seconds of the stretches.
        best: Largest share of a stretch in which the thread ran.
    """

    wall: list[Burst] = field(default_factory=list)
    thread: list[Burst] = field(default_factory=list)
    metered: list[Burst] = field(default_factory=list)
    pairs: int = 0
    locked: bool = True
    ran: float = 0.0
    passed: float = 0.0
    best: float = 0.0

    @property
    def is_in_thread(self) -> bool:
        """Whether the calling thread does the work, so that its processor time tells."""
        return len(self.thread) == len(self.wall) and self.best >= _IN_THREAD

    @property
    def waiting(self) -> float | None:
        """Share of the time in which the calling thread did not run; None where the work is not in that thread."""
        return 1 - self.ran / self.passed if self.is_in_thread else None

    def add(self, stretches: Sequence[tuple[Sequence[Stretch], Sequence[Stretch]]], weights: tuple[float, ...]) -> None:
        """Add a burst.

        Args:
            stretches: Of each size, those of the model and of the reference, in pairs.
            weights: Weight of each size.
        """
        self.wall.append(Burst(tuple(_medians(*of_size, lambda one: one.wall) for of_size in stretches), weights))
        every = [one for of_size in stretches for times in of_size for one in times]
        if all(one.metered > 0 for one in every):
            self.metered.append(
                Burst(tuple(_medians(*of_size, lambda one: one.metered) for of_size in stretches), weights)
            )
        self.pairs += len(every) // 2
        if all(one.thread > 0 for one in every):
            self.thread.append(
                Burst(tuple(_medians(*of_size, lambda one: one.thread) for of_size in stretches), weights)
            )
            self.ran += sum(one.thread for one in every)
            self.passed += sum(one.wall for one in every)
            self.best = max(self.best, *(one.thread / one.wall for one in every))


def _medians(
    model: Sequence[Stretch], reference: Sequence[Stretch], clock: Callable[[Stretch], float]
) -> tuple[float, float]:
    """Milliseconds of (model, reference): the reference's median, and that times the median ratio of the pairs."""
    base = 1000.0 * median([clock(one) for one in reference])
    return base * median([clock(a) / clock(b) for a, b in zip(model, reference, strict=True)]), base


def time_pairs(
    pairs: Sequence[Pair],
    timing: Timing,
    watch: HostWatch,
    enough: Callable[[Bursts], bool],
    is_hopeless: Callable[[Bursts, float], bool],
    meter: Meter | None = None,
) -> Bursts:
    """Time a model against the reference in bursts.

    Both are loaded into memory anew for each burst, as long as that takes no longer than the calls: how quick a model
    is depends on where it lies, and another process puts it elsewhere.

    Args:
        pairs: Model and reference for each size of the inputs.
        timing: When to stop.
        watch: Watches the machine during the bursts, and has the host.
        enough: Whether the bursts so far suffice.
        is_hopeless: Whether no further bursts, of so many seconds at most, can make them trusted.
        meter: Read around stretches, which are as long as it needs, one pair of them in a burst; None without.

    Returns:
        The bursts.

    Raises:
        BackendError: The device failed, or the meter stood still.
    """
    bursts, host, loading, calling = Bursts(), watch.host, 0.0, 0.0
    loaded: list[_Stretches] = []
    begin = host.wall()
    while len(bursts.wall) < timing.bursts:
        if bursts.wall:
            host.sleep(_PAUSE)
        before = host.wall()
        if not loaded or loading <= calling:
            loaded = [_Stretches(pair, host, meter) for pair in pairs]
            loading += host.wall() - before
        with host_lock() as held, _collected(), watch.burst():
            start = host.wall()
            bursts.locked = bursts.locked and held
            share = timing.seconds / (2 * LEAST_BURSTS * len(pairs))
            bursts.add([one.burst(share, len(bursts.wall)) for one in loaded], tuple(pair.weight for pair in pairs))
            calling += host.wall() - start
        if enough(bursts) and len(bursts.wall) >= LEAST_BURSTS:
            break
        passed, made = host.wall() - begin, len(bursts.wall)
        left = watch.seconds * max(min(timing.seconds / passed, timing.bursts / made) - 1.0, 0.0)
        if made >= FEWEST_BURSTS and (passed > timing.seconds or is_hopeless(bursts, left)):
            break
    return bursts


@contextmanager
def _collected() -> Iterator[None]:
    """Keep the garbage collector from running inside."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Stretches:
    """A loaded model and reference, warmed up."""

    def __init__(self, pair: Pair, host: Host, meter: Meter | None) -> None:
        self._host, self._meter = host, meter
        self._loaded = (pair.model(), pair.reference())
        self._calls = tuple(self._warm_up(one) for one in self._loaded)

    def burst(self, share: float, first: int) -> tuple[list[Stretch], list[Stretch]]:
        """Time both in turn; either goes first, in the pairs of a burst as in the bursts."""
        times: tuple[list[Stretch], list[Stretch]] = ([], [])
        begin = self._host.wall()
        for number in range(_MOST_PAIRS if self._meter is None else 1):
            for which in (0, 1) if (first + number) % 2 == 0 else (1, 0):
                times[which].append(self._stretch(self._loaded[which], self._calls[which]))
            passed = self._host.wall() - begin
            if passed >= share or (passed >= _BURST_SECONDS and number + 1 >= _PAIRS):
                break
        return times

    def _warm_up(self, loaded: Loaded) -> int:
        """Call until the time is steady, and return how many calls make a stretch."""
        if loaded.device_ms is not None and self._meter is None:
            return 1
        first = self._seconds(loaded, 1)[0]
        for _ in range(_MOST_WARM_UP):
            second = self._seconds(loaded, 1)[0]
            if second >= first * (1 - _STEADY):
                break
            first = second
        shortest = _STRETCH_SECONDS if self._meter is None else self._meter.seconds
        return max(1, math.ceil(shortest / max(min(first, second), 1e-9)))

    def _stretch(self, loaded: Loaded, calls: int) -> Stretch:
        if self._meter is not None:
            return self._metered(self._meter, loaded, calls)
        if loaded.device_ms is not None:
            return Stretch(wall=median(loaded.device_ms()) / 1000.0, thread=0.0)
        return Stretch(*self._seconds(loaded, calls))

    def _metered(self, meter: Meter, loaded: Loaded, calls: int) -> Stretch:
        before = meter.read()
        wall, thread = self._seconds(loaded, calls)
        passed = meter.read() - before
        if passed <= 0:
            raise BackendError(f"the counter stood still during {calls} calls of {wall * calls:.2g} s in all")
        return Stretch(wall=wall, thread=thread, metered=passed / calls)

    def _seconds(self, loaded: Loaded, calls: int) -> tuple[float, float]:
        """Call a model; return wall seconds and processor seconds of the thread for each call."""
        thread, wall = self._host.thread(), self._host.wall()
        for _ in range(calls):
            loaded.run()
        wall, thread = self._host.wall() - wall, self._host.thread() - thread
        return wall / calls, thread / calls
