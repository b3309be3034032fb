"""Comparisons of models by a clock that the test sets."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from autoprune.codec import from_plain, to_plain_object
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.measure.latency.backend import Backend
from autoprune.measure.latency.backends import check_backend
from autoprune.measure.latency.comparer import LatencyComparer
from autoprune.measure.latency.host import Counters, lock_path
from autoprune.measure.latency.timing import Timing
from autoprune.records.measurement import Latency
from autoprune.records.profile import LatencyProfile
from tests.unit.measure.latency.fakes import FakeHost, Timed, fake, refuse, register

__all__ = ["fake"]


def test_ratio_and_milliseconds(fake: FakeHost) -> None:
    found = fake.comparer(Timed(12.0)).compare(Timed(3.0))
    assert found.ratio == found.wall_ratio == pytest.approx(0.25)
    assert found.latency_ms == pytest.approx(3.0)
    assert found.dense_ms == pytest.approx(12.0)
    assert found.ratio_low < 0.25 < found.ratio_high
    assert found.low_ms < 3.0 < found.high_ms
    assert found.high_ms / found.low_ms > found.ratio_high / found.ratio_low, (
        "the dense model's time is not sure either"
    )
    assert (found.backend, found.clock, found.fallback, found.doubts) == ("fake", "processor", "", ())
    assert found.trusted


def test_both_are_timed_in_turn_and_either_goes_first(fake: FakeHost) -> None:
    model, dense = Timed(3.0), Timed(12.0)
    fake.comparer(dense, Timing(bursts=1)).compare(model)
    names = "".join("m" if call is model else "d" for call in fake.calls)
    assert names.endswith("mddmmddm" + "md" * (names.endswith("md")))


def test_bursts_are_apart_in_time_and_each_loads_both_anew(fake: FakeHost) -> None:
    model, dense = Timed(3.0), Timed(12.0)
    found = fake.comparer(dense).compare(model)
    assert found.bursts == 6, "as many as show the spread, when there is none"
    assert len(fake.slept) == 5
    assert min(fake.slept) >= 0.05
    assert (fake.loads.count(model), fake.loads.count(dense)) == (6, 6)


def test_more_bursts_are_made_until_the_interval_is_narrow(fake: FakeHost) -> None:
    fake.per_load = 0.02
    wide = fake.comparer(Timed(12.0), Timing(width=0.5)).compare(Timed(3.0))
    narrow = fake.comparer(Timed(12.0), Timing(width=0.02, seconds=100, bursts=1000)).compare(Timed(3.0))
    assert wide.bursts == 6 < narrow.bursts < 1000
    limited = fake.comparer(Timed(12.0), Timing(width=1e-9, bursts=11)).compare(Timed(3.0))
    assert limited.bursts == 11


def test_the_time_limit_ends_a_measurement_but_not_before_three_bursts(fake: FakeHost) -> None:
    fake.per_load = 0.1
    start = fake.wall
    found = fake.comparer(Timed(12.0), Timing(width=1e-9, seconds=2.0, bursts=10_000)).compare(Timed(3.0))
    assert 6 < found.bursts < 100
    assert fake.wall - start < 4.0
    slow = fake.comparer(Timed(4000.0), Timing(seconds=1.0)).compare(Timed(3000.0))
    assert slow.bursts == slow.rounds == 3


def waits(fake: FakeHost, monkeypatch: pytest.MonkeyPatch, when: Callable[[float], bool]) -> None:
    """Every second call waits for a processor, at times since it was prepared."""

    def prepare(module: nn.Module, inputs: Tensor, profile: LatencyProfile):  # type: ignore[no-untyped-def]
        prepared, begin = fake.prepare(module, inputs, profile), fake.wall

        def load():  # type: ignore[no-untyped-def]
            loaded = prepared.load()

            def run() -> None:
                loaded.run()
                fake.wall += 0.02 if when(fake.wall - begin) and len(fake.calls) % 2 else 0.0

            return replace(loaded, run=run)

        return replace(prepared, load=load)

    register(monkeypatch, "fake", Backend(prepare=prepare, title="", clock="processor", exact=True))


#: No measurement is certain enough for this one.
ENDLESS = Timing(width=1e-9, seconds=5.0, bursts=10_000)


def test_a_measurement_that_cannot_be_trusted_any_more_ends(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls wait for half of the time: as much quiet time as is left does not make that a tenth."""
    fake.per_load = 0.1
    waits(fake, monkeypatch, lambda _: True)
    busy = fake.comparer(Timed(12.0), ENDLESS).compare(Timed(3.0))
    assert 3 <= busy.bursts <= 10
    assert "of the time for a processor" in " ".join(busy.doubts)
    patient = fake.comparer(Timed(12.0), replace(ENDLESS, patient=True)).compare(Timed(3.0))
    assert patient.bursts > 2 * busy.bursts


