"""LatencyComparer: models against one dense model, under one latency profile."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import nn

from autoprune.errors import RESUME_ADVICE, ConfigurationError, UserCodeError, error_message
from autoprune.measure.latency.backend import BackendError, Prepared
from autoprune.measure.latency.backends import FALLBACK, LATENCY_BACKENDS, backend_of
from autoprune.measure.latency.eager import eager_call
from autoprune.measure.latency.host import Host, HostWatch
from autoprune.measure.latency.inputs import check_inputs, profile_inputs, tensors_of
from autoprune.measure.latency.onnx_file import check_outputs
from autoprune.measure.latency.statistics import another, burst_mean
from autoprune.measure.latency.timing import FEWEST_BURSTS, Burst, Bursts, Pair, Timing, time_pairs
from autoprune.records.measurement import Latency
from autoprune.records.profile import LatencyProfile
from autoprune.task.clone import clone_with
from autoprune.task.data import Inputs, eval_mode

#: Half the widest interval of a logarithm: one burst alone has none.
_WIDEST = math.log(10.0)
#: Change of the dense model's time during a measurement that is doubtful.
_DRIFT = 0.15


@dataclass(frozen=True, slots=True)
class _Reference:
    """Time of a call of the dense model, in milliseconds, with half the width of the logarithm's interval."""

    ms: float
    half_width: float
    trusted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Circumstances of a measurement."""

    backend: str
    clock: str
    fallback: str
    doubts: Sequence[str]


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
        self.profile, self._timing, self._host = profile, timing or Timing(), host or Host()
        self._backend = backend_of(profile)
        self._dense = _converted(dense, profile)
        self._inputs = profile_inputs(inputs, profile)
        self._prepared: dict[str, list[Prepared]] = {}
        weakref.finalize(self, _close, self._prepared)
        self._refused = ""
        self._reference: _Reference | None = None

    def refer_to(self, dense: Latency) -> None:
        """Take the milliseconds of the dense model from an earlier measurement of the same study.

        Args:
            dense: Latency of the dense model.
        """
        half_width = math.log(dense.high_ms / dense.low_ms) / 2
        self._reference = _Reference(ms=dense.dense_ms, half_width=half_width, trusted=dense.trusted)

    def check(self) -> None:
        """Prepare the dense model and call it once. Later comparisons use that preparation.

        Raises:
            ConfigurationError: The dense model does not run under the profile.
        """
        with eval_mode(self._dense), _torch_threads(self.profile.threads):
            self._prepare_dense()

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
        model = _converted(model, self.profile)
        with eval_mode(model), eval_mode(self._dense), _torch_threads(self.profile.threads):
            backend = self._prepare_dense()
            fallback, doubts = self._refused, []
            try:
                prepared = self._prepare(model, backend)
            except BackendError as error:
                if not LATENCY_BACKENDS[backend].falls_back:
                    raise self._failure(error) from error
                fallback = f"{backend} does not run this model: {error}."
                doubts = [f"The ratio is that of {FALLBACK}, since {backend} runs the dense model but not this one."]
                backend = FALLBACK
                prepared = self._prepare(model, backend)
            try:
                return self._timed(prepared, backend, fallback, doubts)
            except BackendError as error:
                raise self._failure(error) from error
            finally:
                for one in prepared:
                    one.close()

    def close(self) -> None:
        """Delete what the backend has made for the dense model; so does the end of the comparer."""
        _close(self._prepared)

    def _failure(self, error: BackendError) -> UserCodeError:
        return UserCodeError(f"The latency profile {self.profile.name} could not be measured: {error}. {RESUME_ADVICE}")

    def _prepare_dense(self) -> str:
        """Prepare the dense model once; return the backend that runs it."""
        if not self._prepared:
            check_inputs(self._dense, self._inputs, self.profile)
            try:
                self._dense_by(self._backend)
            except BackendError as error:
                if not LATENCY_BACKENDS[self._backend].falls_back:
                    wants = "be one under which the dense model runs"
                    raise ConfigurationError(
                        error_message(f"the latency profile {self.profile.name}", wants, error)
                    ) from error
                self._refused = f"{self._backend} does not run the dense model: {error}."
                self._backend = FALLBACK
                self._dense_by(FALLBACK)
        return self._backend

    def _dense_by(self, backend: str) -> list[Prepared]:
        if backend not in self._prepared:
            self._prepared[backend] = self._prepare(self._dense, backend)
        return self._prepared[backend]

    def _prepare(self, model: nn.Module, backend: str) -> list[Prepared]:
        """Prepare a model for inputs of each size, and compare its outputs with PyTorch's."""
        chosen, prepared = LATENCY_BACKENDS[backend], []
        try:
            for one in self._inputs:
                prepared.append(chosen.prepare(model, one.inputs, self.profile))
                if not (chosen.exact or prepared[-1].compared):
                    check_outputs(tensors_of(eager_call(model, one.inputs)()), prepared[-1].outputs())
        except BaseException:
            for done in prepared:
                done.close()
            raise
        return prepared

    def _timed(self, prepared: Sequence[Prepared], backend: str, fallback: str, doubts: list[str]) -> Latency:
        dense = self._dense_by(backend)
        pairs = [
            Pair(weight=one.weight, model=own.load, reference=other.load)
            for one, own, other in zip(self._inputs, prepared, dense, strict=True)
        ]
        reads_thread = LATENCY_BACKENDS[backend].clock == "processor" and self.profile.threads == 1
        watch, width = HostWatch(self._host), math.log1p(self._timing.width)

        def enough(bursts: Bursts) -> bool:
            told = bursts.thread if reads_thread and bursts.is_in_thread else bursts.wall
            return 2 * burst_mean([burst.log_ratio for burst in told])[1] <= width

        def is_hopeless(bursts: Bursts, left: float) -> bool:
            watched = LATENCY_BACKENDS[backend].clock != "device" and not self._timing.patient
            return watched and watch.is_hopeless(bursts.waiting if reads_thread else None, left)

        bursts = time_pairs(pairs, self._timing, watch, enough, is_hopeless)
        clock = LATENCY_BACKENDS[backend].clock
        if clock == "processor" and not (reads_thread and bursts.is_in_thread):
            clock = "wall"
        if clock != "device":
            doubts += watch.doubts(bursts.waiting if clock == "processor" else None)
        return self._latency(bursts, _Found(backend=backend, clock=clock, fallback=fallback, doubts=doubts))

    def _latency(self, bursts: Bursts, found: _Found) -> Latency:
        told = bursts.thread if found.clock == "processor" else bursts.wall
        between = LATENCY_BACKENDS[found.backend].between_processes
        mean, half = _log_ratio(told, between)
        own = _own_reference(told, between)
        doubts = (*found.doubts, *_doubts(bursts, found.clock, between))
        if self._reference is None or (not self._reference.trusted and not doubts):
            self._reference = replace(own, trusted=not doubts)
        dense, ratio = self._reference.ms, math.exp(mean)
        margin, in_all = math.exp(half), math.exp(math.hypot(half, self._reference.half_width))
        sizes = [one.size for one in self._inputs if one.size is not None]
        return Latency(
            latency_ms=dense * ratio,
            low_ms=dense * ratio / in_all,
            high_ms=dense * ratio * in_all,
            dense_ms=dense,
            ratio=ratio,
            ratio_low=ratio / margin,
            ratio_high=ratio * margin,
            backend=found.backend,
            rounds=bursts.pairs,
            bursts=len(told),
            clock=found.clock,
            wall_ratio=math.exp(_log_ratio(bursts.wall, between)[0]) if found.clock == "processor" else None,
            fallback=found.fallback,
            doubts=doubts,
            sizes_ms=tuple((size, _size_ms(told, place)) for place, size in enumerate(sizes)),
        )


