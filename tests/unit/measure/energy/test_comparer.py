"""Energy against the dense model, by a counter that the calls of models move by known amounts."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.codec import from_plain, to_plain_object
from autoprune.errors import UserCodeError
from autoprune.measure.energy.comparer import EnergyComparer
from autoprune.measure.energy.rapl import RaplCounter
from autoprune.measure.latency.backend import Backend, Prepared
from autoprune.measure.latency.host import Counters
from autoprune.measure.latency.preparation import Preparation
from autoprune.measure.latency.timing import Timing
from autoprune.records.energy import Energy
from autoprune.records.profile import LatencyProfile
from autoprune.task.data import Inputs
from tests.unit.measure.energy.zones import add, write_zones
from tests.unit.measure.latency.fakes import FakeHost, Timed, fake, register

__all__ = ["fake"]

#: Watts that the package takes whatever runs.
IDLE = 10.0


class Powered(Timed):
    """A model that takes `ms` by the clock of the test, and millijoules of its own beside those of the idle package."""

    def __init__(self, ms: float, mj: float) -> None:
        super().__init__(ms)
        self.mj = mj

    @property
    def all_mj(self) -> float:
        return self.mj + IDLE * self.ms


class Machine:
    """A package whose counter moves by what models take, and with noise."""

    def __init__(self, root: Path, fake: FakeHost, noise: float = 0.0, seed: int = 0) -> None:
        self.root, self.fake, self.noise, self.factor = write_zones(root), fake, noise, 1.0
        self.random = random.Random(seed)
        self.stretches: list[float] = []

    def prepare(self, model: nn.Module, inputs: Inputs, profile: LatencyProfile) -> Prepared:
        assert isinstance(model, Powered)
        prepared = self.fake.prepare(model, inputs, profile)

        def load():  # type: ignore[no-untyped-def]
            loaded, shift = prepared.load(), 1 + self.random.gauss(0, self.noise)

            def run() -> None:
                loaded.run()
                add(self.root, 1000 * model.all_mj * shift * self.factor)

            return replace(loaded, run=run)

        return replace(prepared, load=load)

    def comparer(self, dense: Powered, timing: Timing | None = None) -> EnergyComparer:
        ready = Preparation(dense, torch.zeros(1), LatencyProfile(name="test", backend="fake"))
        return EnergyComparer(ready, RaplCounter(self.root, self.fake.host.wall), timing, host=self.fake.host)


@pytest.fixture
def machine(fake: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path / "powercap", fake)
    register(monkeypatch, "fake", Backend(prepare=made.prepare, title="", clock="processor", exact=True))
    return made


DENSE, SMALL = Powered(12.0, 300.0), Powered(3.0, 90.0)


def test_ratio_and_millijoules_are_those_of_the_calls(machine: Machine) -> None:
    found = machine.comparer(DENSE).compare(SMALL)
    assert found.dense_mj == pytest.approx(420.0, rel=1e-4)
    assert found.energy_mj == pytest.approx(120.0, rel=1e-4)
    assert found.ratio == pytest.approx(120 / 420, rel=1e-4)
    assert found.ratio_low < found.ratio < found.ratio_high
    assert found.low_mj < 120.0 < found.high_mj
    assert (found.counter, found.backend, found.bursts, found.doubts) == ("rapl", "fake", 6, ())
    assert found.comparison.trusted


def test_stretches_are_long_enough_for_the_counter_and_in_turn(machine: Machine) -> None:
    machine.comparer(DENSE, Timing(bursts=2)).compare(SMALL)
    runs: list[tuple[Timed, int]] = []
    for call in machine.fake.calls:
        if runs and runs[-1][0] is call:
            runs[-1] = (call, runs[-1][1] + 1)
        else:
            runs.append((call, 1))
    long = [(model, count * model.ms / 1000) for model, count in runs if count > 5]
    assert all(seconds >= RaplCounter.seconds for _, seconds in long)
    assert [model for model, _ in long] == [SMALL, DENSE, DENSE, SMALL], "the second burst begins with the dense model"
    assert len(machine.fake.slept) == 1, "bursts are apart in time"


def test_the_interval_covers_another_measurement(machine: Machine) -> None:
    machine.noise, truth = 0.03, 120 / 420
    found = [machine.comparer(DENSE).compare(SMALL) for _ in range(40)]
    within = sum(one.ratio_low <= truth <= one.ratio_high for one in found)
    again = sum(one.ratio_low <= two.ratio <= one.ratio_high for one, two in pairwise(found))
    assert within >= 38
    assert again >= 35
    assert all(one.ratio_high / one.ratio_low < 1.4 for one in found)


def test_more_bursts_are_made_until_the_interval_is_narrow(machine: Machine) -> None:
    machine.noise = 0.03
    wide = machine.comparer(DENSE, Timing(width=0.5, seconds=100)).compare(SMALL)
    narrow = machine.comparer(DENSE, Timing(width=0.03, seconds=100)).compare(SMALL)
    assert wide.bursts == 6 < narrow.bursts


def test_a_study_has_one_number_of_the_dense_model(machine: Machine) -> None:
    comparer = machine.comparer(DENSE)
    first = comparer.compare(DENSE)
    machine.factor = 1.3
    second = comparer.compare(SMALL)
    assert second.dense_mj == first.dense_mj
    assert second.energy_mj == pytest.approx(120.0, rel=1e-3)
    resumed = machine.comparer(DENSE)
    resumed.refer_to(first)
    assert resumed.compare(SMALL).dense_mj == first.dense_mj


def test_other_processes_are_a_doubt_as_the_counter_counts_them(machine: Machine) -> None:
    """Each burst takes 0.4 s of this process; others take a second processor for half of that."""

    def readings(others: float) -> list[Counters]:
        return [
            Counters(own=0.4 * (burst + after), busy=0.4 * (burst + after) + others * 0.4 * (burst + after))
            for burst in range(30)
            for after in (0, 1)
        ]

    machine.fake.counters = readings(0.05)
    assert machine.comparer(DENSE).compare(SMALL).trusted
    machine.fake.counters = readings(0.5)
    busy = machine.comparer(DENSE).compare(SMALL)
    assert busy.doubts == (
        "Other processes took 50% of this one's processor time, and what they used is counted, too.",
    )
    assert not busy.comparison.trusted


def test_what_changes_during_a_measurement_is_a_doubt(machine: Machine) -> None:
    machine.fake.factor = lambda now: setattr(machine, "factor", 1.0 if now < 1.5 else 1.4) or 1.0  # type: ignore[func-returns-value]
    found = machine.comparer(DENSE).compare(SMALL)
    assert "The dense model took 420 mJ at first and 588 mJ at last: the machine's power changed." in found.doubts


def test_a_counter_that_fails_midway_says_what_failed_and_how_to_go_on(machine: Machine) -> None:
    comparer = machine.comparer(DENSE)
    for zone in ("intel-rapl:0", "intel-rapl:1"):
        (machine.root / zone / "max_energy_range_uj").write_text("0\n")
    broken = machine.root / "intel-rapl:1" / "energy_uj"
    broken.unlink()
    with pytest.raises(UserCodeError, match=r"The energy in the profile test could not be measured: a counter of RAPL"):
        comparer.compare(SMALL)


def test_a_counter_that_stops_is_no_energy_of_zero(machine: Machine) -> None:
    machine.factor = 0.0
    with pytest.raises(UserCodeError, match=r"the counter stood still during .* calls"):
        machine.comparer(DENSE).compare(SMALL)


def test_it_is_stored_and_read(machine: Machine) -> None:
    found = machine.comparer(DENSE).compare(SMALL)
    assert from_plain(Energy, to_plain_object(found), "a test") == found