def test_a_busy_start_is_not_the_end(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.per_load = 0.1
    waits(fake, monkeypatch, lambda passed: passed < 0.4)
    found = fake.comparer(Timed(12.0), ENDLESS).compare(Timed(3.0))
    assert found.bursts > 12
    assert not any("for a processor" in doubt for doubt in found.doubts)


def test_what_a_check_prepared_is_used(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[nn.Module] = []

    def prepare(module: nn.Module, inputs: Tensor, profile: LatencyProfile):  # type: ignore[no-untyped-def]
        asked.append(module)
        return fake.prepare(module, inputs, profile)

    register(monkeypatch, "fake", Backend(prepare=prepare, title="", clock="processor", exact=True))
    model, dense = Timed(3.0), Timed(12.0)
    comparer = fake.comparer(dense)
    comparer.check()
    assert asked == [dense]
    comparer.compare(model)
    assert asked == [dense, model]


def test_a_quick_model_is_called_more_often(fake: FakeHost) -> None:
    model, dense = Timed(0.1), Timed(12.0)
    found = fake.comparer(dense, Timing(bursts=3)).compare(model)
    assert found.latency_ms == pytest.approx(0.1)
    assert fake.calls.count(model) >= 10 * found.rounds, "ten calls make the millisecond that the clock is trusted with"


def test_a_model_is_warm_before_it_is_timed(fake: FakeHost) -> None:
    fake.factor = lambda now: max(1.0, 10.0 - len(fake.calls))
    assert fake.comparer(Timed(12.0)).compare(Timed(3.0)).ratio == pytest.approx(0.25)


def test_processor_time_is_not_fooled_by_other_processes(fake: FakeHost) -> None:
    """Calls of the model wait for a processor, those of the dense model do not."""
    model, dense = Timed(3.0), Timed(12.0)
    plain = fake.prepare

    def prepare(module: nn.Module, inputs: Tensor, profile: LatencyProfile):  # type: ignore[no-untyped-def]
        prepared = plain(module, inputs, profile)

        def load():  # type: ignore[no-untyped-def]
            loaded = prepared.load()

            def run() -> None:
                loaded.run()
                fake.wall += 0.003 if module is model and len(fake.calls) % 8 else 0.0

            return replace(loaded, run=run)

        return replace(prepared, load=load)

    fake.prepare = prepare  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        register(patch, "fake", Backend(prepare=prepare, title="", clock="processor", exact=True))
        found = fake.comparer(dense).compare(model)
    assert found.ratio == pytest.approx(0.25)
    assert found.wall_ratio is not None
    assert found.wall_ratio > 0.4
    assert not found.trusted
    told = " ".join(found.doubts)
    assert "The ratio is 0.25 by processor time, which holds, and 0.5 by the wall clock." in told
    assert "of the time for a processor: other work ran on the machine" in told


def test_work_in_other_threads_is_timed_by_the_wall_clock(fake: FakeHost) -> None:
    fake.waiting = 3.0
    found = fake.comparer(Timed(12.0)).compare(Timed(3.0))
    assert (found.clock, found.wall_ratio) == ("wall", None)
    assert found.dense_ms == pytest.approx(48.0)
    two = fake.comparer(Timed(12.0), profile=LatencyProfile(name="two", backend="fake", threads=2)).compare(Timed(3.0))
    assert two.clock == "wall"


def test_a_machine_whose_speed_changes_is_not_trusted(fake: FakeHost) -> None:
    begin = fake.wall
    fake.factor = lambda now: 1.0 + now - begin
    found = fake.comparer(Timed(12.0)).compare(Timed(3.0))
    assert found.ratio == pytest.approx(0.25, rel=0.02), "as the two are timed in turn"
    assert "the machine's speed changed" in " ".join(found.doubts)


BUSY = {
    "throttled": (Counters(), Counters(throttled=2), "throttled 2 times"),
    "interrupted": (Counters(), Counters(switches=1000), "Calls were interrupted"),
}


@pytest.mark.parametrize(("before", "after", "doubt"), BUSY.values(), ids=BUSY)
def test_what_the_system_counts_makes_doubts(before: Counters, after: Counters, doubt: str, fake: FakeHost) -> None:
    fake.counters = [before, after]
    found = fake.comparer(Timed(12.0)).compare(Timed(3.0))
    assert doubt in " ".join(found.doubts)


@pytest.mark.parametrize("busy", [Counters(stalled=0.5), Counters(running=3)], ids=["stalled", "crowded"])
def test_with_several_threads_waiting_tasks_of_the_machine_count(busy: Counters, fake: FakeHost) -> None:
    fake.counters = [replace(busy, stalled=0.0), busy] * 4
    profile = LatencyProfile(name="two", backend="fake", threads=2)
    found = fake.comparer(Timed(12.0), profile=profile).compare(Timed(3.0))
    assert "for a processor: other work ran on the machine" in " ".join(found.doubts)


def test_few_bursts_are_not_trusted(fake: FakeHost) -> None:
    found = fake.comparer(Timed(12.0), Timing(bursts=1)).compare(Timed(3.0))
    assert found.doubts == ("There were 1 bursts of calls; fewer than 3 show no spread.",)
    assert found.ratio_high > 1 > found.ratio_low
    assert fake.comparer(Timed(12.0), Timing(bursts=3)).compare(Timed(3.0)).trusted


def test_one_dense_reference_holds_for_the_whole_study(fake: FakeHost) -> None:
    dense = Timed(12.0)
    comparer = fake.comparer(dense)
    first = comparer.compare(Timed(3.0))
    fake.factor = lambda now: 2.0
    second = comparer.compare(Timed(6.0))
    assert first.dense_ms == second.dense_ms == pytest.approx(12.0)
    assert second.latency_ms == pytest.approx(6.0)
    assert fake.closed == [model for model in fake.closed if model is not dense]
    comparer.close()
    assert fake.closed[-1] is dense
    later = fake.comparer(dense)
    later.refer_to(first)
    assert later.compare(Timed(6.0)).dense_ms == first.dense_ms


def test_a_reference_of_doubt_is_replaced_by_one_that_is_trusted(fake: FakeHost) -> None:
    comparer = fake.comparer(Timed(12.0))
    fake.counters, fake.factor = [Counters(), Counters(throttled=1)], lambda now: 3.0
    assert comparer.compare(Timed(3.0)).dense_ms == pytest.approx(36.0)
    fake.factor = lambda now: 1.0
    assert comparer.compare(Timed(3.0)).dense_ms == pytest.approx(12.0)
    fake.factor = lambda now: 2.0
    assert comparer.compare(Timed(3.0)).dense_ms == pytest.approx(12.0)


def test_the_interval_covers_a_new_measurement(fake: FakeHost) -> None:
    """By a noisy clock: each place in memory and each call has its own speed, and so has each process."""
    covered = 0
    timing = Timing(seconds=2.0)
    for number in range(150):
        fake.random.seed(number)
        fake.per_load, fake.per_stretch = fake.random.choice([0.0, 0.005, 0.02]), fake.random.choice([0.0, 0.01, 0.05])
        process = [math.exp(fake.random.gauss(0, 0.016)) for _ in range(2)]
        first, second = (fake.comparer(Timed(6.0), timing).compare(Timed(3.0 * factor)) for factor in process)
        covered += first.ratio_low <= second.ratio <= first.ratio_high
    assert covered >= 0.9 * 150


@pytest.mark.parametrize("modes", [(True, False), (False, True), (True, True)])
def test_modes_are_restored(fake: FakeHost, modes: tuple[bool, bool]) -> None:
    model, dense = Timed(1.0).train(modes[0]), Timed(1.0).train(modes[1])
    fake.comparer(dense, Timing(bursts=1)).compare(model)
    assert (model.training, dense.training) == modes


def test_modes_are_restored_module_by_module_after_an_error() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no forward")

    model, dense = Fails().train(), nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).train()
    model.norm.eval()
    dense[1].eval()
    with pytest.raises(RuntimeError, match="no forward"):
        LatencyComparer(dense, torch.zeros(2, 3), LatencyProfile(name="e", backend="eager")).compare(model)
    assert (model.training, model.norm.training) == (True, False)
    assert (dense.training, dense[0].training, dense[1].training) == (True, True, False)


def test_an_unknown_backend_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match=r"the latency backend must be one of auto.*eager.*but got 'abacus'"):
        LatencyComparer(nn.Identity(), torch.zeros(1), LatencyProfile(name="a", backend="abacus"))