def _close(every: dict[str, list[Prepared]]) -> None:
    for prepared in every.values():
        for one in prepared:
            one.close()
    every.clear()


def _log_ratio(bursts: Sequence[Burst], between: float) -> tuple[float, float]:
    """Logarithm of the ratio, and half the interval in which another measurement of the same kind falls."""
    mean, half = burst_mean([burst.log_ratio for burst in bursts])
    return mean, min(another(half, between), _WIDEST)


def _own_reference(bursts: Sequence[Burst], between: float) -> _Reference:
    """Take the time of the dense model from the bursts themselves."""
    mean, half = burst_mean([math.log(burst.mean(1)) for burst in bursts])
    return _Reference(ms=math.exp(mean), half_width=min(another(half, between), _WIDEST), trusted=False)


def _size_ms(bursts: Sequence[Burst], place: int) -> float:
    return median([burst.times[place][0] for burst in bursts])


def _doubts(bursts: Bursts, clock: str, between: float) -> Iterator[str]:
    """List what the bursts themselves say against a measurement."""
    if not bursts.locked:
        yield "Another measurement ran at the same time."
    if len(bursts.wall) < FEWEST_BURSTS:
        yield f"There were {len(bursts.wall)} bursts of calls; fewer than {FEWEST_BURSTS} show no spread."
    told = bursts.thread if clock == "processor" else bursts.wall
    third = max(len(told) // 3, 1)
    first, last = (median([burst.mean(1) for burst in part]) for part in (told[:third], told[-third:]))
    if len(told) >= FEWEST_BURSTS and abs(last / first - 1) > _DRIFT:
        yield f"The dense model took {first:.3g} ms at first and {last:.3g} ms at last: the machine's speed changed."
    if clock == "processor":
        (wall, wall_half), (own, half) = (_log_ratio(one, between) for one in (bursts.wall, told))
        if abs(wall - own) > math.hypot(wall_half, half):
            by_wall = f"{math.exp(wall):.3g} by the wall clock"
            yield f"The ratio is {math.exp(own):.3g} by processor time, which holds, and {by_wall}."


def _converted(model: nn.Module, profile: LatencyProfile) -> nn.Module:
    """Copy a model in the profile's number type, where it has another one."""
    if profile.dtype is None:
        return model
    kind: torch.dtype = getattr(torch, profile.dtype)
    if all(part.dtype == kind for part in (*model.parameters(), *model.buffers()) if part.is_floating_point()):
        return model
    return clone_with(model).to(kind)


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """Compute with a number of torch threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
