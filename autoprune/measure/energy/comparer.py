"""EnergyComparer: energy of models against one dense model, under one latency profile."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import nn

from autoprune.measure.energy.counter import CounterError, EnergyCounter
from autoprune.measure.latency.backend import BackendError
from autoprune.measure.latency.host import Host, HostWatch
from autoprune.measure.latency.preparation import Preparation, Ready
from autoprune.measure.latency.ratio import DenseReference, burst_doubts
from autoprune.measure.latency.statistics import burst_mean
from autoprune.measure.latency.timing import Bursts, Meter, Timing, time_pairs
from autoprune.records.energy import Energy


class EnergyComparer:
    """Energy of models against one dense model, read from a counter of the machine while both are called in turn.

    Statistics are those of latency: the ratio of each burst, the mean of all, and the interval in which another
    measurement falls. Millijoules are those of the dense model times the ratio.

    Args:
        preparation: Dense model and profile; may be that of a `LatencyComparer`, so that all is prepared once.
        counter: Counter that can be read here.
        timing: How long to measure.
        host: Clocks and counters of the machine; a test gives its own.
    """

    def __init__(
        self,
        preparation: Preparation,
        counter: EnergyCounter,
        timing: Timing | None = None,
        *,
        host: Host | None = None,
    ) -> None:
        self._preparation, self._counter = preparation, counter
        self._timing, self._host = timing or Timing(), host or Host()
        self._reference = DenseReference()

    def refer_to(self, dense: Energy) -> None:
        """Take the millijoules of the dense model from an earlier measurement of the same study.

        Args:
            dense: Energy of the dense model.
        """
        self._reference.keep(dense.dense_mj, dense.low_mj, dense.high_mj, trusted=dense.trusted)

    def compare(self, model: nn.Module) -> Energy:
        """Measure the energy of a call of a model and of the dense model in turn.

        Args:
            model: Model to measure.

        Returns:
            The energy, with the reasons against it.

        Raises:
            ConfigurationError: The dense model does not run on inputs of the profile.
            UserCodeError: The device of the profile failed, or the counter cannot be read any more.
        """
        with self._preparation.ready(model, "energy") as ready:
            return self._measured(ready)

    def _measured(self, ready: Ready) -> Energy:
        watch, width = HostWatch(self._host, counts_all=True), math.log1p(self._timing.width)
        on_processor, others = ready.runs_by.device != "cuda", self._counter.others()

        def enough(bursts: Bursts) -> bool:
            return 2 * burst_mean([burst.log_ratio for burst in bursts.metered])[1] <= width

        def is_hopeless(_: Bursts, left: float) -> bool:
            return on_processor and not self._timing.patient and watch.is_hopeless(None, left)

        meter = Meter(read=self._read, seconds=self._counter.seconds)
        bursts = time_pairs(ready.pairs, self._timing, watch, enough, is_hopeless, meter)
        told, between = bursts.metered, ready.runs_by.between_processes
        others = others or self._counter.others()
        doubts = (*ready.doubts, *([others] if others else []), *burst_doubts(bursts, told, "mJ"))
        if on_processor:
            doubts += tuple(watch.doubts(None))
        found = self._reference.against(told, between, trusted=not doubts)
        energy = Energy.of(found, counter=self._counter.name, backend=ready.backend, bursts=len(told))
        return replace(energy, fallback=ready.fallback, doubts=doubts)

    def _read(self) -> float:
        try:
            return self._counter.joules()
        except CounterError as error:
            raise BackendError(str(error)) from error