def test_a_backend_that_lacks_something_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = Backend(prepare=refuse, title="", lacks=lambda: "pip install 'autoprune[abacus]'")
    register(monkeypatch, "abacus", lacking)
    with pytest.raises(ConfigurationError, match=r"backend abacus must .*pip install 'autoprune\[abacus\]'"):
        check_backend("abacus")


def test_where_the_dense_model_does_not_run_all_are_timed_by_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "wheels", Backend(prepare=refuse, title=""))
    comparer = LatencyComparer(
        nn.Linear(3, 2), torch.zeros(2, 3), LatencyProfile(name="w", backend="wheels"), Timing(bursts=1)
    )
    for _ in range(2):
        found = comparer.compare(nn.Linear(3, 2))
        assert (found.backend, found.fallback) == ("eager", "wheels does not run the dense model: it has no wheels.")
        assert not any("The ratio is that of" in doubt for doubt in found.doubts)


def test_a_model_that_alone_falls_back_is_compared_like_with_like(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = Timed(12.0)

    def prepare(model: nn.Module, inputs: Tensor, profile: LatencyProfile):  # type: ignore[no-untyped-def]
        return fake.prepare(model, inputs, profile) if model is dense else refuse(model, inputs, profile)

    slow = FakeHost()

    def prepare_slow(model: nn.Module, inputs: Tensor, profile: LatencyProfile):  # type: ignore[no-untyped-def]
        prepared = fake.prepare(model, inputs, profile)
        return replace(prepared, load=lambda: (slow.loads.append(model), prepared.load())[1])  # type: ignore[arg-type]

    register(monkeypatch, "picky", Backend(prepare=prepare, title="", clock="processor", exact=True))
    register(monkeypatch, "eager", Backend(prepare=prepare_slow, title="", clock="processor", exact=True))
    comparer = fake.comparer(dense, profile=LatencyProfile(name="p", backend="picky"))
    model = Timed(3.0)
    found = comparer.compare(model)
    assert set(slow.loads) == {model, dense}
    assert found.backend == "eager"
    assert found.fallback == "picky does not run this model: it has no wheels."
    assert found.doubts == ("The ratio is that of eager, since picky runs the dense model but not this one.",)
    again = comparer.compare(dense)
    assert (again.backend, again.trusted) == ("picky", True)


def test_a_device_on_which_the_dense_model_does_not_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "phone", Backend(prepare=refuse, title="", clock="device", falls_back=False))
    comparer = LatencyComparer(nn.Linear(3, 2), torch.zeros(2, 3), LatencyProfile(name="p", backend="phone"))
    with pytest.raises(ConfigurationError, match=r"latency profile p must .*but got it has no wheels"):
        comparer.compare(nn.Linear(3, 2))


