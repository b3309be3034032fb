"""LatencyComparer: models against one dense model, under one latency profile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

from torch import nn

from autoprune.measure.latency.host import Host, HostWatch
from autoprune.measure.latency.preparation import Preparation, Ready
from autoprune.measure.latency.ratio import DenseReference, burst_doubts, log_ratio
from autoprune.measure.latency.statistics import burst_mean
from autoprune.measure.latency.timing import Burst, Bursts, Timing, time_pairs
from autoprune.records.measurement import Latency
from autoprune.records.profile import LatencyProfile
from autoprune.task.data import Inputs


class LatencyComparer:
    """Models against one dense model under one profile. The backend prepares the dense model once.

    Milliseconds of a model are those of the dense model times the ratio of the two, so that all models of a study are
    compared with the same number. It is the one of the first comparison that can be trusted.

    Args:
        dense: Model to compare with.
        inputs: Example inputs, from which those of the profile are made.
        profile: Runtime, threads and inputs.
        timing: How long to measure.
        host: Clocks and counters; a test gives its own.

    Attributes:
        preparation: The dense model and the profile, as the backend has made them ready.

    Raises:
        UnknownNameError: There is no such backend.
        ConfigurationError: The backend cannot run here, or the dense model not on inputs of the profile.
    """

    def __init__(
        self,
        dense: nn.Module,
        inputs: Inputs,
        profile: LatencyProfile,
        timing: Timing | None = None,
        *,
        host: Host | None = None,
    ) -> None:
        self.preparation = Preparation(dense, inputs, profile)
        self.profile, self._timing, self._host = profile, timing or Timing(), host or Host()
        self._reference = DenseReference()

    def refer_to(self, dense: Latency) -> None:
        """Take the milliseconds of the dense model from an earlier measurement of the same study.

        Args:
            dense: Latency of the dense model.
        """
        self._reference.keep(dense.dense_ms, dense.low_ms, dense.high_ms, trusted=dense.trusted)

    def check(self) -> None:
        """Prepare the dense model and call it once. Later comparisons use that preparation.

        Raises:
            ConfigurationError: The dense model does not run under the profile.
        """
        self.preparation.check()

    def compare(self, model: nn.Module) -> Latency:
        """Time a model and the dense model in turn.

        Args:
            model: Model to time.

        Returns:
            The latency, with the reasons against it.

        Raises:
            ConfigurationError: The dense model does not run on inputs of the profile.
            UserCodeError: The device or command of the profile failed.
        """
        with self.preparation.ready(model, "latency") as ready:
            return self._timed(ready)

    def close(self) -> None:
        """Delete what the backend has made for the dense model; so does the end of the comparer."""
        self.preparation.close()

    def _timed(self, ready: Ready) -> Latency:
        clock = ready.runs_by.clock
        reads_thread = clock == "processor" and self.profile.threads == 1
        watch, width = HostWatch(self._host), math.log1p(self._timing.width)

        def enough(bursts: Bursts) -> bool:
            told = bursts.thread if reads_thread and bursts.is_in_thread else bursts.wall
            return 2 * burst_mean([burst.log_ratio for burst in told])[1] <= width

        def is_hopeless(bursts: Bursts, left: float) -> bool:
            watched = clock != "device" and not self._timing.patient
            return watched and watch.is_hopeless(bursts.waiting if reads_thread else None, left)

        bursts = time_pairs(ready.pairs, self._timing, watch, enough, is_hopeless)
        if clock == "processor" and not (reads_thread and bursts.is_in_thread):
            clock = "wall"
        doubts = ready.doubts
        if clock != "device":
            doubts += tuple(watch.doubts(bursts.waiting if clock == "processor" else None))
        return self._latency(bursts, ready, clock, doubts)

    def _latency(self, bursts: Bursts, ready: Ready, clock: str, doubts: tuple[str, ...]) -> Latency:
        told = bursts.thread if clock == "processor" else bursts.wall
        between = ready.runs_by.between_processes
        doubts = (*doubts, *burst_doubts(bursts, told, "ms"), *_clock_doubts(bursts, clock, between))
        found = self._reference.against(told, between, trusted=not doubts)
        return replace(
            Latency.of(found, backend=ready.backend, rounds=bursts.pairs, clock=clock),
            bursts=len(told),
            wall_ratio=math.exp(log_ratio(bursts.wall, between)[0]) if clock == "processor" else None,
            fallback=ready.fallback,
            doubts=doubts,
            sizes_ms=tuple((size, _size_ms(told, place)) for place, size in enumerate(self.preparation.sizes)),
        )


def _size_ms(bursts: Sequence[Burst], place: int) -> float:
    return median([burst.times[place][0] for burst in bursts])


def _clock_doubts(bursts: Bursts, clock: str, between: float) -> Iterator[str]:
    """Tell where processor time and wall clock disagree."""
    if clock != "processor":
        return
    (wall, wall_half), (own, half) = (log_ratio(one, between) for one in (bursts.wall, bursts.thread))
    if abs(wall - own) > math.hypot(wall_half, half):
        by_wall = f"{math.exp(wall):.3g} by the wall clock"
        yield f"The ratio is {math.exp(own):.3g} by processor time, which holds, and {by_wall}."
