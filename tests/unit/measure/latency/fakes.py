"""A machine whose clocks the test sets, and a backend that takes time by them: no assertion depends on the machine."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.measure.latency import backends
from autoprune.measure.latency.backend import Backend, BackendError, Loaded, Prepared
from autoprune.measure.latency.comparer import LatencyComparer
from autoprune.measure.latency.host import Counters, Host
from autoprune.measure.latency.timing import Timing
from autoprune.records.profile import LatencyProfile
from autoprune.task.data import Inputs


class Timed(nn.Module):
    """A model that takes `ms` by the clock of the test."""

    def __init__(self, ms: float) -> None:
        super().__init__()
        self.ms = ms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@dataclass
class FakeHost:
    """Clocks that models move, and noise on them.

    Attributes:
        waiting: Seconds that a call waits for a processor for each second that it runs.
        per_load: Standard deviation of the time of a model that is loaded once more.
        per_stretch: Standard deviation of each call.
        factor: Call -> factor of its time, as on a machine whose speed changes.
    """

    seed: int = 0
    waiting: float = 0.0
    per_load: float = 0.0
    per_stretch: float = 0.0
    factor: Callable[[float], float] = lambda now: 1.0
    wall: float = 0.0
    thread: float = 0.0
    slept: list[float] = field(default_factory=list)
    calls: list[Timed] = field(default_factory=list)
    loads: list[Timed] = field(default_factory=list)
    closed: list[Timed] = field(default_factory=list)
    counters: list[Counters] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    @property
    def host(self) -> Host:
        return Host(
            wall=lambda: self.wall,
            thread=lambda: self.thread,
            sleep=self.sleep,
            counters=lambda: self.counters.pop(0) if self.counters else Counters(),
            processors=2,
        )

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.wall += seconds

    def prepare(self, model: nn.Module, inputs: Inputs, profile: LatencyProfile) -> Prepared:
        assert isinstance(model, Timed)
        assert not model.training
        scale = inputs.numel() if isinstance(inputs, torch.Tensor) else 1

        def load() -> Loaded:
            self.loads.append(model)
            place = 1 + self.random.gauss(0, self.per_load)

            def run() -> None:
                self.calls.append(model)
                noise = 1 + abs(self.random.gauss(0, self.per_stretch))
                seconds = model.ms / 1000 * scale * place * noise * self.factor(self.wall)
                self.thread += seconds
                self.wall += seconds * (1 + self.waiting)

            return Loaded(run=run)

        return Prepared(load=load, outputs=lambda: [torch.zeros(1)], close=lambda: self.closed.append(model))

    def comparer(self, dense: nn.Module, timing: Timing | None = None, **given: object) -> LatencyComparer:
        profile = given.pop("profile", LatencyProfile(name="test", backend="fake"))
        inputs = given.pop("inputs", torch.zeros(1))
        return LatencyComparer(dense, inputs, profile, timing, host=self.host, **given)  # type: ignore[arg-type]


def refuse(model: nn.Module, inputs: Inputs, profile: LatencyProfile) -> Prepared:
    raise BackendError("it has no wheels")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHost:
    """The registry holds the backend "fake". The lock of measurements is the test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    made = FakeHost()
    register(monkeypatch, "fake", Backend(prepare=made.prepare, title="a fake", clock="processor", exact=True))
    return made


def register(monkeypatch: pytest.MonkeyPatch, name: str, backend: Backend) -> None:
    monkeypatch.setitem(backends.LATENCY_BACKENDS, name, backend)  # type: ignore[misc,arg-type]