def test_sizes_of_inputs_are_weighted(fake: FakeHost) -> None:
    """A call takes its model's time for each number of the inputs."""
    profile = LatencyProfile(name="s", backend="fake", sizes=((2, 3.0), (6, 1.0)))
    found = fake.comparer(Timed(10.0), inputs=torch.zeros(1, 4), profile=profile).compare(Timed(1.0))
    assert found.sizes_ms == ((2, pytest.approx(2.0)), (6, pytest.approx(6.0)))
    assert found.latency_ms == pytest.approx(0.75 * 2 + 0.25 * 6)
    assert found.dense_ms == pytest.approx(30.0)


def test_a_latency_is_stored_and_an_earlier_one_is_read(fake: FakeHost) -> None:
    profile = LatencyProfile(name="s", backend="fake", sizes=((2, 3.0), (6, 1.0)))
    found = fake.comparer(Timed(10.0), Timing(bursts=1), inputs=torch.zeros(1, 4), profile=profile).compare(Timed(1.0))
    data = json.loads(json.dumps(to_plain_object(found)))
    assert from_plain(Latency, data, "here") == found
    new = {"bursts", "clock", "wall_ratio", "fallback", "doubts", "sizes_ms"}
    earlier = from_plain(Latency, {key: value for key, value in data.items() if key not in new}, "here")
    assert (earlier.ratio, earlier.bursts, earlier.trusted) == (found.ratio, 0, True)


@pytest.mark.parametrize(("given", "message"), [({"width": 0}, "width must be > 0"), ({"bursts": 0}, "bursts must be")])
def test_timing_is_checked(given: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Timing(**given)


def test_during_calls_no_garbage_is_collected_and_no_other_process_measures(fake: FakeHost) -> None:
    seen: list[tuple[bool, int]] = []

    def watched(now: float) -> float:
        try:
            with FileLock(lock_path(), timeout=0):
                is_free = True
        except Timeout:
            is_free = False
        seen.append((not is_free and not gc.isenabled(), torch.get_num_threads()))
        return 1.0

    before = torch.get_num_threads()
    profile = LatencyProfile(name="two", backend="fake", threads=before + 1)
    fake.factor = watched
    fake.comparer(Timed(12.0), Timing(bursts=2), profile=profile).compare(Timed(3.0))
    assert [inside for inside, _ in seen].count(True) >= 20, "all but the calls that warm up"
    assert {threads for _, threads in seen} == {before + 1}
    assert gc.isenabled()
    assert torch.get_num_threads() == before
    with FileLock(lock_path(), timeout=0):
        pass


def test_a_measurement_beside_another_one_is_not_trusted(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprune.measure.latency.host._PATIENCE", 0.0)
    with FileLock(lock_path()):
        found = fake.comparer(Timed(12.0)).compare(Timed(3.0))
    assert found.doubts == ("Another measurement ran at the same time.",)


def test_of_slow_models_either_goes_first_too(fake: FakeHost) -> None:
    model, dense = Timed(3000.0), Timed(4000.0)
    fake.comparer(dense, Timing(seconds=1.0, bursts=2)).compare(model)
    calls = "".join("m" if call is model else "d" for call in fake.calls)
    assert calls == "mmdd" + "md" + "dm", "two calls each to warm up, and one pair in each burst"
